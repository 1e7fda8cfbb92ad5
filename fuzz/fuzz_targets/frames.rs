//! `cargo +nightly fuzz run --features cargo-fuzz frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("frames", data));

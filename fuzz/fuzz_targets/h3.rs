//! `cargo +nightly fuzz run --features cargo-fuzz h3`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("h3", data));

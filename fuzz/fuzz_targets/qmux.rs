//! `cargo +nightly fuzz run --features cargo-fuzz qmux`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("qmux", data));

//! `cargo +nightly fuzz run --features cargo-fuzz keys`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("keys", data));

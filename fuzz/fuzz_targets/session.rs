//! `cargo +nightly fuzz run --features cargo-fuzz session`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("session", data));

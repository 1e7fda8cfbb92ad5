//! `cargo +nightly fuzz run --features cargo-fuzz ws`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("ws", data));

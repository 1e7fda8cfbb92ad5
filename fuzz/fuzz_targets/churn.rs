//! `cargo +nightly fuzz run --features cargo-fuzz churn`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shardcast_fuzz::fuzz("churn", data));

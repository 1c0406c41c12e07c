//! See `src/session/mod.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| speak_fuzz::session::run(input));

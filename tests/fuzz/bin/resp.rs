//! See `src/resp.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| speak_fuzz::resp::run(input));

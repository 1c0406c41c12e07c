//! See `src/frame.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| speak_fuzz::frame::run(input));

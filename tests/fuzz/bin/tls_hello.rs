//! See `src/tls_hello.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| speak_fuzz::tls_hello::run(input));

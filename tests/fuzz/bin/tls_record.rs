//! See `src/tls_record.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| speak_fuzz::tls_record::run(input));

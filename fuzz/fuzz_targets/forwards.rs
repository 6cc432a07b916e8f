#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imux::fuzz::forwards(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imux::fuzz::range_set(data));

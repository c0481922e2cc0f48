#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| domicile_fuzz_bodies::framing(data));

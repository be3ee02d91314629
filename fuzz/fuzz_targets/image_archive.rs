#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| support::fuzz::run("image_archive", data));

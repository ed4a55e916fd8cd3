//! Nothing that a process or a kernel can write makes a reader panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| holders::read_anything(bytes));

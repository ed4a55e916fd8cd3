//! Nothing that a process or a log can write makes a reader panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xid::read_anything(bytes));

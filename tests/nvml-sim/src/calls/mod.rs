// SPDX-License-Identifier: MIT
//! NVML's calls, under NVML's names.
//!
//! A place that a caller may leave null is an `Option` of a reference, which has the same form. They are
//! not called by name here: they are for programs that open the library.

#![allow(unsafe_code)]
// The constants are bindgen's.
#![allow(non_upper_case_globals)]

mod device;
mod mig;
mod set;
mod system;

/// Makes functions of NVML's from a name, arguments, and what to do.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),* $(,)?) = $act:expr;)*) => {$(
        #[doc = concat!("See `", stringify!($name), "` in nvml.h.")]
        // SAFETY: the name is NVML's, and in one process there is one NVML.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $kind),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            crate::session::call(stringify!($name), $act)
        }
    )*};
}
use calls;

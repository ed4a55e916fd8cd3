// SPDX-License-Identifier: MIT
//! Where programs are looked for.

#![allow(unsafe_code)]

/// Where only packages put programs: Debian's /usr/local belongs to the group staff as well.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// From here on this process and those that it starts look for programs in the system's own directories only,
/// whatever PATH the caller had. To be called first in `main`.
pub fn fix_path() {
    // SAFETY: this process has no other thread yet that could read the environment meanwhile.
    unsafe { std::env::set_var("PATH", PATH) }
}

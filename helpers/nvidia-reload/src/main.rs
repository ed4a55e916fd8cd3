// SPDX-License-Identifier: MIT
//! The command that people type.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nvidia_reload::main()
}

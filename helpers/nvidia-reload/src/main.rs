//! The command that people type.

use std::process::ExitCode;

fn main() -> ExitCode {
    nvidia_reload::main()
}

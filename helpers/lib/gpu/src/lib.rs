// SPDX-License-Identifier: MIT
//! NVML in short-lived processes.
//!
//! A process that has called NVML keeps the library mapped, holds the driver's devices open, and has the old version
//! after a reload. So NVML is called in a child process, which answers in JSON and exits; if it hangs, only that process
//! is lost. Reading loads no module and changes nothing: [`only_look`].

mod child;
mod guard;
mod links;
mod mig;
mod nvml;
mod read;
mod set;
mod state;

pub use child::{HELPER, Question, ask_helper, ask_state, talk};
pub use guard::only_look;
pub use links::{Links, links};
pub use nvml::{Memory, Usage, Used, library, state, usage};
pub use set::{Restored, restore};
pub use state::{Answer, Library, Reading, State, Trouble};

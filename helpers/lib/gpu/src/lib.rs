//! NVML in a short life.
//!
//! A process that has talked to NVML keeps the library mapped, holds the driver's devices open, and
//! after a reload still has the old version. So whoever wants to know something from NVML asks in a
//! process of its own, which answers in JSON and ends; a hang costs that process only.

mod child;
mod nvml;

pub use child::{HELPER, Question, ask_helper};
pub use nvml::{Answer, Library, Usage, Used, ask, library, usage};

//! NVML in a short life.
//!
//! A process that has talked to NVML keeps the library mapped, holds the driver's devices open, and
//! after a reload still has the old version. So whoever wants to know something from NVML asks in a
//! process of its own, which answers in JSON and ends; a hang costs that process only. Asking
//! loads no module and changes nothing: [`only_look`].

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
pub use nvml::{Answer, Library, Memory, Usage, Used, library, state, usage};
pub use set::{Given, give_back};
pub use state::{Seen, State, Trouble};

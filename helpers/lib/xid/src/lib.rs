// SPDX-License-Identifier: MIT
//! What the driver's kernel messages mean: the parser, the catalogue of Xids, the verdict.
//!
//! Pure: text and numbers in, typed values out. Its callers know where a message comes from, and whether it is the
//! kernel's.

#![forbid(unsafe_code)]

mod address;
pub mod catalogue;
mod class;
mod classify;
mod event;
mod export;
#[cfg(test)]
mod fuzz;
mod json;
mod line;
mod log;
mod nvlink;
mod parse;
mod prefix;
mod scan;
mod stamp;
mod verdict;
mod words;

pub use address::Address;
pub use class::Class;
pub use event::{ApiMismatch, Detail, Event, GpuLost, Location, ModesetError, Reported, Severity, Sxid, Xid};
pub use export::{Entry, read_export};
pub use line::{Line, SCHEMA, message};
pub use log::read_log;
pub use nvlink::{Branch, Resolution, resolution};
pub use parse::parse;
pub use verdict::{Evidence, Gpu, Message, NvmlState, Verdict, condensed, verdicts};

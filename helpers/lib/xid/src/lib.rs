//! What the driver's kernel messages mean: the parser, the catalogue of Xids, the verdict.
//!
//! Pure: text and numbers in, typed values out. Where a message comes from, and whether it is the
//! kernel's at all, is for those who read it; here it is only understood.

mod address;
pub mod catalogue;
mod class;
mod event;
mod export;
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

/// Gives `bytes` to every reader of this crate: what the fuzzer and the tests call.
#[doc(hidden)]
pub fn read_anything(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(event) = parse(&text) {
        let _ = class::class(&event, None);
    }
    if let Some(line) = Line::read(&text) {
        let _ = serde_json::to_string(&line);
        let _ = line.event.to_string();
    }
    let _ = read_log(bytes, drop);
    let _ = read_export(bytes, |entry| drop(entry.message()));
}

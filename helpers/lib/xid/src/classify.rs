// SPDX-License-Identifier: MIT
//! What a message means for a reload.

use crate::{Branch, Class, Detail, Event, Severity, catalogue, nvlink};

impl Event {
    /// What it means for a reload; none for messages that only tell.
    pub fn class(&self) -> Option<Class> {
        class(self, None)
    }
}

/// What `event` means, under a driver of `branch`, where that is known.
pub(crate) fn class(event: &Event, branch: Option<Branch>) -> Option<Class> {
    match event {
        Event::Xid(xid) => Some(match &xid.detail {
            Detail::Recovery { action_to, .. } => Class::of_recovery_action(*action_to),
            // The Xid that it names counts.
            Detail::CausedBy { .. } => Class::Info,
            Detail::NvLink5(reported) => nvlink::resolution(xid.xid, reported, branch)
                .map_or_else(|| of_code(xid.xid), nvlink::Resolution::class),
            _ => of_code(xid.xid),
        }),
        Event::Sxid(sxid) => Some(match sxid.severity {
            Severity::Fatal if sxid.always_fatal => Class::Reboot,
            Severity::Fatal => Class::Reset,
            Severity::Nonfatal | Severity::Correctable => Class::Info,
        }),
        Event::GpuLost(_) | Event::UvmFatal { .. } => Some(Class::Reboot),
        Event::GspRatelimit { .. } | Event::Wpr2Up { .. } => Some(Class::Reset),
        // Which of them the machine needs, it does not say: verify compares what is bound.
        Event::ProbeFailed { .. } | Event::NeedsOpenModule { .. } | Event::NvlinkRxdetFailed => {
            Some(Class::Support)
        }
        Event::RmInitFailed { .. } => Some(Class::Failed),
        Event::ApiMismatch(_) => Some(Class::Reload),
        _ => None,
    }
}

/// The class of a code by itself; what is not in the catalogue is for NVIDIA to say.
fn of_code(code: u32) -> Class {
    catalogue::entry(code).map_or(Class::Support, |entry| entry.class)
}

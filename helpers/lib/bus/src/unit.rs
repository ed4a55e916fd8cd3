// SPDX-License-Identifier: MIT
//! What a manager tells of a unit, as types.

use std::fmt;

/// Makes an enumeration of systemd's words, with a variant for those of later versions.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $variant,)+
            /// A word that this version does not know.
            Other(String),
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                })
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Whether a unit's file was found and understood.
    LoadState {
        /// It was.
        Loaded = "loaded",
        /// There is no such unit.
        NotFound = "not-found",
        /// Its file has a setting that cannot be used.
        BadSetting = "bad-setting",
        /// Its file cannot be read.
        Error = "error",
        /// It is linked to /dev/null.
        Masked = "masked",
        /// It is made by the manager and not read yet.
        Stub = "stub",
        /// It is another name of a unit that is loaded.
        Merged = "merged",
    }
}

words! {
    /// Whether a unit runs.
    ActiveState {
        /// It does, or did its work and stays.
        Active = "active",
        /// It does, and reloads its configuration.
        Reloading = "reloading",
        /// It does, and its mounts are refreshed.
        Refreshing = "refreshing",
        /// It does not.
        Inactive = "inactive",
        /// It does not, since it failed.
        Failed = "failed",
        /// It is about to.
        Activating = "activating",
        /// It is about to stop.
        Deactivating = "deactivating",
        /// It runs, and its maintenance is under way.
        Maintenance = "maintenance",
    }
}

impl ActiveState {
    /// Whether the unit runs, is about to, or has not ended yet.
    pub fn is_up(&self) -> bool {
        !matches!(self, ActiveState::Inactive | ActiveState::Failed)
    }
}

words! {
    /// What the whole system does.
    SystemState {
        /// PID 1 has begun.
        Initializing = "initializing",
        /// The boot is not over.
        Starting = "starting",
        /// Everything works.
        Running = "running",
        /// A unit failed.
        Degraded = "degraded",
        /// Rescue or emergency mode.
        Maintenance = "maintenance",
        /// Shutting down.
        Stopping = "stopping",
    }
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its principal name; other names are aliases.
    pub name: String,
    /// Whether its file was found.
    pub load: LoadState,
    /// Whether it runs.
    pub active: ActiveState,
    /// The state in the words of its type: `running`, `exited`, `listening`, `stop-post`.
    pub sub: String,
    /// The id of the job queued for it.
    pub job: Option<u32>,
    /// Its file; empty for a transient or generated one without.
    pub fragment: String,
    /// Whether its `Assert…=` held when it was started last.
    pub asserted: bool,
}

/// What a unit came to, and what wants it to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The unit.
    pub unit: Unit,
    /// How its last run ended, where it is a service.
    pub result: String,
    /// How often it was restarted by itself (`Restart=`), where it is a service.
    pub restarts: u32,
    /// The units that want it, each in one way or another: whatever they are doing.
    pub wanted_by: Vec<String>,
    /// The units without which it does not run.
    pub requires: Vec<String>,
    /// When it was up last and went down, in microseconds since 1970; 0 for never.
    pub left_usec: u64,
    /// What the conditions (`Condition…=`) were about that kept it from starting last.
    pub unmet: Vec<String>,
    /// When it came to that, in microseconds since 1970.
    pub changed_usec: u64,
    /// When it came up last, in microseconds of CLOCK_MONOTONIC; 0 for never.
    pub up_usec: u64,
}

/// The units that a stop of a unit takes along, and those that would start it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dependents {
    /// Units with `Requires=` or `Requisite=` on it: stopped with it.
    pub required_by: Vec<String>,
    /// Units with `BindsTo=` on it: stopped with it.
    pub bound_by: Vec<String>,
    /// Units with `PartOf=` it: stopped with it.
    pub consists_of: Vec<String>,
    /// Sockets, timers and paths that start it.
    pub triggered_by: Vec<String>,
}

impl Dependents {
    /// All that a stop takes along, each once.
    pub fn stopped_along(&self) -> Vec<&str> {
        let mut names: Vec<&str> = [&self.required_by, &self.bound_by, &self.consists_of]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What only a service has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// How its last run ended: `success`, `exit-code`, `timeout`, …
    pub result: String,
    /// Its own words, as `sd_notify` brought them.
    pub status_text: String,
    /// The main process; 0 for none.
    pub main_pid: u32,
    /// When the main process was started, in microseconds of CLOCK_MONOTONIC; 0 for never.
    pub started_usec: u64,
    /// When it ended; 0 for not yet.
    pub exited_usec: u64,
    /// How it ended, as in `si_code` of `waitid`: 1 exited, 2 killed, 3 dumped core.
    pub code: i32,
    /// Its exit status or the signal.
    pub status: i32,
}

impl Service {
    /// The exit status of the main process, if it ended by itself.
    pub fn exit_status(&self) -> Option<i32> {
        const CLD_EXITED: i32 = 1;
        (self.code == CLD_EXITED && self.exited_usec != 0).then_some(self.status)
    }
}

/// A line of the list of units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The unit.
    pub name: String,
    /// Whether its file was found.
    pub load: LoadState,
    /// Whether it runs.
    pub active: ActiveState,
    /// The state in the words of its type.
    pub sub: String,
}

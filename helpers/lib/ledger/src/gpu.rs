// SPDX-License-Identifier: MIT
//! A GPU as NVML showed it, and what was set on it.
//!
//! The numbers are NVML's own (nvml.h), so that a value that this version does not know is recorded and
//! restored as it was. Data only: what unloads the driver reads the ledger and links no NVML.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// NVML's index; it may change with every load.
    pub index: u32,
    /// The PCI address as the kernel writes it, such as `0000:3b:00.0`.
    pub pci: String,
    /// The UUID, which stays.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// What was set and is not at its default, in the order in which it is to be set again.
    pub settings: Vec<Setting>,
    /// What NVML could not tell, a sentence each. What a GPU or a library does not have is not here.
    pub unread: Vec<String>,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GPU {} ({}, {})", self.index, self.pci, self.uuid)
    }
}

/// How a GPU is. None is what the GPU, the driver or the library does not have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Field 230, from 565 on: see `xid::Class::of_recovery_action` for what the numbers mean.
    pub recovery_action: Option<u32>,
    /// Rows of memory that were remapped, from Ampere on.
    pub remapped_rows: Option<RemappedRows>,
    /// Whether retired pages wait for a reset or a load, before Ampere.
    pub retired_pages_pending: Option<bool>,
    /// ECC.
    pub ecc: Option<Mode>,
    /// MIG.
    pub mig: Option<Mode>,
    /// The NVLink fabric.
    pub fabric: Option<Fabric>,
}

/// Rows of memory that were remapped (`nvmlDeviceGetRemappedRows`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemappedRows {
    /// For correctable errors.
    pub correctable: u32,
    /// For uncorrectable errors.
    pub uncorrectable: u32,
    /// One waits for a reset.
    pub pending: bool,
    /// One failed: the board is to be replaced.
    pub failure: bool,
}

/// A mode that changes with a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    /// Now.
    pub current: bool,
    /// After the next load or reset.
    pub pending: bool,
}

/// A GPU's place in the NVLink fabric (`nvmlDeviceGetGpuFabricInfo`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fabric {
    /// `NVML_GPU_FABRIC_STATE_…`: 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// `nvmlReturn_t`, of a registration that is completed.
    pub status: u32,
}

/// Something that was set on a GPU, and is lost when the driver is unloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Setting {
    /// Persistence mode is on.
    Persistence,
    /// MIG mode is on.
    Mig,
    /// A GPU instance.
    GpuInstance(GpuInstance),
    /// The compute mode.
    ComputeMode {
        /// `nvmlComputeMode_t`.
        mode: u32,
    },
    /// Accounting mode is on.
    Accounting,
    /// Who may use a call.
    ApiRestriction {
        /// `nvmlRestrictedAPI_t`.
        api: u32,
        /// Only root.
        restricted: bool,
    },
    /// The power limit.
    PowerLimit {
        /// In milliwatts.
        milliwatts: u32,
    },
    /// Applications clocks.
    ApplicationClocks {
        /// Of the memory, in MHz.
        memory: u32,
        /// Of graphics, in MHz.
        graphics: u32,
    },
    /// The offset of a clock.
    ClockOffset {
        /// `nvmlClockType_t`.
        clock: u32,
        /// `nvmlPstates_t`.
        pstate: u32,
        /// In MHz.
        mhz: i32,
    },
    /// Locked clocks. NVML cannot tell them: they come from the configuration.
    LockedClocks {
        /// Those of the memory; else those of the GPU.
        memory: bool,
        /// The lowest, in MHz.
        lowest: u32,
        /// The highest, in MHz.
        highest: u32,
    },
}

/// A GPU instance, and the compute instances in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuInstance {
    /// Its number and its place.
    pub instance: Instance,
    /// The compute instances in it.
    pub compute: Vec<Instance>,
}

/// An instance of MIG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its number; the driver gives it, and the instance's UUID depends on it.
    pub id: u32,
    /// The id of its profile.
    pub profile: u32,
    /// The first slice.
    pub start: u32,
    /// How many slices.
    pub size: u32,
}

impl Instance {
    /// Whether it is of the same profile in the same place, whatever its number.
    pub fn is_like(&self, other: &Instance) -> bool {
        (self.profile, self.start, self.size) == (other.profile, other.start, other.size)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profile {} at {}:{}", self.profile, self.start, self.size)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Persistence => f.write_str("persistence mode on"),
            Setting::Mig => f.write_str("MIG mode on"),
            Setting::GpuInstance(GpuInstance { instance, compute }) => {
                write!(f, "GPU instance of {instance}")?;
                for (at, compute) in compute.iter().enumerate() {
                    write!(f, "{} compute instance of {compute}", if at == 0 { " with" } else { "," })?;
                }
                Ok(())
            }
            Setting::ComputeMode { mode } => match mode {
                1 => f.write_str("compute mode exclusive-thread"),
                2 => f.write_str("compute mode prohibited"),
                3 => f.write_str("compute mode exclusive-process"),
                mode => write!(f, "compute mode {mode}"),
            },
            Setting::Accounting => f.write_str("accounting mode on"),
            Setting::ApiRestriction { api, restricted } => {
                let what = match api {
                    0 => "applications clocks",
                    1 => "auto boost",
                    _ => "an unknown API",
                };
                write!(f, "{what} for {}", if *restricted { "root only" } else { "everyone" })
            }
            Setting::PowerLimit { milliwatts } => write!(f, "power limit {} W", Watts(*milliwatts)),
            Setting::ApplicationClocks { memory, graphics } => {
                write!(f, "applications clocks {memory} MHz (memory), {graphics} MHz (graphics)")
            }
            Setting::ClockOffset { clock, pstate, mhz } => {
                let what = match clock {
                    0 => "graphics",
                    1 => "SM",
                    2 => "memory",
                    _ => "unknown",
                };
                write!(f, "{what} clock offset {mhz:+} MHz in P{pstate}")
            }
            Setting::LockedClocks { memory, lowest, highest } => {
                write!(
                    f,
                    "{} clocks locked to {lowest}-{highest} MHz",
                    if *memory { "memory" } else { "GPU" }
                )
            }
        }
    }
}

/// Milliwatts, shown as watts.
struct Watts(u32);

impl fmt::Display for Watts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            rest => write!(f, "{}.{rest:03}", self.0 / 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_reads_as_people_say_it() {
        let one = |profile, start, size| Instance { id: 7, profile, start, size };
        for (setting, text) in [
            (Setting::PowerLimit { milliwatts: 250_000 }, "power limit 250 W"),
            (Setting::PowerLimit { milliwatts: 250_050 }, "power limit 250.050 W"),
            (Setting::ClockOffset { clock: 0, pstate: 0, mhz: -30 }, "graphics clock offset -30 MHz in P0"),
            (
                Setting::GpuInstance(GpuInstance {
                    instance: one(9, 4, 4),
                    compute: vec![one(0, 0, 1), one(1, 1, 2)],
                }),
                "GPU instance of profile 9 at 4:4 with compute instance of profile 0 at 0:1, compute instance of profile 1 at 1:2",
            ),
        ] {
            assert_eq!(setting.to_string(), text);
        }
    }

    #[test]
    fn a_setting_is_one_flat_object() {
        let setting = Setting::GpuInstance(GpuInstance {
            instance: Instance { id: 1, profile: 9, start: 0, size: 4 },
            compute: Vec::new(),
        });
        let text = serde_json::to_string(&setting).expect("encodes");
        assert_eq!(
            text,
            r#"{"kind":"gpu-instance","instance":{"id":1,"profile":9,"start":0,"size":4},"compute":[]}"#
        );
        assert_eq!(serde_json::from_str::<Setting>(&text).expect("decodes"), setting);
    }
}

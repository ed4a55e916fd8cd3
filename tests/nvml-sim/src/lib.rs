// SPDX-License-Identifier: MIT
//! A simulation of NVML, for the test machine, whose GPUs NVIDIA's own library cannot see.
//!
//! It is no NVML: it talks to no GPU. It stands in the place of `libnvidia-ml.so.1` and answers the
//! calls that nvidia-reload makes, from a description of GPUs and faults in [`config::FILE`]. What it
//! shares with the real one is what matters for a reload:
//!
//! * it holds `/dev/nvidiactl` from init to shutdown, so it keeps the driver in use, and its opening
//!   makes the kernel load the driver;
//! * it refuses to start when its version, which is in its file's name, is not that of the loaded
//!   module;
//! * what was set is lost when the module is reloaded: it looks at the real module;
//! * what changes a GPU or lists MIG instances needs CAP_SYS_ADMIN (`NV_IS_SUSER`, nv-linux.h of
//!   NVIDIA/open-gpu-kernel-modules).
//!
//! `nvmlSystemGetNVMLVersion` says `simulation`, and so do the names of its GPUs.

pub mod calls;
pub mod config;
pub mod driver;
pub mod place;
pub mod profiles;
pub mod session;
pub mod settings;

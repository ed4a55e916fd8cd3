// SPDX-License-Identifier: MIT
//! Modules that use the driver without standing in its `holders/`.

/// Modules of others that look up functions of `nvidia` by name as they are loaded (`symbol_get`), and how
/// many: each is a reference, and `/sys/module/nvidia/holders` has nothing of it.
///
/// nvidia_fs of GPUDirect Storage before 2.17.5 takes six (its nvfs-p2p.c), and drops them when it is
/// unloaded. Later ones are in `holders/` like any other module.
pub const BY_NAME: [(&str, u64); 1] = [("nvidia_fs", 6)];

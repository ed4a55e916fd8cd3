// SPDX-License-Identifier: MIT
//! The Container Device Interface: files that tell engines which nodes, files and hooks make up a GPU.
//!
//! They name paths and numbers of the driver for which they were written. After a change of it they
//! are written again where they no longer fit, by those whose work that is: `nvidia-cdi-refresh.service`,
//! else `nvidia-ctk`. Without either, what is wrong is said.

mod dirs;
#[cfg(test)]
mod fuzz;
mod refresh;
mod spec;

pub(crate) use refresh::{note, paths, refresh, rewrite_all};

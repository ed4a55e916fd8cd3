// SPDX-License-Identifier: MIT
//! The runtimes of an engine.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::select::is_nvidia_runtime;
use crate::{Client, Error};

impl Client {
    /// The runtime that the engine takes when none is asked for.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn runtimes(&self) -> Result<Runtimes, Error> {
        self.get("/info").await
    }

    /// Whether its containers outlive its daemon (Docker's `live-restore`).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn keeps_containers(&self) -> Result<bool, Error> {
        Ok(self.runtimes().await?.live_restore_enabled.unwrap_or_default())
    }

    /// Whether NVIDIA's runtime, or the hook that stands for it with `--gpus`, starts this container.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn starts_by_nvidias_hook(&self, id: &str) -> Result<bool, Error> {
        let container = self.inspect(id).await?;
        let Some(given) = container.host_config else { return Ok(false) };
        let by_request =
            given.device_requests.iter().flatten().any(|request| request.driver.as_deref() != Some("cdi"));
        let runtimes = self.runtimes().await?;
        Ok(by_request || given.runtime.is_some_and(|name| runtimes.is_nvidias(&name)))
    }
}

/// The runtimes of an engine, and what else of it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Runtimes {
    /// The one that it takes when none is asked for.
    pub(crate) default_runtime: Option<String>,
    live_restore_enabled: Option<bool>,
    runtimes: Option<BTreeMap<String, Program>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Program {
    path: Option<String>,
}

impl Runtimes {
    /// Whether the runtime of this name is NVIDIA's, whatever it is called.
    pub(crate) fn is_nvidias(&self, name: &str) -> bool {
        let program = self.runtimes.as_ref().and_then(|all| all.get(name)?.path.as_deref());
        is_nvidia_runtime(name) || program.is_some_and(is_nvidia_runtime)
    }
}

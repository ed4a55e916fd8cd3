// SPDX-License-Identifier: MIT
//! The orders for a container, to an engine or to a user's side.

use std::time::Duration;

use as_user::Ask;
use bollard::Docker;
use bollard::query_parameters::{RemoveContainerOptions, StartContainerOptions, StopContainerOptionsBuilder};
use tokio::time::timeout;

use super::{Client, Error, ORDER, PATIENCE, Transport, segment, typed};
use crate::user;

impl Client {
    /// Sends the stop signal, and SIGKILL after `grace`. Returns when the engine has seen it end.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let options =
            StopContainerOptionsBuilder::new().t(grace.as_secs().min(i32::MAX as u64) as i32).build();
        let ask = Ask::StopContainer { id: id.to_owned(), seconds: grace.as_secs() };
        let id = segment(id)?;
        self.order(grace + ORDER, Some(ask), async |docker| docker.stop_container(&id, Some(options)).await)
            .await
    }

    /// Starts it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let ask = Ask::StartContainer { id: id.to_owned() };
        let id = segment(id)?;
        self.order(ORDER, Some(ask), async |docker| {
            docker.start_container(&id, None::<StartContainerOptions>).await
        })
        .await
    }

    /// Freezes its processes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        let ask = Ask::Pause { id: id.to_owned() };
        let id = segment(id)?;
        self.order(ORDER, Some(ask), async |docker| docker.pause_container(&id).await).await
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unpause(&self, id: &str) -> Result<(), Error> {
        let ask = Ask::Unpause { id: id.to_owned() };
        let id = segment(id)?;
        self.order(ORDER, Some(ask), async |docker| docker.unpause_container(&id).await).await
    }

    /// Removes a container that does not run. Its volumes stay.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let id = segment(id)?;
        self.order(ORDER, None, async |docker| {
            docker.remove_container(&id, None::<RemoveContainerOptions>).await
        })
        .await
    }

    /// Gives an order: by bollard, or to the user's side. bollard has no limit of time for what an engine
    /// says beside its refusal.
    async fn order(
        &self,
        patience: Duration,
        ask: Option<Ask>,
        order: impl AsyncFnOnce(Docker) -> Result<(), bollard::errors::Error>,
    ) -> Result<(), Error> {
        match (&self.transport, ask) {
            (Transport::Socket { docker, .. }, _) => {
                let order = order(docker.clone().with_timeout(patience));
                let ended = timeout(patience + PATIENCE, order).await;
                ended.map_err(|_| Error::TimedOut(patience))?.map_err(|error| typed(error, patience))
            }
            (Transport::User { agent, .. }, Some(ask)) => user::ask(agent, ask, patience).await,
            (Transport::User { .. }, None) => {
                Err(Error::Odd("that is not done for a user's container".into()))
            }
        }
    }
}

//! A manager, asked one thing at a time.

use zbus::proxy::CacheProperties;
use zbus::{Connection, block_on};

use crate::connect::{Scope, connect};
use crate::proxies::{ManagerProxy, ServiceProxy, UnitProxy};
use crate::signals::Signals;
use crate::{Dependents, Error, Follower, Job, Listed, Service, SystemState, Unit};

/// What happens to a job that is already queued for the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The new one takes its place.
    Replace,
    /// The new one is refused if the old one contradicts it.
    Fail,
}

impl Mode {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Mode::Replace => "replace",
            Mode::Fail => "fail",
        }
    }
}

/// The system's service manager, or a user's.
#[derive(Debug, Clone)]
pub struct Manager {
    scope: Scope,
    connection: Connection,
}

impl Manager {
    /// PID 1.
    ///
    /// # Errors
    /// Neither it nor the bus answers.
    pub fn system() -> Result<Self, Error> {
        Self::connect(Scope::System)
    }

    /// The manager of user `uid`; only root and that user may talk to it.
    ///
    /// # Errors
    /// The user has none at this moment, or it does not answer.
    pub fn user(uid: u32) -> Result<Self, Error> {
        Self::connect(Scope::User(uid))
    }

    pub(crate) fn connect(scope: Scope) -> Result<Self, Error> {
        let connection = connect(&scope)?;
        Ok(Self { scope, connection })
    }

    /// The same manager over a new connection, for when the old one is gone.
    ///
    /// # Errors
    /// It does not answer.
    pub fn reconnect(&self) -> Result<Self, Error> {
        Self::connect(self.scope.clone())
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// What the system, or the user's session, does.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn state(&self) -> Result<SystemState, Error> {
        self.ask("ask for the system's state", None, async |manager| {
            manager.system_state().await.map(Into::into)
        })
    }

    /// Queues the start of `unit` and does not wait for it.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn start(&self, unit: &str, mode: Mode) -> Result<Job, Error> {
        let path = self.ask(&format!("start {unit}"), Some(unit), async |manager| {
            manager.start_unit(unit, mode.word()).await
        })?;
        Ok(Job { path: path.to_string(), unit: unit.into(), kind: "start".into() })
    }

    /// Queues the stop of `unit` and does not wait for it.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn stop(&self, unit: &str, mode: Mode) -> Result<Job, Error> {
        let path = self.ask(&format!("stop {unit}"), Some(unit), async |manager| {
            manager.stop_unit(unit, mode.word()).await
        })?;
        Ok(Job { path: path.to_string(), unit: unit.into(), kind: "stop".into() })
    }

    /// Follows jobs to their end, and what becomes of `units`: open it before the first job is
    /// queued.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn follow(&self, units: &[&str]) -> Result<Follower, Error> {
        Follower::new(self.clone(), units)
    }

    /// What happens from now on, of jobs and of `units`.
    pub(crate) fn signals(&self, units: &[&str]) -> Result<Signals, Error> {
        let mut paths = Vec::new();
        for unit in units {
            paths.push((self.path(unit)?, (*unit).to_owned()));
        }
        Signals::open(self, paths)
    }

    /// What `name` is. A unit that does not exist is one with [`LoadState::NotFound`].
    ///
    /// [`LoadState::NotFound`]: crate::LoadState::NotFound
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn unit(&self, name: &str) -> Result<Unit, Error> {
        self.ask_unit(name, async |unit: UnitProxy<'_>| {
            Ok(Unit {
                name: unit.id().await?,
                load: unit.load_state().await?.into(),
                active: unit.active_state().await?.into(),
                sub: unit.sub_state().await?,
                job: Some(unit.job().await?.0).filter(|id| *id != 0),
                fragment: unit.fragment_path().await?,
                asserted: unit.assert_result().await?,
            })
        })
    }

    /// Which units a stop of `name` takes along, and which would start it again.
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn dependents(&self, name: &str) -> Result<Dependents, Error> {
        self.ask_unit(name, async |unit: UnitProxy<'_>| {
            let mut required_by = unit.required_by().await?;
            required_by.extend(unit.requisite_of().await?);
            Ok(Dependents {
                required_by,
                bound_by: unit.bound_by().await?,
                consists_of: unit.consists_of().await?,
                triggered_by: unit.triggered_by().await?,
            })
        })
    }

    /// What the service `name` does.
    ///
    /// # Errors
    /// It is not a service, or the manager does not answer.
    pub fn service(&self, name: &str) -> Result<Service, Error> {
        self.ask_unit(name, async |service: ServiceProxy<'_>| {
            Ok(Service {
                result: service.result().await?,
                status_text: service.status_text().await?,
                main_pid: service.main_pid().await?,
                started_usec: service.exec_main_start_timestamp_monotonic().await?,
                exited_usec: service.exec_main_exit_timestamp_monotonic().await?,
                code: service.exec_main_code().await?,
                status: service.exec_main_status().await?,
            })
        })
    }

    /// The loaded units whose names match one of `patterns` (`nvidia-*.service`).
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn units(&self, patterns: &[&str]) -> Result<Vec<Listed>, Error> {
        let rows = self
            .ask("list units", None, async |manager| manager.list_units_by_patterns(&[], patterns).await)?;
        Ok(rows
            .into_iter()
            .map(|row| Listed { name: row.0, load: row.2.into(), active: row.3.into(), sub: row.4 })
            .collect())
    }

    /// The jobs in the queue.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn jobs(&self) -> Result<Vec<Job>, Error> {
        let rows = self.ask("list jobs", None, async |manager| manager.list_jobs().await)?;
        Ok(rows.into_iter().map(|row| Job { path: row.4.to_string(), unit: row.1, kind: row.2 }).collect())
    }

    /// Asks for the signals of this manager; without it a bus daemon would bring none.
    pub(crate) fn subscribe(&self) -> Result<(), Error> {
        self.ask("subscribe to its signals", None, async |manager| manager.subscribe().await)
    }

    /// The object path of unit `name`.
    pub(crate) fn path(&self, name: &str) -> Result<String, Error> {
        self.ask(&format!("look up {name}"), Some(name), async |manager| manager.load_unit(name).await)
            .map(|path| path.to_string())
    }

    fn ask<T>(
        &self,
        what: &str,
        unit: Option<&str>,
        question: impl AsyncFnOnce(ManagerProxy<'_>) -> zbus::Result<T>,
    ) -> Result<T, Error> {
        block_on(async {
            let manager =
                ManagerProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?;
            question(manager).await
        })
        .map_err(|error| Error::of_call(what, unit, error))
    }

    fn ask_unit<P, T>(&self, name: &str, question: impl AsyncFnOnce(P) -> zbus::Result<T>) -> Result<T, Error>
    where
        P: From<zbus::Proxy<'static>> + zbus::proxy::Defaults,
    {
        let path = self.path(name)?;
        block_on(async {
            // Not cached: what is read now is what holds now.
            let proxy = zbus::proxy::Builder::<P>::new(&self.connection)
                .path(path)
                .cache_properties(CacheProperties::No)
                .build()
                .await?;
            question(proxy).await
        })
        .map_err(|error| Error::of_call(format!("read the state of {name}"), Some(name), error))
    }
}

// SPDX-License-Identifier: MIT
//! A manager, asked one thing at a time.

use std::time::Duration;

use zbus::{Connection, OwnedObjectPath, OwnedVariant};

use crate::connect::{Scope, connect, wait};
use crate::proxies::{ManagerProxy, PropertiesProxy};
use crate::{Dependents, Error, Job, Listed, Service, Standing, SystemState, Unit};

const MANAGER: &str = "/org/freedesktop/systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

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
        self.look(MANAGER, "ask for the system's state", None, async |of| {
            of.word("org.freedesktop.systemd1.Manager", "SystemState").await.map(Into::into)
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

    /// Queues a stop of `unit`, if it runs, and a start after it, and does not wait for them.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn restart(&self, unit: &str, mode: Mode) -> Result<Job, Error> {
        let path = self.ask(&format!("restart {unit}"), Some(unit), async |manager| {
            manager.restart_unit(unit, mode.word()).await
        })?;
        Ok(Job { path: path.to_string(), unit: unit.into(), kind: "restart".into() })
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

    /// Has `unit` no longer count as failed.
    ///
    /// # Errors
    /// There is no such unit, or the manager refuses.
    pub fn reset_failed(&self, unit: &str) -> Result<(), Error> {
        self.ask(&format!("reset the failed state of {unit}"), Some(unit), async |manager| {
            manager.reset_failed_unit(unit).await
        })
    }

    /// What `name` is. A unit that does not exist is one with [`LoadState::NotFound`].
    ///
    /// [`LoadState::NotFound`]: crate::LoadState::NotFound
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn unit(&self, name: &str) -> Result<Unit, Error> {
        self.look_at(name, async |of| {
            let job: (u32, OwnedObjectPath) = of.get(UNIT, "Job").await?;
            Ok(Unit {
                name: of.word(UNIT, "Id").await?,
                load: of.word(UNIT, "LoadState").await?.into(),
                active: of.word(UNIT, "ActiveState").await?.into(),
                sub: of.word(UNIT, "SubState").await?,
                job: Some(job.0).filter(|id| *id != 0),
                fragment: of.word(UNIT, "FragmentPath").await?,
                asserted: of.get(UNIT, "AssertResult").await?,
            })
        })
    }

    /// What `name` came to, and what wants it.
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn standing(&self, name: &str) -> Result<Standing, Error> {
        let unit = self.unit(name)?;
        self.look_at(name, async |of| {
            let mut wanted_by = Vec::new();
            for property in ["WantedBy", "RequiredBy", "BoundBy", "TriggeredBy"] {
                wanted_by.extend(of.get::<Vec<String>>(UNIT, property).await?);
            }
            // From systemd 249 on.
            wanted_by.extend(of.get::<Vec<String>>(UNIT, "UpheldBy").await.unwrap_or_default());
            let mut requires: Vec<String> = of.get(UNIT, "Requires").await?;
            requires.extend(of.get::<Vec<String>>(UNIT, "BindsTo").await?);
            let conditions: Vec<(String, bool, bool, String, i32)> = of.get(UNIT, "Conditions").await?;
            let is_unmet = |condition: &(String, bool, bool, String, i32)| condition.4 < 0;
            let (result, restarts) = match unit.name.ends_with(".service") {
                true => (of.word(SERVICE, "Result").await?, of.get(SERVICE, "NRestarts").await?),
                false => (String::new(), 0),
            };
            Ok(Standing {
                result,
                restarts,
                wanted_by,
                requires,
                left_usec: of.get(UNIT, "ActiveExitTimestamp").await?,
                unmet: conditions.into_iter().filter(is_unmet).map(|condition| condition.3).collect(),
                changed_usec: of.get(UNIT, "StateChangeTimestamp").await?,
                up_usec: of.get(UNIT, "ActiveEnterTimestampMonotonic").await?,
                unit,
            })
        })
    }

    /// Which units a stop of `name` takes along, and which would start it again.
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn dependents(&self, name: &str) -> Result<Dependents, Error> {
        self.look_at(name, async |of| {
            let mut required_by: Vec<String> = of.get(UNIT, "RequiredBy").await?;
            required_by.extend(of.get::<Vec<String>>(UNIT, "RequisiteOf").await?);
            Ok(Dependents {
                required_by,
                bound_by: of.get(UNIT, "BoundBy").await?,
                consists_of: of.get(UNIT, "ConsistsOf").await?,
                triggered_by: of.get(UNIT, "TriggeredBy").await?,
            })
        })
    }

    /// What the service `name` does.
    ///
    /// # Errors
    /// It is not a service, or the manager does not answer.
    pub fn service(&self, name: &str) -> Result<Service, Error> {
        self.look_at(name, async |of| {
            Ok(Service {
                result: of.word(SERVICE, "Result").await?,
                status_text: of.word(SERVICE, "StatusText").await?,
                main_pid: of.get(SERVICE, "MainPID").await?,
                started_usec: of.get(SERVICE, "ExecMainStartTimestampMonotonic").await?,
                exited_usec: of.get(SERVICE, "ExecMainExitTimestampMonotonic").await?,
                code: of.get(SERVICE, "ExecMainCode").await?,
                status: of.get(SERVICE, "ExecMainStatus").await?,
            })
        })
    }

    /// How long the manager lets the unit `name` stop before it kills it (`TimeoutStopSec=`); none where it
    /// waits for ever. Kinds of units that stop at once have no such time.
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn stop_timeout(&self, name: &str) -> Result<Option<Duration>, Error> {
        let (kind, property) = match name.rsplit('.').next() {
            Some("service") => ("Service", "TimeoutStopUSec"),
            Some("scope") => ("Scope", "TimeoutStopUSec"),
            Some("socket") => ("Socket", "TimeoutUSec"),
            Some("mount") => ("Mount", "TimeoutUSec"),
            Some("swap") => ("Swap", "TimeoutUSec"),
            _ => return Ok(Some(Duration::ZERO)),
        };
        let interface = format!("org.freedesktop.systemd1.{kind}");
        let usec: u64 = self.look_at(name, async |of| of.get(&interface, property).await)?;
        Ok((usec != u64::MAX).then(|| Duration::from_micros(usec)))
    }

    /// When the unit `name` was up last and went down, and when it came up last: microseconds since 1970, zero
    /// for never.
    ///
    /// # Errors
    /// The name is none of a unit, or the manager does not answer.
    pub fn away(&self, name: &str) -> Result<(u64, u64), Error> {
        self.look_at(name, async |of| {
            Ok((of.get(UNIT, "ActiveExitTimestamp").await?, of.get(UNIT, "ActiveEnterTimestamp").await?))
        })
    }

    /// The descriptors that the manager keeps for the service `name` (`FileDescriptorStoreMax=`):
    /// the device number of each, major and minor, (0, 0) for what is no device; none before
    /// systemd 254, which tells only how many there are.
    ///
    /// # Errors
    /// It is not a service, or the manager does not answer.
    pub fn stored(&self, name: &str) -> Result<Vec<Option<(u32, u32)>>, Error> {
        let count: u32 = self.look_at(name, async |of| of.get(SERVICE, "NFileDescriptorStore").await)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let rows = self.ask(&format!("look at what is stored for {name}"), Some(name), async |manager| {
            manager.dump_unit_file_descriptor_store(name).await
        });
        match rows {
            Ok(rows) => Ok(rows.into_iter().map(|row| Some((row.5, row.6))).collect()),
            Err(Error::Call { source: zbus::Error::FDO(error), .. })
                if matches!(*error, zbus::fdo::Error::UnknownMethod(_)) =>
            {
                Ok(vec![None; count as usize])
            }
            Err(error) => Err(error),
        }
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
        wait(async { question(ManagerProxy::new(&self.connection).await?).await })
            .map_err(|error| Error::of_call(what, unit, error))
    }

    fn look_at<T>(
        &self,
        name: &str,
        question: impl AsyncFnOnce(Of<'_>) -> zbus::Result<T>,
    ) -> Result<T, Error> {
        self.look(&self.path(name)?, &format!("read the state of {name}"), Some(name), question)
    }

    fn look<T>(
        &self,
        path: &str,
        what: &str,
        unit: Option<&str>,
        question: impl AsyncFnOnce(Of<'_>) -> zbus::Result<T>,
    ) -> Result<T, Error> {
        wait(async {
            question(Of(PropertiesProxy::builder(&self.connection).path(path).build().await?)).await
        })
        .map_err(|error| Error::of_call(what, unit, error))
    }
}

/// The object path of a unit by that name, as systemd's `sd_bus_path_encode(3)` makes it. Not asked for,
/// as [`Manager::path`] does: that loads the unit.
pub(crate) fn path_of(name: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// The properties of an object.
struct Of<'a>(PropertiesProxy<'a>);

impl Of<'_> {
    async fn get<T>(&self, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: Into<zbus::Error>,
    {
        self.raw(interface, name).await?.try_into().map_err(Into::into)
    }

    async fn raw(&self, interface: &str, name: &str) -> zbus::Result<OwnedVariant> {
        self.0.get(interface, name).await
    }

    async fn word(&self, interface: &str, name: &str) -> zbus::Result<String> {
        self.get(interface, name).await
    }
}

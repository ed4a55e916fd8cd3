// SPDX-License-Identifier: MIT
//! logind, as far as a session has to let go of its devices, and who blocks a shutdown.

use crate::Error;
use crate::connect::{Scope, connect, wait};
use crate::proxies::{InhibitorRow, LoginProxy, SessionProxy};

/// One who blocks a shutdown. Its words are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// What it calls itself.
    pub who: String,
    /// Why.
    pub why: String,
    /// The user it runs as.
    pub uid: u32,
    /// Its process.
    pub pid: u32,
}

/// Has logind close the devices that it keeps open for a session. logind informs what had asked for them, and no
/// process is ended.
///
/// Root may take a session over from whatever controls it; logind closes what that had, and with the return of
/// the session what is kept for it is gone.
///
/// # Errors
/// logind does not answer, has no such session, or refuses.
pub fn release_session(id: &str) -> Result<(), Error> {
    let connection = connect(&Scope::Bus)?;
    let what = format!("release the devices of session {id}");
    let released = wait(async {
        let path = LoginProxy::new(&connection).await?.get_session(id).await?;
        let session = SessionProxy::builder(&connection).path(path).build().await?;
        session.take_control(true).await?;
        session.release_control().await
    });
    released.map_err(|error| Error::of_call(what, None, error))
}

/// Those who block a shutdown; none where there is no logind.
///
/// # Errors
/// logind is there and does not answer.
pub fn blockers() -> Result<Vec<Blocker>, Error> {
    let scope = Scope::Bus;
    // Without a bus there is no logind that anything could have asked.
    if !scope.is_there() {
        return Ok(Vec::new());
    }
    let connection = connect(&scope)?;
    match wait(async { LoginProxy::new(&connection).await?.list_inhibitors().await }) {
        Ok(rows) => Ok(of_shutdown(rows)),
        Err(error) if is_not_there(&error) => Ok(Vec::new()),
        Err(error) => Err(Error::of_call("ask logind who blocks a shutdown", None, error)),
    }
}

/// Whether nothing on the bus is logind, and nothing could be started as it.
fn is_not_there(error: &zbus::Error) -> bool {
    const NOT_THERE: [&str; 3] = [
        "org.freedesktop.DBus.Error.ServiceUnknown",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        // systemd-logind.service is masked.
        "org.freedesktop.systemd1.UnitMasked",
    ];
    match error {
        zbus::Error::MethodError(name, _, _) => NOT_THERE.contains(&name.as_str()),
        zbus::Error::FDO(error) => {
            matches!(**error, zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_))
        }
        _ => false,
    }
}

/// Those that only delay a shutdown are done within seconds.
fn of_shutdown(rows: Vec<InhibitorRow>) -> Vec<Blocker> {
    let blocks = |(what, _, _, mode, ..): &InhibitorRow| {
        mode == "block" && what.split(':').any(|what| what == "shutdown")
    };
    let blocker = |(_, who, why, _, uid, pid): InhibitorRow| Blocker { who, why, uid, pid };
    rows.into_iter().filter(blocks).map(blocker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_block_of_a_shutdown_counts() {
        let row = |what: &str, mode: &str| {
            (what.to_owned(), format!("{what} {mode}"), "why".to_owned(), mode.to_owned(), 0, 7)
        };
        let rows = vec![
            row("shutdown", "block"),
            row("sleep:shutdown:idle", "block"),
            row("shutdown", "delay"),
            row("sleep", "block"),
            row("shutdown", "block-weak"),
        ];
        let who: Vec<String> = of_shutdown(rows).into_iter().map(|blocker| blocker.who).collect();
        assert_eq!(who, ["shutdown block", "sleep:shutdown:idle block"]);
    }
}

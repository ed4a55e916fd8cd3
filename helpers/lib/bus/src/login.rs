// SPDX-License-Identifier: MIT
//! logind, as far as a session has to let go of its devices.

use crate::Error;
use crate::connect::{Scope, connect, wait};
use crate::proxies::{LoginProxy, SessionProxy};

/// Has logind close the devices that it keeps open for a session. What asked for them is told so, and no
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

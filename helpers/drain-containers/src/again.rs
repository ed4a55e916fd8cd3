// SPDX-License-Identifier: MIT
//! Containers for which a start is not enough.

use std::time::Duration;

use engines::{Client, Definition, Ended, Error, Phase};
use ledger::{Container, Object};
use step::Context;

/// How long an engine may take to delete a container that it stopped.
const DELETED: Duration = Duration::from_secs(60);

/// Brings up a container that was taken, by whatever it takes.
pub(crate) async fn bring_up(context: &Context, client: &Client, taken: &Container) -> Result<Ended, Error> {
    match &taken.definition {
        Some(definition) => {
            let definition = serde_json::from_value(definition.clone())
                .map_err(|error| Error::Odd(format!("its definition in the ledger: {error}")))?;
            from_definition(context, client, taken, &definition).await
        }
        None => by_id(context, client, taken, &taken.id).await,
    }
}

/// Starts a container, also where the engine died over an earlier start and does not know what runs.
async fn by_id(context: &Context, client: &Client, taken: &Container, id: &str) -> Result<Ended, Error> {
    match engines::bring_up(client, id, taken.paused).await {
        Err(Error::Refused { .. }) if engines::end_cut_off(&context.root, client, id).await? => {
            let name = Object::Container(taken.clone());
            context
                .info(format!("{name} ran without its engine knowing: it is terminated and started again"));
            engines::bring_up(client, id, taken.paused).await
        }
        result => result,
    }
}

/// One that its engine deletes when it stops: recreated, unless it never stopped.
async fn from_definition(
    context: &Context,
    client: &Client,
    taken: &Container,
    definition: &Definition,
) -> Result<Ended, Error> {
    match client.inspect(&taken.id).await {
        Ok(container) if matches!(container.phase(), Phase::Down | Phase::Removing) => {
            client.await_gone(&taken.id, DELETED).await?;
        }
        Ok(_) => return by_id(context, client, taken, &taken.id).await,
        Err(Error::Gone) => {}
        Err(error) => return Err(error),
    }
    let id = match client.inspect(&taken.name).await {
        // Of a try before this one, or its user was quicker.
        Ok(container) => container.id().to_owned(),
        Err(Error::Gone) => client.create(&taken.name, definition).await?,
        Err(error) => return Err(error),
    };
    match by_id(context, client, taken, &id).await? {
        Ended::Gone => {
            Err(Error::Odd("it was recreated, exited at once, and was deleted again (--rm)".to_owned()))
        }
        ended => Ok(ended),
    }
}

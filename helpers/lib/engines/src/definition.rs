// SPDX-License-Identifier: MIT
//! A container recreated from what its engine said of it.
//!
//! Only for engines that take back what they say: Docker's `POST /containers/create` has the shape
//! of `GET /containers/ID/json`, field by field, also those that this program does not know.
//! Podman answers in that shape but loses things when they are read back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Error;

/// How much of its id a container is given as host name and alias.
const SHORT_ID: usize = 12;

/// All that it takes to make a container of the same name, which has another id.
///
/// Holds its environment, and secrets with it: to be kept where only root reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// The image's id: its name may mean another one by then.
    pub(crate) image: String,
    /// What `POST /containers/create` takes.
    pub(crate) body: Map<String, Value>,
    /// The networks beside the first: one that is being created can join but one (API before 1.44).
    pub(crate) networks: BTreeMap<String, Value>,
}

impl Definition {
    /// The definition of the container that an engine `inspected`.
    ///
    /// # Errors
    /// The answer lacks what every engine says.
    pub fn of(inspected: &Value) -> Result<Self, Error> {
        let field = |name: &str| {
            inspected.get(name).ok_or_else(|| Error::Odd(format!("no field {name} in its description")))
        };
        let text = |name: &str| Ok(field(name)?.as_str().unwrap_or_default().to_owned());
        let (id, image): (String, String) = (text("Id")?, text("Image")?);
        let short = id.get(..SHORT_ID).unwrap_or(&id);
        let host = field("HostConfig")?.clone();
        let mut body = field("Config")?.as_object().cloned().unwrap_or_default();
        let mode = host.get("NetworkMode").and_then(Value::as_str).unwrap_or("default").to_owned();
        let shares = mode.starts_with("container:");
        // The engine made it up, from the id.
        if shares || body.get("Hostname").and_then(Value::as_str) == Some(short) {
            body.remove("Hostname");
        }
        if shares {
            // The other's, and refused where the network is another's.
            for key in ["Domainname", "ExposedPorts", "MacAddress"] {
                body.remove(key);
            }
        }
        let mut networks: BTreeMap<String, Value> = field("NetworkSettings")?
            .get("Networks")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, endpoint)| (name.clone(), chosen(endpoint, short)))
            .collect();
        let first = if mode == "default" { "bridge" } else { &mode };
        if let Some(endpoint) = networks.remove(first) {
            body.insert("NetworkingConfig".into(), json!({"EndpointsConfig": {first: endpoint}}));
        }
        body.insert("HostConfig".into(), host);
        Ok(Self { image, body, networks })
    }
}

/// Of a network's settings, those that somebody chose: addresses are assigned again.
fn chosen(endpoint: &Value, short_id: &str) -> Value {
    let mut chosen = Map::new();
    for key in ["IPAMConfig", "Links", "DriverOpts", "GwPriority"] {
        if let Some(value) = endpoint.get(key).filter(|value| !value.is_null()) {
            chosen.insert(key.into(), value.clone());
        }
    }
    let aliases: Vec<&str> = endpoint
        .get("Aliases")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|alias| *alias != short_id)
        .collect();
    // The default networks refuse the field, also when it is empty.
    if !aliases.is_empty() {
        chosen.insert("Aliases".into(), json!(aliases));
    }
    Value::Object(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(hostname: &str, mode: &str, networks: &Value) -> Value {
        json!({
            "Id": "0123456789abcdef", "Name": "/job", "Image": "sha256:feed",
            "Config": {"Hostname": hostname, "Image": "gpu-job", "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}},
                "Unknown": 1},
            "HostConfig": {"NetworkMode": mode, "AutoRemove": true, "Binds": ["models:/models"]},
            "NetworkSettings": {"Networks": networks, "Bridge": ""},
        })
    }

    #[test]
    fn everything_is_kept_but_what_comes_from_the_id() {
        let networks = json!({
            "back": {"IPAMConfig": {"IPv4Address": "10.0.0.7"}, "IPAddress": "10.0.0.7", "MacAddress": "02:42",
                "Aliases": ["trainer", "0123456789ab"]},
            "front": {"IPAMConfig": null, "IPAddress": "10.1.0.3", "Aliases": ["0123456789ab"]},
        });
        let made = Definition::of(&inspected("0123456789ab", "back", &networks)).expect("is whole");
        assert_eq!(made.image, "sha256:feed");
        assert_eq!(
            Value::Object(made.body),
            json!({
                "Image": "gpu-job", "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "Unknown": 1,
                "HostConfig": {"NetworkMode": "back", "AutoRemove": true, "Binds": ["models:/models"]},
                "NetworkingConfig": {"EndpointsConfig": {"back": {
                    "IPAMConfig": {"IPv4Address": "10.0.0.7"}, "Aliases": ["trainer"]}}},
            })
        );
        assert_eq!(made.networks, BTreeMap::from([("front".to_owned(), json!({}))]));
    }

    #[test]
    fn a_host_name_of_its_own_stays_and_anothers_network_is_the_others() {
        let bridge = json!({"bridge": {"IPAddress": "172.17.0.2", "Aliases": null}});
        let own = Definition::of(&inspected("model", "default", &bridge)).expect("is whole");
        assert_eq!(own.body["Hostname"], "model");
        assert_eq!(own.body["NetworkingConfig"], json!({"EndpointsConfig": {"bridge": {}}}));
        let shares = Definition::of(&inspected("beef", "container:beef", &json!({}))).expect("is whole");
        for key in ["Hostname", "ExposedPorts", "NetworkingConfig"] {
            assert!(!shares.body.contains_key(key), "{key}");
        }
        assert!(matches!(Definition::of(&json!({"Id": "0"})), Err(Error::Odd(_))));
    }
}

// SPDX-License-Identifier: MIT
//! What a user's manager can name as going along. See the crate `fuzz`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use as_user::Dependents;
use holders::Guarded;
use step::Guard;

use crate::closure::{Role, UnitInfo, Units, closure};

struct Manager(BTreeMap<String, Dependents>);

impl Units for Manager {
    fn unit(&self, name: &str) -> Result<UnitInfo> {
        Ok(UnitInfo { name: name.to_owned(), up: true, fragment: String::new() })
    }

    fn dependents(&self, name: &str) -> Result<Dependents> {
        Ok(self.0.get(name).cloned().unwrap_or_default())
    }
}

#[test]
fn dependents() {
    fuzz::run(env!("CARGO_MANIFEST_DIR"), "dependents", |text| {
        let Ok(units) = serde_json::from_slice(text) else { return };
        let protected = [Guard { user: Some(7), name: "sshd.service".into() }];
        let guarded = Guarded { user: Some(7), units: &protected };
        let holders = [("a.service".to_owned(), Role::Holder)];
        if let Ok(plan) = closure(&Manager(units), &holders, guarded) {
            let names: BTreeSet<&str> = plan.iter().map(|planned| planned.name.as_str()).collect();
            assert!(names.len() == plan.len() && plan.len() <= 512, "each once, and not without end");
            assert!(names.contains("a.service") && !names.contains("sshd.service"));
        }
    });
}

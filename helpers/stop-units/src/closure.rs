//! What has to stop so that a unit stops and stays so: the units that a stop takes along, those
//! that would start it again, and so on.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use bus::{Dependents, Unit};
use holders::Guarded;

/// The questions to a manager.
pub(crate) trait Units {
    fn unit(&self, name: &str) -> Result<Unit, bus::Error>;
    fn dependents(&self, name: &str) -> Result<Dependents, bus::Error>;
}

impl Units for bus::Manager {
    fn unit(&self, name: &str) -> Result<Unit, bus::Error> {
        bus::Manager::unit(self, name)
    }

    fn dependents(&self, name: &str) -> Result<Dependents, bus::Error> {
        bus::Manager::dependents(self, name)
    }
}

/// Why a unit is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It owns a holder.
    Holder,
    /// PID 1 keeps a descriptor of a device for it (`FileDescriptorStoreMax=`).
    Keeper,
    /// It owns a holder and serves the others: stopped after them, and up again before them.
    Service,
    /// It would start another.
    Trigger,
    /// It goes along with another.
    Dependent,
}

/// The word in the ledger for [`Role::Service`]: the way back has to know.
pub(crate) const SERVICE: &str = "service";

impl Role {
    /// Whether it is stopped for its own sake.
    fn is_own(self) -> bool {
        matches!(self, Role::Holder | Role::Keeper | Role::Service)
    }

    /// The word in the ledger.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Role::Holder => "holder",
            Role::Keeper => "keeper",
            Role::Service => SERVICE,
            Role::Trigger => "trigger",
            Role::Dependent => "dependent",
        }
    }
}

/// A unit to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The unit's file.
    pub(crate) fragment: String,
    /// False for one that owns a holder and does not run: there is nothing to stop, and what is
    /// left of it is a plain process.
    pub(crate) up: bool,
}

/// Everything that has to stop so that `holders` do, in the order of the stops: the reverse is the
/// order in which to start again. Only units that run are in it.
///
/// # Errors
/// Something that must not be stopped would be; the way to it is named.
pub(crate) fn closure(
    units: &impl Units,
    holders: &[(String, Role)],
    protected: Guarded<'_>,
) -> Result<Vec<Planned>> {
    let mut closure = Closure { units, protected, seen: BTreeSet::new(), planned: Vec::new() };
    // Who serves others goes after them.
    for own in [Role::Holder, Role::Keeper, Role::Service] {
        for (name, role) in holders.iter().filter(|(_, role)| *role == own) {
            closure.visit(name, *role, &mut Vec::new())?;
        }
    }
    // A unit may have been met as another's dependent first.
    for planned in &mut closure.planned {
        if let Some((_, role)) = holders.iter().find(|(name, _)| *name == planned.name) {
            planned.role = *role;
        }
    }
    Ok(closure.planned)
}

struct Closure<'a, U> {
    units: &'a U,
    protected: Guarded<'a>,
    seen: BTreeSet<String>,
    planned: Vec<Planned>,
}

impl<U: Units> Closure<'_, U> {
    fn visit(&mut self, name: &str, role: Role, way: &mut Vec<String>) -> Result<()> {
        let unit = self.units.unit(name).with_context(|| format!("ask for {name}"))?;
        // By its principal name: an alias is not another unit.
        if !self.seen.insert(unit.name.clone()) {
            return Ok(());
        }
        let up = unit.active.is_up();
        if up || role.is_own() {
            self.may_stop(&unit.name, way)?;
        }
        if up {
            way.push(unit.name.clone());
            let dependents = self.units.dependents(&unit.name)?;
            for trigger in &dependents.triggered_by {
                self.visit(trigger, Role::Trigger, way)?;
            }
            for dependent in dependents.stopped_along() {
                self.visit(dependent, Role::Dependent, way)?;
            }
            way.pop();
        }
        if up || role.is_own() {
            self.planned.push(Planned { name: unit.name, role, fragment: unit.fragment, up });
        }
        Ok(())
    }

    fn may_stop(&self, name: &str, way: &[String]) -> Result<()> {
        let Some(why) = self.protected.why(name) else { return Ok(()) };
        match way.first() {
            Some(first) => bail!("{first} cannot be stopped: that would stop {name}, {why}"),
            None => bail!("{name} holds the GPU, {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bus::{ActiveState, LoadState};
    use std::collections::BTreeMap;
    use step::Guard;

    /// Units by name: whether they run, and what hangs on them.
    #[derive(Default)]
    struct Fake(BTreeMap<&'static str, (bool, Dependents)>);

    impl Fake {
        fn with(mut self, name: &'static str, up: bool, along: &[&str], triggers: &[&str]) -> Self {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let dependents =
                Dependents { bound_by: names(along), triggered_by: names(triggers), ..Dependents::default() };
            self.0.insert(name, (up, dependents));
            self
        }
    }

    impl Units for Fake {
        fn unit(&self, name: &str) -> Result<Unit, bus::Error> {
            let name = if name == "alias.service" { "a.service" } else { name };
            let up = self.0.get(name).is_some_and(|(up, _)| *up);
            Ok(Unit {
                name: name.to_owned(),
                load: LoadState::Loaded,
                active: if up { ActiveState::Active } else { ActiveState::Inactive },
                sub: String::new(),
                job: None,
                fragment: String::new(),
                asserted: true,
            })
        }

        fn dependents(&self, name: &str) -> Result<Dependents, bus::Error> {
            Ok(self.0.get(name).map(|(_, dependents)| dependents.clone()).unwrap_or_default())
        }
    }

    fn guard(user: Option<u32>, name: &str) -> Guard {
        Guard { user, name: name.into() }
    }

    fn guarded(user: Option<u32>, units: &[Guard]) -> Guarded<'_> {
        Guarded { user, units }
    }

    fn order(fake: &Fake, holders: &[&str]) -> Vec<(String, &'static str)> {
        let holders: Vec<(String, Role)> = holders
            .iter()
            .map(|name| {
                let role = if name.starts_with("fabric") { Role::Service } else { Role::Holder };
                ((*name).to_owned(), role)
            })
            .collect();
        closure(fake, &holders, guarded(None, &[guard(None, "precious.service")]))
            .expect("may be stopped")
            .into_iter()
            .map(|planned| (planned.name, planned.role.word()))
            .collect()
    }

    fn named(list: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
        list.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect()
    }

    #[test]
    fn what_goes_along_and_what_would_start_it_come_first() {
        let fake = Fake::default()
            .with("a.service", true, &["b.service", "off.service"], &["a.socket", "a.path"])
            .with("b.service", true, &["c.service"], &[])
            .with("c.service", true, &[], &["c.timer"])
            .with("c.timer", true, &[], &[])
            .with("a.socket", true, &[], &[])
            .with("a.path", false, &[], &[])
            .with("off.service", false, &["x.service"], &[])
            .with("x.service", true, &[], &[]);
        assert_eq!(
            order(&fake, &["a.service"]),
            named(&[
                ("a.socket", "trigger"),
                ("c.timer", "trigger"),
                ("c.service", "dependent"),
                ("b.service", "dependent"),
                ("a.service", "holder"),
            ])
        );
    }

    #[test]
    fn each_once_also_in_a_circle_and_by_another_name() {
        let fake = Fake::default()
            .with("a.service", true, &["b.service"], &["a.socket"])
            .with("b.service", true, &["a.service"], &[])
            .with("a.socket", true, &["a.service"], &[]);
        assert_eq!(
            order(&fake, &["alias.service", "b.service", "a.service"]),
            named(&[("a.socket", "trigger"), ("b.service", "holder"), ("a.service", "holder")])
        );
    }

    #[test]
    fn who_serves_others_stops_last() {
        let fake = Fake::default().with("fabric.service", true, &[], &[]).with("job.service", true, &[], &[]);
        assert_eq!(
            order(&fake, &["fabric.service", "job.service"]),
            named(&[("job.service", "holder"), ("fabric.service", "service")])
        );
    }

    #[test]
    fn a_holder_that_does_not_run_is_noted_as_such() {
        let fake = Fake::default().with("dead.service", false, &["x.service"], &[]);
        let planned = closure(&fake, &[("dead.service".to_owned(), Role::Holder)], guarded(None, &[]))
            .expect("may be stopped");
        assert_eq!(planned.len(), 1);
        assert!(!planned[0].up);
    }

    #[test]
    fn what_must_not_stop_is_named_with_the_way_to_it() {
        let cases =
            [("precious.service", "protects"), ("docker.service", "never"), ("cron.service", "never")];
        for (victim, why) in cases {
            let fake = Fake::default()
                .with("a.service", true, &["b.service"], &[])
                .with("b.service", true, &[victim], &[])
                .with(victim, true, &[], &[]);
            let holders = [("a.service".to_owned(), Role::Holder)];
            let protected = [guard(None, "precious.service")];
            let error = closure(&fake, &holders, guarded(None, &protected)).expect_err("must not");
            let error = error.to_string();
            assert!(
                error.starts_with("a.service") && error.contains(victim) && error.contains(why),
                "{error}"
            );
            // A user's own units are called as that user likes.
            assert_eq!(closure(&fake, &holders, guarded(Some(7), &protected)).expect("may").len(), 3);
            let protected = [guard(Some(7), victim)];
            assert!(closure(&fake, &holders, guarded(Some(7), &protected)).is_err());
        }
    }
}

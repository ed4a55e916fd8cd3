// SPDX-License-Identifier: MIT
//! What has to stop so that a unit stops and stays so: the units that a stop takes along, those
//! that would start it again, and so on.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use as_user::Dependents;
use holders::Guarded;

/// The most units of a user that are stopped: what a user's manager says has no end of its own.
const MOST: usize = 512;

/// A unit as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitInfo {
    /// Its principal name.
    pub(crate) name: String,
    /// Whether it runs, is about to, or has not ended yet.
    pub(crate) up: bool,
    /// Its file; empty for a user's unit, whose file is the user's.
    pub(crate) fragment: String,
}

/// The questions to a manager.
pub(crate) trait Units {
    fn unit(&self, name: &str) -> Result<UnitInfo>;
    fn dependents(&self, name: &str) -> Result<Dependents>;
}

impl Units for bus::Manager {
    fn unit(&self, name: &str) -> Result<UnitInfo> {
        let unit = bus::Manager::unit(self, name)?;
        Ok(UnitInfo { name: unit.name, up: unit.active.is_up(), fragment: unit.fragment })
    }

    fn dependents(&self, name: &str) -> Result<Dependents> {
        let found = bus::Manager::dependents(self, name)?;
        let stopped_along = found.stopped_along().into_iter().map(str::to_owned).collect();
        Ok(Dependents { triggered_by: found.triggered_by, stopped_along })
    }
}

/// Why a unit is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It owns a holder.
    Holder,
    /// PID 1 keeps a descriptor of a device for it (`FileDescriptorStoreMax=`).
    FdStore,
    /// It owns a holder and serves the others: stopped after them, and up again before them.
    Service,
    /// It would start another.
    Trigger,
    /// It goes along with another.
    Dependent,
}

/// The word in the ledger for [`Role::Service`]: the undo has to know.
pub(crate) const SERVICE: &str = "service";

impl Role {
    /// Whether it is stopped for its own sake.
    fn is_own(self) -> bool {
        matches!(self, Role::Holder | Role::FdStore | Role::Service)
    }

    /// The word in the ledger, which stays as it was in its first format.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Role::Holder => "holder",
            Role::FdStore => "keeper",
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
    for own in [Role::Holder, Role::FdStore, Role::Service] {
        for (name, role) in holders.iter().filter(|(_, role)| *role == own) {
            closure.visit(name, *role)?;
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

/// A unit, and what of that which comes before it is still to be looked at, the next one last.
struct Open {
    planned: Planned,
    before: Vec<(String, Role)>,
}

impl<U: Units> Closure<'_, U> {
    /// With a stack of its own: a chain may be longer than the thread's is deep.
    fn visit(&mut self, name: &str, role: Role) -> Result<()> {
        let mut open = Vec::new();
        open.extend(self.look(name, role, None)?);
        while let Some(last) = open.last_mut() {
            match last.before.pop() {
                Some((name, role)) => {
                    let first = open[0].planned.name.clone();
                    open.extend(self.look(&name, role, Some(&first))?);
                }
                None => self.planned.extend(open.pop().map(|last| last.planned)),
            }
        }
        Ok(())
    }

    /// A unit that has to stop; none for one that was looked at before, or does not run. `first` is the
    /// unit that it would stop for.
    fn look(&mut self, name: &str, role: Role, first: Option<&str>) -> Result<Option<Open>> {
        let unit = self.units.unit(name).with_context(|| format!("ask for {name}"))?;
        // By its principal name: an alias is not another unit.
        if !self.seen.insert(unit.name.clone()) || !(unit.up || role.is_own()) {
            return Ok(None);
        }
        if self.protected.user.is_some() && self.seen.len() > MOST {
            bail!("its manager names more than {MOST} units that would stop");
        }
        self.may_stop(&unit.name, first)?;
        let mut before = Vec::new();
        if unit.up {
            let found = self.units.dependents(&unit.name)?;
            before.extend(found.triggered_by.into_iter().map(|name| (name, Role::Trigger)));
            before.extend(found.stopped_along.into_iter().map(|name| (name, Role::Dependent)));
            before.reverse();
        }
        let planned = Planned { name: unit.name, role, fragment: unit.fragment, up: unit.up };
        Ok(Some(Open { planned, before }))
    }

    fn may_stop(&self, name: &str, first: Option<&str>) -> Result<()> {
        let Some(why) = self.protected.why(name) else { return Ok(()) };
        match first {
            Some(first) => bail!("{first} cannot be stopped: that would stop {name}, {why}"),
            None => bail!("{name} holds the GPU, {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use step::Guard;

    /// Units by name: whether they run, and what hangs on them.
    #[derive(Default)]
    struct Fake(BTreeMap<&'static str, (bool, Dependents)>);

    impl Fake {
        fn with(mut self, name: &'static str, up: bool, along: &[&str], triggers: &[&str]) -> Self {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let dependents = Dependents { stopped_along: names(along), triggered_by: names(triggers) };
            self.0.insert(name, (up, dependents));
            self
        }
    }

    impl Units for Fake {
        fn unit(&self, name: &str) -> Result<UnitInfo> {
            let name = if name == "alias.service" { "a.service" } else { name };
            let up = self.0.get(name).is_some_and(|(up, _)| *up);
            Ok(UnitInfo { name: name.to_owned(), up, fragment: String::new() })
        }

        fn dependents(&self, name: &str) -> Result<Dependents> {
            Ok(self.0.get(name).map(|(_, dependents)| dependents.clone()).unwrap_or_default())
        }
    }

    fn guard(user: Option<u32>, name: &str) -> Guard {
        Guard { user, name: name.into() }
    }

    fn guarded(user: Option<u32>, units: &[Guard]) -> Guarded<'_> {
        Guarded { user, units }
    }

    /// A manager that always names one more.
    struct Endless;

    impl Units for Endless {
        fn unit(&self, name: &str) -> Result<UnitInfo> {
            Ok(UnitInfo { name: name.to_owned(), up: true, fragment: String::new() })
        }

        fn dependents(&self, name: &str) -> Result<Dependents> {
            Ok(Dependents { stopped_along: vec![format!("x{name}")], ..Dependents::default() })
        }
    }

    #[test]
    fn a_users_chain_without_end_is_given_up() {
        let error = closure(&Endless, &[("a.service".to_owned(), Role::Holder)], guarded(Some(7), &[]))
            .expect_err("no end");
        assert!(error.to_string().contains("more than 512"), "{error}");
    }

    #[test]
    fn a_long_chain_of_the_systems_is_no_matter() {
        struct Long;
        impl Units for Long {
            fn unit(&self, name: &str) -> Result<UnitInfo> {
                Ok(UnitInfo { name: name.to_owned(), up: true, fragment: String::new() })
            }
            fn dependents(&self, name: &str) -> Result<Dependents> {
                let number: u32 = name.trim_end_matches(".service").parse()?;
                let next = (number < 100_000).then(|| format!("{}.service", number + 1));
                Ok(Dependents { stopped_along: next.into_iter().collect(), ..Dependents::default() })
            }
        }
        let holders = [("0.service".to_owned(), Role::Holder)];
        let planned = closure(&Long, &holders, guarded(None, &[])).expect("may be stopped");
        assert_eq!((planned.len(), planned[0].name.as_str()), (100_001, "100000.service"));
    }

    /// Seconds and peak memory for the chain of `link-N.timer` that hangs on `head.service` in the manager of
    /// this user (tests/scenarios/long-chains makes such a chain).
    #[test]
    #[ignore = "a measurement, of units that have to be there"]
    fn a_long_chain_of_a_real_manager() {
        let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("is there"));
        let manager = bus::Manager::user(own).expect("there is a manager");
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak starts over");
        let began = std::time::Instant::now();
        let holders = [("head.service".to_owned(), Role::Holder)];
        let planned = closure(&manager, &holders, guarded(None, &[])).expect("may be stopped");
        let seconds = began.elapsed().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").expect("reads");
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).expect("has a peak");
        #[expect(clippy::print_stdout, reason = "the result of a measurement")]
        {
            println!("{} units: {seconds:.2} s, {peak}", planned.len());
        }
    }

    #[test]
    fn what_a_user_calls_a_unit_protects_it_not() {
        let fake = Fake::default().with("docker.service", true, &["nvidia-reload-x.service"], &[]).with(
            "nvidia-reload-x.service",
            true,
            &[],
            &[],
        );
        let holders = [("docker.service".to_owned(), Role::Holder)];
        assert_eq!(closure(&fake, &holders, guarded(Some(7), &[])).expect("may be stopped").len(), 2);
        closure(&fake, &holders, guarded(None, &[])).expect_err("the system's is core");
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
    fn what_others_need_stops_last() {
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

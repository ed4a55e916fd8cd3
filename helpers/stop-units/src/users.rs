// SPDX-License-Identifier: MIT
//! The units of users: asked for and ordered as those users, see the crate `as-user`. What a user's side
//! says decides about that user's own units and nothing else.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use as_user::{Agent, Ask, Dependents, Started, Stop, Stopped, is_unit_name};
use holders::Guarded;
use step::{Guard, Root};

use crate::closure::{Planned, Role, UnitInfo, Units, closure};

/// How long one answer may take.
const CALL: Duration = Duration::from_secs(20);

/// How long a user's side may take until it has said what would stop.
pub(crate) const PLAN: Duration = Duration::from_secs(30);

/// How long a user's side may take to start that user's units, all in all.
const RESTORE: Duration = Duration::from_secs(60);

/// The same for one wave of starts.
const START: Duration = Duration::from_secs(45);

/// How many users are asked at once.
const PARALLEL: usize = 64;

/// A user's manager, by way of a worker.
pub(crate) struct Manager(Agent);

impl Units for Manager {
    fn unit(&self, name: &str) -> Result<UnitInfo> {
        let unit: as_user::Unit = self.0.ask(Ask::Unit { name: name.to_owned() }, CALL)?;
        if unit.name != name {
            bail!("asked for {name}, the manager of user {} answers for another unit", self.0.uid());
        }
        Ok(UnitInfo { name: unit.name, up: unit.up, fragment: String::new() })
    }

    fn dependents(&self, name: &str) -> Result<Dependents> {
        let mut found: Dependents = self.0.ask(Ask::Dependents { name: name.to_owned() }, CALL)?;
        // What is of another type goes along by itself.
        for names in [&mut found.triggered_by, &mut found.stopped_along] {
            names.retain(|name| is_unit_name(name));
        }
        Ok(found)
    }
}

/// What would stop of user `uid`, and the manager, which can be asked until `budget` is over.
pub(crate) fn plan(
    root: &Root,
    uid: u32,
    holders: &[(String, Role)],
    protected: &[Guard],
    budget: Duration,
) -> Result<(Manager, Vec<Planned>)> {
    let manager = Manager(Agent::open(root, uid, budget)?);
    let plan = closure(&manager, holders, Guarded { user: Some(uid), units: protected })?;
    Ok((manager, plan))
}

/// Stops units, and says what came of each.
pub(crate) fn stop(manager: &Manager, plan: &[&Planned], time: Duration) -> Result<Vec<Stopped>> {
    let units = plan
        .iter()
        .map(|planned| Stop { name: planned.name.clone(), along: planned.role == Role::Dependent });
    let ask = Ask::StopUnits { units: units.collect(), seconds: time.as_secs() };
    let stopped: Vec<Stopped> = manager.0.ask(ask, time + CALL)?;
    match stopped.len() == plan.len() {
        true => Ok(stopped),
        false => Err(anyhow!("{} units asked about, {} answered for", plan.len(), stopped.len())),
    }
}

/// Starts the units of user `uid`, wave after wave, and says what came of each.
pub(crate) fn start(root: &Root, uid: u32, waves: &[Vec<String>]) -> Vec<Vec<Result<Started, String>>> {
    let agent = Agent::open(root, uid, RESTORE);
    let wave = |names: &Vec<String>| {
        let ask = Ask::StartUnits { names: names.clone(), seconds: START.as_secs() };
        let started = match &agent {
            _ if names.is_empty() => Ok(Vec::new()),
            Ok(agent) => agent.ask::<Vec<Started>>(ask, RESTORE).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match started {
            Ok(started) if started.len() == names.len() => started.into_iter().map(Ok).collect(),
            Ok(_) => vec![Err(format!("user {uid}: its side answers for other units")); names.len()],
            Err(error) => vec![Err(error); names.len()],
        }
    };
    waves.iter().map(wave).collect()
}

/// Does `work` for each of `items`, side by side: one user does not wait for another.
pub(crate) fn side_by_side<I: Send, T: Send>(items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let mut results = Vec::new();
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        let work = &work;
        thread::scope(|scope| {
            let threads: Vec<_> =
                items.by_ref().take(PARALLEL).map(|item| scope.spawn(move || work(item))).collect();
            results.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    /// The manager of a user whose side answers as `answer` says.
    fn manager(answer: impl Fn(&str) -> String + Send + 'static) -> Manager {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        thread::spawn(move || {
            for line in BufReader::new(theirs.try_clone().expect("clones")).lines().map_while(Result::ok) {
                let id = line.trim_start_matches("{\"id\":").split(',').next().unwrap_or_default().to_owned();
                let reply = format!("{{\"id\":{id},\"result\":{{\"Ok\":{}}}}}\n", answer(&line));
                let _ = (&theirs).write_all(reply.as_bytes());
            }
        });
        Manager(Agent::over(ours, 1000, Duration::from_secs(5)).expect("starts"))
    }

    fn names(manager: &Manager) -> Result<Vec<String>> {
        let holders = [("job.service".to_owned(), Role::Holder)];
        Ok(closure(manager, &holders, Guarded { user: Some(7), units: &[] })?
            .into_iter()
            .map(|planned| planned.name)
            .collect())
    }

    #[test]
    fn a_unit_that_was_not_asked_for_is_none() {
        let liar = manager(|_| r#"{"name":"../../etc/cron.d/job","up":true}"#.to_owned());
        let error = format!("{:#}", names(&liar).expect_err("is not taken"));
        assert!(error.contains("answers for another unit"), "{error}");
    }

    #[test]
    fn only_names_of_units_are_followed() {
        let honest = manager(|line| match line.contains("dependents") {
            true => {
                r#"{"triggered_by":["/etc/x.service","a.slice"],"stopped_along":["../b.service"]}"#.to_owned()
            }
            false => r#"{"name":"job.service","up":true}"#.to_owned(),
        });
        assert_eq!(names(&honest).expect("is taken"), ["job.service"]);
    }

    #[test]
    fn results_for_other_units_are_none() {
        let liar = manager(|_| r#"["down","down"]"#.to_owned());
        let planned =
            Planned { name: "job.service".into(), role: Role::Holder, fragment: String::new(), up: true };
        stop(&liar, &[&planned], Duration::from_secs(1)).expect_err("one was asked about");
    }

    #[test]
    fn no_user_waits_for_another() {
        let done = side_by_side((0..100).collect(), |number: u32| number * 2);
        assert_eq!(done, (0..100).map(|number| number * 2).collect::<Vec<_>>());
    }
}

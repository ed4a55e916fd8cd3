// SPDX-License-Identifier: MIT
//! Terminates the processes that hold the GPU and belong to no container and no unit.
//!
//! The containers and units are stopped by now. The other processes get SIGTERM, the grace time, then SIGKILL. The
//! driver's own reference count proves that none is left.

#![forbid(unsafe_code)]

mod victim;
mod words;

use std::collections::HashSet;
use std::iter::repeat;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use holders::{Caller, Disposition, Holder, Rules, Scan, Scope};
use ledger::{Object, Run, State, Step};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use step::{Context, Guard, Priority, log};

use victim::{Victim, name, wait};
use words::{MOST_NAMED, cut_short, place, record, why_not_killed};

/// How long the kernel may take to clean up after a killed process. One that had the memory of
/// many GPUs mapped takes seconds; one that is stuck in the driver never ends.
const CLEANUP: Duration = Duration::from_secs(30);
/// How long somebody who may not be killed may take to let go by himself: what a monitoring
/// service starts to look at the GPU is gone in an instant.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the references are counted while no process is seen that has them.
const COUNT: Duration = Duration::from_millis(2);
/// From this round on no process gets SIGTERM first: those who are still there made new ones of their
/// kind each time they were.
const LAST_ASKED: u32 = 2;

/// Why a process that was ended does not come back.
const LOST: &str = "it cannot be started again as it was";
/// More than this have no message of their own.
const MOST_LOGGED: usize = 100;

fn main() -> ExitCode {
    step::main(Step::KillHolders, run, undo)
}

fn run(context: &Context) -> Result<()> {
    let config = context.config()?;
    let grace = Duration::from_secs(config.processes.grace);
    let deadline = Instant::now() + grace * LAST_ASKED + CLEANUP + SETTLE;
    allow_descriptors();
    let guards = (
        Guard::read(&context.root, &config.units.protect)?,
        Guard::read(&context.root, &config.processes.protect)?,
    );
    let caller = Caller::this(&context.root);
    let run = context.ledger.read()?;
    let dealt_with = dealt_with(run.as_ref());
    let scope: Scope = run.iter().flat_map(|run| run.snapshot.chosen_nodes()).collect();
    for round in 1.. {
        let scan = holders::scan(&context.root)?.within(&scope);
        if scan.is_free_within(&scope) {
            break;
        }
        let rules = rules(&guards, &caller, &dealt_with);
        let (mut plain, mut others) = (Vec::new(), Vec::new());
        for holder in &scan.holders {
            match rules.disposition(holder) {
                Disposition::Kill => plain.push(holder.clone()),
                disposition => others.push((holder.clone(), disposition)),
            }
        }
        if !others.is_empty() {
            await_others(context, others)?;
        } else if plain.is_empty() {
            if scan.is_left_to_the_kernel() || quiet(context, SETTLE)? || unexplained(context)? {
                break;
            }
        } else {
            let asked = if round <= LAST_ASKED { grace } else { Duration::ZERO };
            end(context, plain, asked)?;
            // A program that polls the GPU is gone for a moment each time, and there is
            // no more to be had: it is innocent of what starts it.
            // Where others go on to use theirs, the references tell nothing.
            if scope.is_all() && quiet(context, SETTLE / 5)? {
                break;
            }
        }
        if Instant::now() > deadline {
            bail!("the GPU is not free: new processes open it as fast as they are killed: {}", list(&scan));
        }
    }
    context.info(if scope.is_all() {
        "no process holds the GPU"
    } else {
        "no process holds the GPUs to be reset"
    });
    Ok(())
}

fn rules<'a>(
    (units, processes): &'a (Vec<Guard>, Vec<Guard>),
    caller: &'a Caller,
    dealt_with: &'a [(Option<u32>, String)],
) -> Rules<'a> {
    Rules { units, processes, caller: Some(caller), dealt_with, drained: true, ..Rules::default() }
}

/// Each process to be ended is held by a descriptor, and a user can have thousands.
fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is not allowed, there are more rounds.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// As many processes as can be held at once; some descriptors are for all else.
fn most_at_once() -> usize {
    const OTHERS: u64 = 64;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit.saturating_sub(OTHERS).max(1)).unwrap_or(usize::MAX)
}

/// The units that stop-units has had its try at: what is left in them is not theirs to stop.
fn dealt_with(run: Option<&Run>) -> Vec<(Option<u32>, String)> {
    run.into_iter()
        .flat_map(|run| &run.acts)
        .filter_map(|act| match &act.object {
            Object::Unit(unit) => Some((unit.user, unit.name.clone())),
            _ => None,
        })
        .collect()
}

/// Gives those who may not be killed the time to let go by themselves; an error names who did not.
fn await_others(context: &Context, others: Vec<(Holder, Disposition)>) -> Result<()> {
    let until = Instant::now() + SETTLE;
    let mut watched = Vec::new();
    for (holder, _) in &others {
        watched.extend(Victim::take(&context.root, holder.clone())?);
    }
    let left = wait(watched, until)?;
    let still: HashSet<i32> = left.iter().map(|victim| victim.holder.pid).collect();
    let left: Vec<&(Holder, Disposition)> =
        others.iter().filter(|(holder, _)| still.contains(&holder.pid)).collect();
    if !left.is_empty() {
        let named = left.iter().map(|(holder, disposition)| {
            (holder, format!("{} {}", name(holder), why_not_killed(disposition)))
        });
        bail!("the GPU is still held: {}", cut_short(named.collect(), "; "));
    }
    Ok(())
}

/// Ends `plain`: asks, waits for `grace` at most, kills. Each is in the ledger before it is touched.
fn end(context: &Context, plain: Vec<Holder>, grace: Duration) -> Result<()> {
    context.status(format!("terminating processes: {}", plain.len()));
    let mut victims = Vec::new();
    // The rest's turn is the next round.
    for holder in plain.into_iter().take(most_at_once()) {
        victims.extend(Victim::take(&context.root, holder)?);
    }
    let objects = victims.iter().map(|victim| Object::Process(record(&victim.holder))).collect();
    let ids = context.ledger.intents(Step::KillHolders, objects)?;
    let acts: Vec<(u64, Holder)> =
        ids.into_iter().zip(victims.iter().map(|victim| victim.holder.clone())).collect();
    let result = signal_and_wait(context, victims, grace);
    // Whatever went wrong: the ledger tells who is gone and who is not.
    if let Ok(left) = &result {
        let left: HashSet<i32> = left.iter().map(|victim| victim.holder.pid).collect();
        let (failed, ended): (Vec<_>, Vec<_>) =
            acts.iter().partition(|(_, holder)| left.contains(&holder.pid));
        let ids = |acts: &[&(u64, Holder)]| acts.iter().map(|(id, _)| *id).collect::<Vec<u64>>();
        context.ledger.ended(&ids(&failed), &ids(&ended), "it did not end", LOST)?;
        for (_, holder) in ended.iter().take(MOST_LOGGED) {
            log(
                context.step,
                Priority::Notice,
                &format!("terminated {}", name(holder)),
                &[("OBJECT_PID", &holder.pid.to_string())],
            );
        }
        if let Some(more) = ended.len().checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
            context.info(format!("terminated {more} more processes; the ledger names each"));
        }
    }
    let left = result?;
    if !left.is_empty() {
        let keeps = |victim: &Victim| format!("{}: {}", victim.name(), victim.what_keeps_it(&context.root));
        let named = left.iter().take(MOST_NAMED + 1).map(keeps);
        let named = left.iter().map(|victim| &victim.holder).zip(named.chain(repeat(String::new())));
        bail!("killed, and still there: {}", cut_short(named.collect(), "; "));
    }
    Ok(())
}

fn signal_and_wait(context: &Context, victims: Vec<Victim>, grace: Duration) -> Result<Vec<Victim>> {
    let mut left = victims;
    if !grace.is_zero() {
        for victim in &left {
            victim.ask()?;
        }
        left = wait(left, Instant::now() + grace)?;
    }
    for (at, victim) in left.iter().enumerate() {
        if at < MOST_LOGGED {
            context.warn(format!("{} does not end by itself: killing it", victim.name()));
        }
        victim.signal(Signal::KILL)?;
    }
    wait(left, Instant::now() + CLEANUP)
}

/// Whether there is a moment within `patience` at which no process has the driver open.
fn quiet(context: &Context, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    loop {
        if holders::refcounts(&context.root)?.iter().all(holders::Module::is_unused) {
            return Ok(true);
        }
        if Instant::now() > until {
            return Ok(false);
        }
        // The kernel does not report when a reference goes: ask again.
        std::thread::sleep(COUNT);
    }
}

/// References remain and no process is seen that has them: an error that says how many and where they
/// may be. True if what remains is not this step's to remove, false if the next look will tell more.
fn unexplained(context: &Context) -> Result<bool> {
    let scan = holders::scan(&context.root)?;
    let Some(rest) = scan.unexplained.first().filter(|_| scan.holders.is_empty()) else {
        return Ok(scan.is_free() || scan.is_left_to_the_kernel());
    };
    let places: Vec<String> = rest.places.iter().map(place).collect();
    bail!(
        "{rest} with no process that has them; likely places: {}",
        if places.is_empty() { "inside the kernel".to_owned() } else { places.join(", ") }
    );
}

fn list(scan: &Scan) -> String {
    cut_short(scan.holders.iter().map(|holder| (holder, name(holder))).collect(), ", ")
}

/// Nothing comes back. Acts that were announced when this step was cut off get their end, so that
/// the ledger tells who was killed and who was not.
fn undo(context: &Context) -> Result<()> {
    let Some(run) = context.ledger.read()? else { return Ok(()) };
    let (mut failed, mut lost) = (Vec::new(), Vec::new());
    for act in run.acts.iter().filter(|act| act.step == Step::KillHolders && act.state == State::Intent) {
        let Object::Process(process) = &act.object else { continue };
        let stat = std::fs::read(context.root.path(format!("/proc/{}/stat", process.pid)));
        let now = stat.ok().and_then(|text| holders::Stat::parse(&text));
        match now.is_some_and(|now| now.start_ticks == process.start_ticks && now.state != 'Z') {
            true => failed.push(act.id),
            false => lost.push(act.id),
        }
    }
    if failed.is_empty() && lost.is_empty() {
        return Ok(());
    }
    context.ledger.ended(&failed, &lost, "it was not killed", LOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holders::Owner;
    use ledger::{Ledger, Snapshot, Unit};
    use std::process::{Child, Command, Stdio};
    use step::Root;

    fn context() -> (tempfile::TempDir, Context) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ledger = Ledger::new(directory.path().join("lib"), "boot-1");
        ledger.open(Snapshot::default()).expect("opens");
        (directory, Context { step: Step::KillHolders, root: Root::system(), ledger })
    }

    fn process(script: &str) -> (Child, Holder) {
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("starts");
        let mut ready = [0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut ready).expect("reads");
        let text = std::fs::read(format!("/proc/{}/stat", child.id())).expect("is alive");
        let stat = holders::Stat::parse(&text).expect("is understood");
        let holder = Holder {
            pid: i32::try_from(child.id()).expect("a pid"),
            start_ticks: stat.start_ticks,
            since: None,
            uid: 0,
            user: None,
            comm: stat.comm,
            command: vec!["sh".into(), "odd\\n".into()],
            state: stat.state,
            devices: Vec::new(),
            owner: Owner::Process,
            screen: false,
            gpu_memory: None,
        };
        (child, holder)
    }

    fn states(context: &Context) -> Vec<State> {
        let run = context.ledger.read().expect("reads").expect("is open");
        run.acts.into_iter().map(|act| act.state).collect()
    }

    #[test]
    fn the_ended_are_lost_and_named() {
        let (_directory, context) = context();
        let (mut soft, one) = process("echo; exec sleep 600");
        let (mut hard, other) = process("trap '' TERM; echo; while :; do sleep 1; done");
        end(&context, vec![one.clone(), other], Duration::from_millis(100)).expect("ends them");
        let _ = (soft.wait(), hard.wait());
        assert!(states(&context).iter().all(|state| matches!(state, State::Lost(_))));
        let run = context.ledger.read().expect("reads").expect("is open");
        assert_eq!(run.killed()[0].command, "sh odd\\n");
        assert!(run.missing().is_empty(), "nothing restarts them");
        // Who has ended since is not touched and not recorded.
        end(&context, vec![one], Duration::ZERO).expect("nothing to do");
        assert_eq!(states(&context).len(), 2);
    }

    #[test]
    fn what_is_not_killed_is_waited_for_and_then_named() {
        let (_directory, context) = context();
        let (mut child, holder) = process("echo; exec sleep 0.2");
        let disposition = Disposition::StopUnit { user: None, unit: "x.service".into() };
        await_others(&context, vec![(holder, disposition.clone())]).expect("lets go by itself");
        let _ = child.wait();
        assert!(why_not_killed(&disposition).contains("x.service, which was not stopped"));
    }

    #[test]
    fn an_undo_closes_what_a_cut_off_run_left_open() {
        let (_directory, context) = context();
        let (mut child, alive) = process("echo; exec sleep 600");
        let gone = Holder { start_ticks: alive.start_ticks + 1, ..alive.clone() };
        for holder in [&alive, &gone] {
            let object = Object::Process(record(holder));
            context.ledger.intent(Step::KillHolders, object).expect("writes").leave_open();
        }
        undo(&context).expect("undoes");
        let states = states(&context);
        assert!(matches!(states[0], State::Failed(_)), "{states:?}");
        assert!(matches!(states[1], State::Lost(_)), "{states:?}");
        let _ = (child.kill(), child.wait());
    }

    #[test]
    fn what_a_unit_left_behind_is_known_from_the_ledger() {
        let (_directory, context) = context();
        let unit = Unit { name: "x.service".into(), user: Some(7), role: "holder".into() };
        context.ledger.intent(Step::StopUnits, Object::Unit(unit)).expect("writes").leave_open();
        let run = context.ledger.read().expect("reads");
        assert_eq!(dealt_with(run.as_ref()), [(Some(7), "x.service".to_owned())]);
        assert!(dealt_with(None).is_empty());
    }

    #[test]
    fn what_is_written_of_a_process_is_bounded() {
        let (_directory, context) = context();
        let (mut child, holder) = process("echo; exec sleep 600");
        let long = Holder { command: vec!["\u{e9}".repeat(100_000)], ..holder };
        end(&context, vec![long], Duration::from_secs(20)).expect("ends it");
        let _ = child.wait();
        let run = context.ledger.read().expect("reads").expect("is open");
        let command = &run.killed()[0].command;
        assert!(command.len() <= 512 && command.ends_with("\u{e9}…"), "{}", command.len());
    }
}

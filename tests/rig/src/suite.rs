// SPDX-License-Identifier: MIT
//! `cargo rig test`: all checks and scenarios, a line each.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cache::Cache;
use crate::checks::{CHECKS, Check};
use crate::fleet::Fleet;
use crate::host;
use crate::machine::last_lines;
use crate::progress;
use crate::results::Results;
use crate::room::NotHad;
use crate::scenario::{End, Limit, Output, Scenario, diagnose};
use crate::stages::{Content, Distro, NotToday, checkout};
use crate::worlds::{WORLDS, World};

/// How long a scenario may take that does not say.
const DEADLINE: Duration = Duration::from_secs(300);
/// How many are named at the end.
const SLOWEST: usize = 10;
/// How a wrong command line ends, as clap has it.
const USAGE: u8 = 2;

enum Test {
    Check(&'static Check),
    World(&'static World),
    Scenario(ScenarioTest),
}

/// A scenario, or a part of one, on a distribution.
struct ScenarioTest {
    name: String,
    path: PathBuf,
    distro: Distro,
    by_name: bool,
    part: Option<String>,
}

impl Test {
    fn name(&self) -> &str {
        match self {
            Test::Check(check) => check.name,
            Test::World(world) => world.name,
            Test::Scenario(test) => &test.name,
        }
    }

    /// Whether it runs only where it is named, since it takes long or has run on another distribution.
    fn is_by_name(&self) -> bool {
        match self {
            Test::Check(check) => check.by_name,
            Test::World(_) => true,
            Test::Scenario(test) => test.by_name,
        }
    }

    fn run(&self, cache: &Cache, short: bool) -> Result<()> {
        match self {
            Test::Check(check) => check.run(cache),
            Test::World(world) => world.run(cache),
            Test::Scenario(test) => run_scenario(cache, test, short),
        }
    }
}

/// What is asked for on the command line.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Names, as --list shows them
    names: Vec<String>,
    /// Run all of them, each as a whole
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Of these, the I-th of N equal parts
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Show the names of all checks and scenarios
    #[arg(long)]
    list: bool,
    /// Show how each ended last, and at which commit
    #[arg(long)]
    results: bool,
    /// How many machines run at once; by default half as many as there are cores, and two at least
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

/// A part of the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shard {
    part: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (part, of) = text.split_once('/').context("as in 1/4, please")?;
        match (part.parse(), of.parse()) {
            (Ok(part), Ok(of)) if (1..=of).contains(&part) => Ok(Shard { part, of }),
            _ => bail!("as in 1/4, please"),
        }
    }
}

impl Shard {
    /// Whether the test at this place of the list is in it: the same everywhere.
    fn has(self, at: usize) -> bool {
        at % self.of == self.part - 1
    }
}

/// Runs the tests that are asked for: the checks one after the other, since cargo takes all cores, then
/// scenarios in several machines at once, the longest first.
pub fn test(asked: &Options) -> Result<u8> {
    let all = all_tests()?;
    if asked.list {
        for test in &all {
            let note = if test.is_by_name() { "  (with --all, or when it is named)" } else { "" };
            println!("{}{note}", test.name());
        }
        return Ok(0);
    }
    if let Some(unknown) = asked.names.iter().find(|name| !all.iter().any(|test| test.name() == *name)) {
        eprintln!("rig: no test is called {unknown}; cargo rig test --list shows all names");
        return Ok(USAGE);
    }
    let cache = Cache::open()?;
    let results = Results::open(&cache)?;
    if asked.results {
        print!("{}", results.table(all.iter().map(Test::name)));
        return Ok(0);
    }
    // Made before there are several to make it.
    cache.scratch_root()?;
    // What is in the default suite shows there the half of it that tells most.
    let short = asked.names.is_empty() && !asked.all;
    let is_asked = |test: &&Test| match asked.names.as_slice() {
        [] => asked.all || !test.is_by_name(),
        names => names.iter().any(|name| name == test.name()),
    };
    let chosen = all.iter().filter(is_asked).enumerate();
    let (checks, mut scenarios): (Vec<&Test>, Vec<&Test>) = chosen
        .filter(|&(at, _)| asked.shard.is_none_or(|shard| shard.has(at)))
        .map(|(_, test)| test)
        .partition(|test| matches!(test, Test::Check(_)));
    // One that is not known may be a long one, too.
    let length = |test: &Test| results.seconds(test.name()).unwrap_or(f64::INFINITY);
    scenarios.sort_by(|one, other| length(other).total_cmp(&length(one)));
    if !checks.is_empty() {
        host::provide(host::TO_CHECK)?;
    }
    let run = |test| run_and_tell(test, &cache, &results, short);
    let mut ended: Vec<Ended<'_>> = checks.iter().copied().map(run).collect::<Result<_>>()?;
    let queue = Mutex::new(scenarios.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        let work = || std::iter::from_fn(next).copied().map(run).collect::<Result<Vec<_>>>();
        let workers: Vec<_> =
            (0..asked.jobs.unwrap_or_else(machines).get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            ended.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        anyhow::Ok(())
    })?;
    let failed = ended.iter().filter(|ended| ended.end == Outcome::Failed).count();
    let skipped = ended.iter().filter(|ended| ended.end == Outcome::Skipped).count();
    let note = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    println!("{} passed, {failed} failed{note}", ended.len() - failed - skipped);
    if ended.len() > SLOWEST {
        ended.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let slowest: Vec<String> =
            ended.iter().take(SLOWEST).map(|one| format!("{} {:.0} s", one.name, one.seconds)).collect();
        println!("the slowest: {}", slowest.join(", "));
    }
    Ok(u8::from(failed > 0))
}

/// Half as many machines as there are cores, since each has two; but two on two: a scenario waits half of
/// its time, for timeouts and for its disk.
fn machines() -> NonZero<usize> {
    let cores = thread::available_parallelism().map_or(2, NonZero::get);
    NonZero::new((cores / 2).max(2)).unwrap_or(NonZero::<usize>::MIN)
}

/// How a test ended.
struct Ended<'a> {
    name: &'a str,
    end: Outcome,
    seconds: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    /// What it runs on is another thing each day, and cannot be had today.
    Skipped,
}

impl Outcome {
    fn of(result: &Result<()>) -> Self {
        match result {
            Ok(()) => Outcome::Passed,
            Err(error) if error.is::<NotToday>() || error.is::<NotHad>() => Outcome::Skipped,
            Err(_) => Outcome::Failed,
        }
    }
}

fn run_and_tell<'a>(test: &'a Test, cache: &Cache, results: &Results, short: bool) -> Result<Ended<'a>> {
    let since = Instant::now();
    let result = test.run(cache, short);
    let ended =
        Ended { name: test.name(), end: Outcome::of(&result), seconds: since.elapsed().as_secs_f64() };
    let word = match ended.end {
        Outcome::Passed => "ok  ",
        Outcome::Failed => "FAIL",
        Outcome::Skipped => "skip",
    };
    let mut text = format!("{word} {:<32} {:>6.1} s\n", ended.name, ended.seconds);
    if let Err(error) = &result {
        let lines = error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        text.extend(lines.lines().map(|line| format!("       {line}\n")));
    }
    progress::result(&text);
    // How one ended that did not run stays as it was.
    if ended.end != Outcome::Skipped {
        results.set(ended.name, ended.end == Outcome::Passed, ended.seconds, short)?;
    }
    Ok(ended)
}

fn all_tests() -> Result<Vec<Test>> {
    let mut tests: Vec<Test> = CHECKS.iter().map(Test::Check).chain(WORLDS.iter().map(Test::World)).collect();
    let folder = checkout().join("tests/scenarios");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut scenarios = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else {
            continue;
        };
        let script = if path.is_dir() { path.join("run") } else { path.clone() };
        let executable =
            fs::metadata(&script).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if executable && !name.starts_with('.') && name != "lib.sh" {
            scenarios.push((name, path));
        }
    }
    scenarios.sort();
    for (name, path) in scenarios {
        let scenario = Scenario::open(&path)?;
        for (at, distro) in scenario.header().distros().into_iter().enumerate() {
            // The first of its distributions tells most of what there is to tell.
            let by_name = scenario.header().by_name || at > 0;
            let name = distro.stage(&name);
            tests.push(Test::Scenario(ScenarioTest {
                name,
                path: path.clone(),
                distro,
                by_name,
                part: None,
            }));
        }
        for part in &scenario.header().parts {
            tests.push(Test::Scenario(ScenarioTest {
                name: format!("{name}-{part}"),
                path: path.clone(),
                distro: Distro::default(),
                by_name: true,
                part: Some(part.clone()),
            }));
        }
    }
    Ok(tests)
}

/// Runs a scenario in a machine of its own; the error has the output.
fn run_scenario(cache: &Cache, test: &ScenarioTest, short: bool) -> Result<()> {
    let scenario = Scenario::open(&test.path)?;
    let header = scenario.header();
    let spec = header.spec(test.distro)?;
    let content = Content { with_package: true, with_stand_ins: true, spec: &spec };
    let mut fleet = Fleet::start(cache, &content, Some(&scenario))?;
    let machine = fleet.first();
    let mut file: File = tempfile::tempfile()?;
    let timeout = header.timeout.unwrap_or(DEADLINE);
    let output = Output::BothTo(file.try_clone()?);
    let end =
        scenario.run(machine, &spec, test.part.as_slice(), &output, &Limit { timeout: Some(timeout), short });
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    match end {
        Ok(End::Exit(0)) => Ok(()),
        Ok(End::Exit(status)) => bail!("{text}\nexit status {status}"),
        Ok(End::TimedOut) => {
            bail!("{text}\nnot done after {} s\n{}", timeout.as_secs(), diagnose(machine).trim_end())
        }
        Err(error) => {
            let console = last_lines(&machine.console(), 20);
            Err(error.context(format!("{text}\nthe machine failed; its console:\n{console}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_moves_is_skipped() {
        let failed = || anyhow::anyhow!("mmdebstrap: exit status: 1").context("cannot build the base");
        assert!(Outcome::of(&Ok(())) == Outcome::Passed);
        assert!(Outcome::of(&Err(failed())) == Outcome::Failed);
        let not_today = failed().context(NotToday(Distro::Forky)).context("there is no machine to run it in");
        assert!(Outcome::of(&Err(not_today)) == Outcome::Skipped);
    }

    #[test]
    fn shards_are_all_of_it_and_each_once() {
        let shards = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Shard>().expect("a shard"));
        for at in 0..10 {
            assert_eq!(shards.iter().filter(|shard| shard.has(at)).count(), 1, "{at}");
        }
        for wrong in ["0/3", "4/3", "1", "a/b", "1/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}

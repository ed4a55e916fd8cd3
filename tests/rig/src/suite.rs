//! `cargo rig test`: all checks and scenarios, a line each.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::num::NonZero;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::checks::{CHECKS, Check};
use crate::host;
use crate::machine::{Machine, last_lines};
use crate::progress;
use crate::scenario::{End, Output, Scenario, diagnose};
use crate::stages::{self, Content, Distro, checkout};

/// How long a scenario may take that does not say.
const DEADLINE: Duration = Duration::from_secs(300);
/// How a wrong command line ends, as clap has it.
const USAGE: u8 = 2;

enum Test {
    Check(&'static Check),
    Scenario(String, PathBuf, Distro, bool),
}

impl Test {
    fn name(&self) -> &str {
        match self {
            Test::Check(check) => check.name,
            Test::Scenario(name, ..) => name,
        }
    }

    /// Whether it runs only where it is named, since it takes long or has run on another distribution.
    fn is_by_name(&self) -> bool {
        matches!(self, Test::Scenario(.., true))
    }

    fn run(&self, cache: &Cache) -> Result<()> {
        match self {
            Test::Check(check) => check.run(cache),
            Test::Scenario(_, path, distro, _) => run_scenario(cache, &Scenario::open(path)?, *distro),
        }
    }
}

/// Runs the tests of these names, or all but those that take long, or the `whole` of them: the checks one after the other, since
/// cargo takes all cores, then scenarios in as many machines at once as `jobs` says.
pub fn test(names: &[String], whole: bool, list: bool, jobs: Option<NonZero<usize>>) -> Result<u8> {
    let all = all_tests()?;
    if list {
        for test in &all {
            let note = if test.is_by_name() { "  (with --all, or when it is named)" } else { "" };
            println!("{}{note}", test.name());
        }
        return Ok(0);
    }
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|test| test.name() == *name)) {
        eprintln!("rig: no test is called {unknown}; cargo rig test --list shows all names");
        return Ok(USAGE);
    }
    let cache = Cache::open()?;
    // Made before there are several to make it.
    cache.scratch_root()?;
    let is_asked = |test: &&Test| match names {
        [] => whole || !test.is_by_name(),
        names => names.iter().any(|name| name == test.name()),
    };
    let asked = all.iter().filter(is_asked);
    let (checks, scenarios): (Vec<&Test>, Vec<&Test>) =
        asked.partition(|test| matches!(test, Test::Check(_)));
    if !checks.is_empty() {
        host::provide(host::TO_CHECK)?;
    }
    let mut passed: Vec<bool> = checks.iter().map(|test| run_and_tell(test, &cache)).collect();
    let queue = Mutex::new(scenarios.iter());
    let next = || queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
    thread::scope(|scope| {
        let work = || std::iter::from_fn(next).map(|test| run_and_tell(test, &cache)).collect::<Vec<_>>();
        let workers: Vec<_> = (0..jobs.unwrap_or_else(machines).get()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            passed.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    let failed = passed.iter().filter(|passed| !**passed).count();
    println!("{} passed, {failed} failed", passed.len() - failed);
    Ok(u8::from(failed > 0))
}

/// Half as many machines as there are cores, since each has two; but two on two: a scenario waits half of
/// its time, for timeouts and for its disk.
fn machines() -> NonZero<usize> {
    let cores = thread::available_parallelism().map_or(2, NonZero::get);
    NonZero::new((cores / 2).max(2)).unwrap_or(NonZero::<usize>::MIN)
}

fn run_and_tell(test: &Test, cache: &Cache) -> bool {
    let since = Instant::now();
    let result = test.run(cache);
    let word = if result.is_ok() { "ok  " } else { "FAIL" };
    let mut text = format!("{word} {:<32} {:>6.1} s\n", test.name(), since.elapsed().as_secs_f64());
    if let Err(error) = &result {
        let lines = error.chain().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        text.extend(lines.lines().map(|line| format!("       {line}\n")));
    }
    progress::result(&text);
    result.is_ok()
}

fn all_tests() -> Result<Vec<Test>> {
    let mut tests: Vec<Test> = CHECKS.iter().map(Test::Check).collect();
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
            tests.push(Test::Scenario(distro.stage(&name), path.clone(), distro, by_name));
        }
    }
    Ok(tests)
}

/// Runs a scenario in a machine of its own; the error has the output.
fn run_scenario(cache: &Cache, scenario: &Scenario, distro: Distro) -> Result<()> {
    let header = scenario.header();
    let spec = header.spec(distro);
    let content = Content { with_package: true, with_stand_ins: true, spec: &spec };
    let built = stages::provide(cache, &content).context("there is no machine to run it in")?;
    let mut machine = Machine::throw_away(cache, &built, &spec)?;
    let mut file: File = tempfile::tempfile()?;
    let timeout = header.timeout.unwrap_or(DEADLINE);
    let output = Output::BothTo(file.try_clone()?);
    let end = scenario.run(&mut machine, &spec, &[], &output, Some(timeout));
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end();
    match end {
        Ok(End::Exit(0)) => Ok(()),
        Ok(End::Exit(status)) => bail!("{text}\nexit status {status}"),
        Ok(End::TimedOut) => {
            bail!("{text}\nnot done after {} s\n{}", timeout.as_secs(), diagnose(&machine).trim_end())
        }
        Err(error) => {
            let console = last_lines(&machine.console(), 20);
            Err(error.context(format!("{text}\nthe machine failed; its console:\n{console}")))
        }
    }
}

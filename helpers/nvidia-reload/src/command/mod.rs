// SPDX-License-Identifier: MIT
//! What each subcommand does, from the arguments to the exit status.

mod caller;
mod explain;
mod guard;
mod heal;
mod history;
mod install;
mod logs;
mod propose;
mod reload;
mod report;
mod request;
mod restore;
mod run;
mod stop;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::Serialize;
use step::Root;

use crate::cli::{
    Arguments, Check, Command, Consent, Heal, Install, Output, Plan, Reload, Reset, Restart, Rollback, Stop,
    Verify, What,
};
use crate::fault::{Fault, Result};
use crate::interrupt::Interrupt;
use crate::kind::Kind;
use crate::plan::Proposal;
use crate::report::Outcome;
use crate::terminal::{Stream, Terminal};
use crate::{check, metrics, past, slots, status, verify, view};
use propose::Answer;

/// Does what was typed.
pub fn dispatch(arguments: &Arguments) -> ExitCode {
    let (output, result) = match &arguments.command {
        None => (arguments.output, status(arguments.output)),
        Some(command) => act(command),
    };
    ExitCode::from(result.unwrap_or_else(|fault| failed(&fault, output)))
}

fn act(command: &Command) -> (Output, Result<u8>) {
    match command {
        Command::Status(output) => (*output, status(*output)),
        Command::Verify(arguments) => (arguments.output, verify(arguments)),
        Command::Plan(arguments) => match planned(arguments) {
            Ok(command) => act(&command),
            Err(fault) => (arguments.output, Err(fault)),
        },
        Command::Reload(arguments) => {
            with_report(arguments.output, |place| reload::reload(Kind::Reload, &[], arguments, place))
        }
        Command::Reset(arguments) => with_report(arguments.reload.output, |place| {
            reload::reload(Kind::Reset, &arguments.gpus.ids, &arguments.reload, place)
        }),
        Command::Stop(arguments) => with_report(arguments.output, |place| stop::stop(arguments, place)),
        Command::Start(arguments) => with_report(arguments.output, |place| restore::start(arguments, place)),
        Command::Rollback(arguments) => {
            with_report(arguments.reload.output, |place| restore::rollback(arguments, place))
        }
        Command::Recover(arguments) => {
            with_report(arguments.output, |place| restore::recover(arguments, place))
        }
        Command::Install(arguments) => {
            with_report(arguments.reload.output, |place| install::install(arguments, place))
        }
        Command::Heal(arguments) => (arguments.output, heal::heal(arguments)),
        Command::Slots(output) => (*output, slots(*output)),
        Command::Request(arguments) => (arguments.output, request::request(arguments)),
        Command::Explain(arguments) => (arguments.output, explain::explain(arguments)),
        Command::History(output) => (*output, history::history(*output)),
        Command::Logs(arguments) => (arguments.output, logs::logs(arguments)),
        Command::Report(arguments) => (arguments.output, report::report(arguments)),
        Command::Check(arguments) => (arguments.output, check(*arguments)),
        Command::Metrics { output } => (Output::default(), metrics(output.as_deref())),
    }
}

/// `plan COMMAND` is `COMMAND --dry-run`.
fn planned(arguments: &Plan) -> Result<Command> {
    let output = arguments.output;
    let consent = Consent { yes: false, dry_run: true };
    let reload = Reload { consent, if_idle: arguments.if_idle, no_wait: false, output };
    let usage = |error: String, remedy: &str| Fault::new(step::Exit::Usage, error, remedy);
    let is = |wanted: What| arguments.what == wanted;
    for (given, wanted, option, example) in [
        (!arguments.gpus.ids.is_empty(), is(What::Reset), "--gpu", "`nvidia-reload plan reset --gpu ID`"),
        (arguments.offline, is(What::Stop), "--offline", "`nvidia-reload plan stop --offline`"),
        (
            arguments.argument.is_some(),
            is(What::Rollback) || is(What::Install),
            "an argument",
            "`nvidia-reload plan rollback VERSION` and `nvidia-reload plan install FILE` take one",
        ),
    ] {
        if given && !wanted {
            return Err(usage(format!("{option} does not go with this command"), example));
        }
    }
    let argument = arguments.argument.clone();
    Ok(match arguments.what {
        What::Reload => Command::Reload(reload),
        What::Reset => Command::Reset(Reset { gpus: arguments.gpus.clone(), reload }),
        What::Stop => Command::Stop(Stop { offline: arguments.offline, consent, output }),
        What::Start => Command::Start(Restart { consent, output }),
        What::Recover => Command::Recover(Restart { consent, output }),
        What::Rollback => {
            let version = argument.map(|version| version.to_string_lossy().into_owned());
            Command::Rollback(Rollback { version, reload })
        }
        What::Install => {
            let file = argument.ok_or_else(|| {
                usage("the .run file is missing".into(), "`nvidia-reload plan install FILE`")
            })?;
            Command::Install(Install { file, reload, arguments: Vec::new() })
        }
        What::Heal => Command::Heal(Heal { end: false, consent, output }),
    })
}

/// Where a command works and where it tells.
pub struct Place {
    /// Where the file system starts.
    pub root: Root,
    /// The view that shows what happens.
    pub terminal: Terminal,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// How the answer comes.
    pub output: Output,
}

/// Shows why the command could not do what was asked; what it exits with.
pub fn failed(fault: &Fault, output: Output) -> u8 {
    if output.json {
        print(fault);
    }
    // Also beside the JSON: what standard error says ends up in logs.
    let mut terminal = Terminal::new(Stream::Err);
    let text = view::report::fault(fault, terminal.style());
    terminal.write(&text);
    fault.exit
}

fn print<T: Serialize>(value: &T) {
    // All that is printed is made of strings, numbers and lists: it can be encoded.
    if let Ok(text) = step::text::json(value) {
        Terminal::new(Stream::Out).write(&format!("{text}\n"));
    }
}

fn status(output: Output) -> Result<u8> {
    let status = status::status(&Root::system())?;
    if output.json {
        print(&status);
    } else {
        let mut terminal = Terminal::new(Stream::Out).with(output);
        let style = terminal.style();
        let text = match output.quiet {
            true => view::verdict::verdict(&status, style),
            false => view::status::status(&status, style, SystemTime::now()),
        };
        terminal.write(&text);
    }
    Ok(0)
}

fn verify(arguments: &Verify) -> Result<u8> {
    guard::root("verify")?;
    let verified = verify::verify(&Root::system(), arguments.smoke)?;
    if arguments.output.json {
        print(&verified);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::verify::verified(&verified, terminal.style());
        terminal.write(&text);
    }
    Ok(verify::exit(&verified) as u8)
}

fn slots(output: Output) -> Result<u8> {
    let list = slots::list(&Root::system())?;
    if output.json {
        print(&list);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::slots::slots(&list, terminal.style(), SystemTime::now());
        terminal.write(&text);
    }
    Ok(list.exit() as u8)
}

fn check(arguments: Check) -> Result<u8> {
    let Check { format, output } = arguments;
    // A monitor takes 1 for a warning and 2 for an alarm: what is not known is 3.
    let checked = check::check(&Root::system())
        .map_err(|fault| Fault { exit: check::Condition::Unknown.exit(), ..fault });
    if output.json {
        let checked = checked?;
        print(&checked);
        return Ok(checked.condition.exit());
    }
    // A monitor reads one line on standard output, whatever it says.
    let checked = checked.unwrap_or_else(|fault| check::Checked::unknown(&fault));
    Terminal::new(Stream::Out).write(&view::check::line(&checked, format));
    Ok(checked.exit(format))
}

fn metrics(output: Option<&Path>) -> Result<u8> {
    let root = Root::system();
    let text = metrics::text(&check::check(&root)?, &past::past(&root));
    match output {
        Some(path) => metrics::write(path, &text)?,
        None => Terminal::new(Stream::Out).write(&text),
    }
    Ok(0)
}

fn with_report(output: Output, act: impl FnOnce(&mut Place) -> Result<Answer>) -> (Output, Result<u8>) {
    (output, reported(output, act))
}

fn reported(output: Output, act: impl FnOnce(&mut Place) -> Result<Answer>) -> Result<u8> {
    let stream = if output.json { Stream::Err } else { Stream::Out };
    // Before any thread is started, see there.
    let interrupt = Interrupt::watch();
    let terminal = Terminal::new(stream).with(output);
    let mut place = Place { root: Root::system(), terminal, interrupt, output };
    let report = match act(&mut place)? {
        Answer::Plan(proposal) => {
            if output.json {
                print(&proposal);
            } else {
                pending(&proposal, &mut place);
            }
            return Ok(proposal.plan.verdict.exit() as u8);
        }
        Answer::Report(report) => report,
    };
    if output.json {
        print(&report);
        return Ok(report.exit);
    }
    let mut text = view::report::report(&report, place.terminal.style());
    if output.quiet && report.exit == 0 {
        text = text.lines().take(1).map(|line| format!("{line}\n")).collect();
    } else if !output.quiet && !report.steps.is_empty() && report.outcome != Outcome::NothingToDo {
        text.insert(0, '\n');
    }
    place.terminal.write(&text);
    Ok(report.exit)
}

/// A reload that waits until the GPUs are idle is to be known where one is planned.
fn pending(proposal: &Proposal, place: &mut Place) {
    // `status` reports what cannot be read.
    if proposal.command == Kind::Reload
        && let Ok(Some(request)) = ::request::read(&place.root)
    {
        let style = place.terminal.style();
        place.terminal.note(&view::request::note(&request, style));
    }
}

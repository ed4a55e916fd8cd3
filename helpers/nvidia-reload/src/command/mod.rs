//! What each subcommand does, from the arguments to the exit status.

mod explain;
mod give_back;
mod guard;
mod heal;
mod install;
mod reload;
mod request;
mod run;
mod stop;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use serde::Serialize;
use step::Root;

use crate::cli::{Check, Command, Output, Plan, Verify};
use crate::fault::{Fault, Result};
use crate::interrupt::Interrupt;
use crate::report::{Outcome, Report};
use crate::target::Target;
use crate::terminal::{Stream, Terminal};
use crate::{check, generate, kept, metrics, past, plan, status, verify, view};

/// What an interrupted command exits with, as shells do: 128 and SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Does what was typed.
pub fn dispatch(command: &Command) -> ExitCode {
    let (output, result) = match command {
        Command::Status(output) => (*output, status(*output)),
        Command::Verify(arguments) => (arguments.output, verify(arguments)),
        Command::Plan(arguments) => (arguments.output, plan(arguments)),
        Command::Reload(arguments) => (
            arguments.output,
            with_report(arguments.output, |place| reload::reload(Target::Reload, &[], arguments, place)),
        ),
        Command::Reset(arguments) => (
            arguments.reload.output,
            with_report(arguments.reload.output, |place| {
                reload::reload(Target::Reset, &arguments.gpus.ids, &arguments.reload, place)
            }),
        ),
        Command::Stop(arguments) => {
            (arguments.output, with_report(arguments.output, |place| stop::stop(arguments.offline, place)))
        }
        Command::Start(output) => (*output, with_report(*output, give_back::start)),
        Command::Rollback(arguments) => (
            arguments.reload.output,
            with_report(arguments.reload.output, |place| give_back::rollback(arguments, place)),
        ),
        Command::Recover(output) => (*output, with_report(*output, give_back::recover)),
        Command::Install(arguments) => (
            arguments.reload.output,
            with_report(arguments.reload.output, |place| install::install(arguments, place)),
        ),
        Command::Heal(arguments) => (arguments.output, heal::heal(arguments)),
        Command::Slots(output) => (*output, slots(*output)),
        Command::Request(arguments) => (arguments.output, request::request(arguments)),
        Command::Explain(arguments) => (Output { json: arguments.json }, explain::explain(arguments)),
        Command::Check(arguments) => (arguments.output, check(*arguments)),
        Command::Metrics { output } => (Output::default(), metrics(output.as_deref())),
        Command::Generate { directory } => (Output::default(), generate::generate(directory).map(|()| 0)),
    };
    ExitCode::from(result.unwrap_or_else(|fault| failed(&fault, output)))
}

/// Where a command works and where it tells.
pub struct Place {
    /// Where the file system starts.
    pub root: Root,
    /// Whoever reads what happens.
    pub terminal: Terminal,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

fn failed(fault: &Fault, output: Output) -> u8 {
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
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::status::status(&status, terminal.style(), SystemTime::now());
        terminal.write(&text);
    }
    Ok(0)
}

fn plan(arguments: &Plan) -> Result<u8> {
    let gpus = &arguments.gpus.ids;
    if !gpus.is_empty() && !arguments.reset {
        let error = "--gpu goes with --reset: a reload is of the driver, and so of all GPUs";
        return Err(Fault::new(step::Exit::Usage, error, "`nvidia-reload plan --reset --gpu ID`"));
    }
    guard::root("plan")?;
    let root = Root::system();
    let wanted = plan::Wanted {
        reset: arguments.reset.then_some(gpus.as_slice()),
        if_idle: arguments.if_idle,
        ..plan::Wanted::default()
    };
    let plan = plan::plan(&root, wanted)?;
    if arguments.output.json {
        print(&plan);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let style = terminal.style();
        let mut text = view::plan::plan(&plan, style);
        // What cannot be read is told by `status`.
        if let Ok(Some(request)) = ::request::read(&root) {
            text.push_str(&view::request::note(&request, style));
        }
        terminal.write(&text);
    }
    Ok(plan.verdict.exit() as u8)
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
    let list = kept::list(&Root::system())?;
    if output.json {
        print(&list);
    } else {
        let mut terminal = Terminal::new(Stream::Out);
        let text = view::kept::kept(&list, terminal.style(), SystemTime::now());
        terminal.write(&text);
    }
    Ok(list.exit() as u8)
}

fn check(arguments: Check) -> Result<u8> {
    let Check { format, output } = arguments;
    // A monitor takes 1 for a warning and 2 for an alarm: what cannot be told is 3.
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

fn with_report(output: Output, act: impl FnOnce(&mut Place) -> Result<Report>) -> Result<u8> {
    let stream = if output.json { Stream::Err } else { Stream::Out };
    // Before any thread is started, see there.
    let interrupt = Interrupt::watch();
    let mut place = Place { root: Root::system(), terminal: Terminal::new(stream), interrupt };
    let report = act(&mut place)?;
    if output.json {
        print(&report);
    } else {
        let text = view::report::report(&report, place.terminal.style());
        let text = match report.steps.is_empty() || report.outcome == Outcome::NothingToDo {
            true => text,
            false => format!("\n{text}"),
        };
        place.terminal.write(&text);
    }
    Ok(report.exit)
}

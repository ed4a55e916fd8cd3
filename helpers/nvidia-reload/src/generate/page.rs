// SPDX-License-Identifier: MIT
//! The pages of the command: what clap knows of it, and the sections that it does not know.

use std::io;

use clap_mangen::Man;
use roff::{Roff, bold, italic, roman};

/// Examples of a subcommand: what it is for, and what to type.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    ("status", &[
        ("Show the driver, and what uses the GPUs:", "nvidia-reload status"),
        ("Show the loaded version only:", "nvidia-reload status --json | jq -r .driver.loaded"),
    ]),
    ("verify", &[
        ("Check the driver and every GPU:", "nvidia-reload verify"),
        ("Also run the test program of the configuration:", "nvidia-reload verify --smoke"),
    ]),
    ("plan", &[
        ("Show what a reload would stop:", "nvidia-reload plan"),
        ("Show whether a reload would be refused, as JSON:", "nvidia-reload plan --json | jq '.verdict, .reasons'"),
    ]),
    ("reload", &[
        ("Show the plan, ask, and reload:", "nvidia-reload reload"),
        ("In a script, and only if no workload is stopped:", "nvidia-reload reload --yes --if-idle"),
    ]),
    ("reset", &[
        ("Reset all GPUs:", "nvidia-reload reset"),
        ("Reset one GPU; workloads of other GPUs continue:", "nvidia-reload reset --gpu 0000:3b:00.0"),
    ]),
    ("stop", &[
        ("Stop what uses the GPUs, and keep the driver loaded:", "nvidia-reload stop"),
        ("Also unload the driver, for example to replace it by hand:", "nvidia-reload stop --offline"),
    ]),
    ("start", &[("Load the driver on disk and restart what was stopped:", "nvidia-reload start")]),
    ("rollback", &[
        ("Go back to the previous driver:", "nvidia-reload rollback"),
        ("Go back to a certain one:", "nvidia-reload rollback 535.261.03"),
    ]),
    ("recover", &[("End a run that was interrupted:", "nvidia-reload recover")]),
    ("install", &[
        ("Install and load a driver:", "nvidia-reload install /root/NVIDIA-Linux-x86_64-570.124.04.run"),
        ("With an argument for NVIDIA's installer:", "nvidia-reload install /root/NVIDIA-Linux-x86_64-570.124.04.run -- --kernel-module-type=open"),
    ]),
    ("heal", &[
        ("Show what would be done, then do it:", "nvidia-reload heal --dry-run"),
        ("Without a question:", "nvidia-reload heal --yes"),
        ("End it before the reload:", "nvidia-reload heal --end"),
    ]),
    ("slots", &[("List the saved drivers:", "nvidia-reload slots")]),
    ("request", &[
        ("At the end of an upgrade by your own tool:", "nvidia-reload request --reason fleet-upgrade"),
        ("Cancel the request that waits:", "nvidia-reload request --cancel"),
    ]),
    ("explain", &[
        ("Explain two Xids:", "nvidia-reload explain 79 119"),
        ("Explain the kernel log of another machine:", "nvidia-reload explain --log kern.log"),
    ]),
    ("check", &[("In a monitoring check or a cron job:", "nvidia-reload check")]),
    ("metrics", &[("For the textfile collector of the node exporter:", "nvidia-reload metrics --output /var/lib/prometheus/node-exporter/nvidia-reload.prom")]),
    ("history", &[("List the runs on record:", "nvidia-reload history")]),
    ("logs", &[("Show the log of the last run:", "nvidia-reload logs")]),
    ("report", &[("Show what the last run did:", "nvidia-reload report")]),
];

/// Exit codes of the command.
const EXITS: &[(&str, &str)] = &[
    ("0", "Done. For a command that only shows something: nothing is wrong."),
    ("1", "Failed; everything was rolled back. For a command that only shows something: something is wrong."),
    ("2", "Wrong usage."),
    ("3", "Refused; nothing was touched."),
    (
        "4",
        "No reload can help now: nothing was touched, or a module is stuck in the kernel. The message says what helps.",
    ),
    ("5", "Done or rolled back, but something is not restored. The message names it."),
    ("130", "The command was interrupted. The run continues in systemd."),
];

/// Exit codes of `check`, as monitoring plugins have them.
const EXITS_OF_CHECK: &[(&str, &str)] = &[
    ("0", "The loaded and the installed driver match."),
    ("1", "A reload is needed."),
    ("2", "A GPU failed, a reset or a reboot is needed, or no driver is installed for the running kernel."),
    ("3", "Unknown."),
];

const FILES: &[(&str, &str)] = &[
    (
        "/etc/nvidia-reload/config.toml, /etc/nvidia-reload/conf.d/*.toml",
        "The configuration. See nvidia-reload-config(5).",
    ),
    ("/usr/lib/nvidia-reload/config.toml", "The defaults, with an explanation of each key."),
    ("/var/lib/nvidia-reload/ledger.jsonl", "The ledger: the record of the open run."),
    ("/var/lib/nvidia-reload/history/", "The ledgers of the last 50 runs."),
    ("/var/lib/nvidia-reload/slots/", "The saved drivers."),
    ("/run/nvidia-reload/request.json", "The reload that waits until the GPUs are idle."),
];

/// What to type for the subcommand `name`.
pub(super) fn examples(name: &str) -> &'static [(&'static str, &'static str)] {
    EXAMPLES.iter().find(|(of, _)| *of == name).map_or(&[], |(_, examples)| examples)
}

/// `nvidia-reload.8`.
pub(super) fn whole(command: &clap::Command, subcommands: &[&str]) -> io::Result<String> {
    let mut text = start(command, "nvidia-reload")?;
    Man::new(command.clone()).section("8").render_subcommands_section(&mut text)?;
    let mut roff = Roff::new();
    roff.control("SH", ["TERMS"]);
    for (term, meaning) in [
        ("step", "One systemd unit of a run."),
        ("ledger", "The record of a run, on disk."),
        ("slot", "A saved, complete copy of a driver."),
    ] {
        tagged(&mut roff, term, meaning);
    }
    roff.control("SH", ["NOTES"]);
    roff.text([roman(
        "Each run is a systemd target, and each step is a unit: see nvidia-reload.target(8). A run continues when \
         the command is interrupted. With nvidia_reload=0 on the kernel command line nothing is stopped or unloaded.",
    )]);
    exit_status(&mut roff, EXITS);
    let all = ["status", "plan", "reload", "rollback", "explain"];
    end(&mut roff, &all.iter().filter_map(|name| examples(name).first().copied()).collect::<Vec<_>>());
    let pages = subcommands.iter().map(|name| format!("nvidia-reload-{name}"));
    see_also(
        &mut roff,
        pages
            .map(|name| (name, "8"))
            .chain(OTHERS[1..].iter().map(|(name, section)| ((*name).to_owned(), *section))),
    );
    roff.to_writer(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The page of a subcommand.
pub(super) fn of_subcommand(command: &clap::Command) -> io::Result<String> {
    let name = command.get_name();
    let mut text = start(command, &format!("nvidia-reload-{name}"))?;
    let mut roff = Roff::new();
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        roff.control("SH", ["NOTES"]);
        notes(&mut roff, &after.to_string());
    }
    exit_status(&mut roff, if name == "check" { EXITS_OF_CHECK } else { EXITS });
    end(&mut roff, examples(name));
    see_also(&mut roff, OTHERS.map(|(name, section)| (name.to_owned(), section)).into_iter());
    roff.to_writer(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Lines of a terminal are neither stretched nor hyphenated.
const UNJUSTIFIED: &[u8] = b".ad l\n.nh\n";

/// The other pages.
const OTHERS: [(&str, &str); 5] = [
    ("nvidia-reload", "8"),
    ("nvidia-reload-config", "5"),
    ("nvidia-reload.target", "8"),
    ("journalctl", "1"),
    ("systemctl", "1"),
];

/// The sections that clap knows.
fn start(command: &clap::Command, name: &str) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone())
        .title(name.to_owned())
        .section("8")
        .source(format!("nvidia-reload {}", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    text.extend_from_slice(UNJUSTIFIED);
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    Ok(text)
}

/// Text as `--help` has it: a paragraph with lines that are indented is a table and keeps its lines.
fn notes(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        roff.control("PP", []);
        let lines: Vec<&str> = paragraph.lines().collect();
        if lines.iter().any(|line| line.starts_with("  ")) {
            roff.control("nf", []);
            lines.iter().for_each(|line| {
                roff.text([roman(*line)]);
            });
            roff.control("fi", []);
        } else {
            roff.text([roman(lines.join(" "))]);
        }
    }
}

fn exit_status(roff: &mut Roff, codes: &[(&str, &str)]) {
    roff.control("SH", ["EXIT STATUS"]);
    codes.iter().for_each(|(code, meaning)| tagged(roff, code, meaning));
}

fn end(roff: &mut Roff, examples: &[(&str, &str)]) {
    roff.control("SH", ["EXAMPLES"]);
    for (what, line) in examples {
        roff.control("PP", []);
        roff.text([roman(*what)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.text([bold(*line)]);
        roff.control("RE", []);
    }
    roff.control("SH", ["FILES"]);
    for (path, meaning) in FILES {
        roff.control("TP", []);
        roff.text([italic(*path)]);
        roff.text([roman(*meaning)]);
    }
}

pub(super) fn see_also(roff: &mut Roff, pages: impl Iterator<Item = (String, &'static str)>) {
    roff.control("SH", ["SEE ALSO"]);
    let pages: Vec<(String, &str)> = pages.collect();
    let mut inlines = Vec::new();
    for (position, (name, section)) in pages.iter().enumerate() {
        inlines.push(bold(name.clone()));
        let comma = if position + 1 == pages.len() { "" } else { ", " };
        inlines.push(roman(format!("({section}){comma}")));
    }
    roff.text(inlines);
}

pub(super) fn tagged(roff: &mut Roff, tag: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(tag)]);
    roff.text([roman(text)]);
}

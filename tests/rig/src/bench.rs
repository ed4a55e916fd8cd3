// SPDX-License-Identifier: MIT
//! `cargo rig bench`: what a reload costs, beside what people do without it, and how much the helpers
//! weigh.

mod report;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::crowd;
use crate::machine::{Machine, Spec};
use crate::scenario::{End, Limit, Output, Scenario};
use crate::stages;

const MIB: f64 = 1024.0 * 1024.0;
/// The largest that each may be.
const HELPER_MIB: f64 = 2.0;
const PACKAGE_MIB: f64 = 5.0;
const PEAK_MIB: f64 = 12.0;
const EMPTY_RATIO: f64 = 2.5;
const FIVE_RATIO: f64 = 1.0;
/// What a search may take of memory whatever a user does, in MiB.
const LARGE_MIB: f64 = 64.0;
/// What drain and restore of a crowd may take, of what the engine needs for the same.
const CROWD_RATIO: f64 = 1.15;
const CROWD_MIB: f64 = 15.0;
/// No faster than linearly, within the noise of a measurement.
const LINEAR: f64 = 1.1;
/// What is more than this times the committed figure got worse.
const WORSE: f64 = 1.15;

/// What the measurement in the machine prints.
#[derive(Deserialize)]
struct Measured {
    date: String,
    /// `kvm`, or `qemu` for software emulation.
    #[serde(rename = "virtual")]
    virtualization: String,
    cpus: u32,
    /// By the names that [`report`] shows.
    rows: BTreeMap<String, Row>,
    crowd: Crowd,
    bytes: BTreeMap<String, u64>,
    /// Each with the processes that it starts.
    peak_memory: BTreeMap<String, u64>,
    /// What NVIDIA's library takes in the process that verify starts to ask it.
    nvml_memory: u64,
}

/// One way, as often as it was measured.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    /// Until the command ends; of a boot, until all containers run again.
    seconds: Vec<f64>,
    /// From the moment a container stops to the moment it runs, of the one that took longest; empty where
    /// there was none.
    downtime: Vec<f64>,
}

/// Drain and restore of many containers, and the engine's own stop and start of them.
#[derive(Deserialize)]
struct Crowd {
    count: u32,
    stop: Vec<f64>,
    start: Vec<f64>,
    drain: Vec<f64>,
    restore: Vec<f64>,
    /// Of drain-containers, as it restarts them.
    peak_memory: u64,
}

/// A figure and its limit.
#[derive(Debug, Deserialize, Serialize)]
struct Figure {
    name: String,
    value: f64,
    /// None for what is only shown.
    limit: Option<f64>,
    unit: String,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, limit: impl Into<Option<f64>>, unit: &str) -> Self {
        Figure { name: name.into(), value, limit: limit.into(), unit: unit.to_owned() }
    }

    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.value > limit)
    }
}

/// All that is shown, and committed with the bench. Times are comparable within one of these only.
#[derive(Debug, Deserialize, Serialize)]
struct Report {
    date: String,
    machine: String,
    rows: BTreeMap<String, Row>,
    figures: Vec<Figure>,
}

/// Where the report goes besides standard output.
#[derive(Debug, Default, clap::Args)]
pub struct To {
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a bar chart of the downtimes to this file, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Make these the committed figures: tests/rig/bench/figures.json, docs/bench.svg, and the table in
    /// README.md
    #[arg(long)]
    save: bool,
}

/// Measures; prints the table and what got worse than the committed figures; writes what `to` asks for.
/// Whether all is within its limits.
pub fn bench(
    machine: &mut Machine,
    spec: &Spec,
    package: &Path,
    searches: &crowd::Searches,
    to: &To,
) -> Result<bool> {
    let scenario = Scenario::open(&folder())?;
    let mut file = tempfile::tempfile()?;
    let output = Output::StdoutTo(file.try_clone()?);
    match scenario.run(machine, spec, &[], &output, &Limit::default())? {
        End::Exit(0) => {}
        end => bail!("the measurement ended with {end:?}"),
    }
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let measured: Measured =
        serde_json::from_str(text.trim()).with_context(|| format!("the measurement printed: {text}"))?;
    let report = judge(measured, spec, fs::metadata(package)?.len(), searches)?;
    print!("{}\n{}", report::table(&report), report::figures(&report));
    let committed = folder().join("figures.json");
    match fs::read_to_string(&committed) {
        Ok(text) => {
            let before = serde_json::from_str(&text).with_context(|| committed.display().to_string())?;
            print!("\n{}", report::comparison(&before, &report));
        }
        Err(_) => println!("\nNo figures are committed yet: --save writes {}.", committed.display()),
    }
    write(&report, to)?;
    Ok(!report.figures.iter().any(Figure::is_over))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench")
}

fn write(report: &Report, to: &To) -> Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    let checkout = stages::checkout();
    let committed = |path: &str| to.save.then(|| checkout.join(path));
    for (path, text) in [
        (to.json.clone(), &json),
        (committed("tests/rig/bench/figures.json"), &json),
        (to.svg.clone(), &report::chart(report)),
        (committed("docs/bench.svg"), &report::chart(report)),
    ] {
        if let Some(path) = path {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    if let Some(readme) = committed("README.md") {
        let text = report::in_readme(&fs::read_to_string(&readme)?, report)?;
        fs::write(&readme, text).with_context(|| format!("cannot write {}", readme.display()))?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52 bytes")]
fn judge(measured: Measured, spec: &Spec, package_bytes: u64, searches: &crowd::Searches) -> Result<Report> {
    let row = |name: &str| measured.rows.get(name).with_context(|| format!("the measurement has no {name}"));
    let ratio = |of: fn(&Row) -> &Vec<f64>, name: &str, by: &str| -> Result<f64> {
        Ok(median(of(row(name)?)) / median(of(row(by)?)))
    };
    let seconds: fn(&Row) -> &Vec<f64> = |row| &row.seconds;
    let downtime: fn(&Row) -> &Vec<f64> = |row| &row.downtime;
    let mut figures = vec![
        Figure::new("empty reload / bare chain", ratio(seconds, "empty", "chain")?, EMPTY_RATIO, "x"),
        Figure::new("reload with 5 containers / by hand", ratio(seconds, "five", "hand")?, FIVE_RATIO, "x"),
        Figure::new("downtime, reload / by hand", ratio(downtime, "five", "hand")?, None, "x"),
        Figure::new("downtime, reload / reboot", ratio(downtime, "five", "reboot")?, 1.0, "x"),
        Figure::new("downtime, reload / kexec", ratio(downtime, "five", "kexec")?, 1.0, "x"),
    ];
    let Crowd { count, stop, start, drain, restore, peak_memory } = &measured.crowd;
    for (name, ours, engine) in [("drain", drain, stop), ("restore", restore, start)] {
        let name = format!("{name} of {count} / the engine's own");
        figures.push(Figure::new(name, median(ours) / median(engine), CROWD_RATIO, "x"));
    }
    figures.push(Figure::new(
        format!("peak memory, {count} containers"),
        *peak_memory as f64 / MIB,
        CROWD_MIB,
        "MiB",
    ));
    figures.push(Figure::new("package", package_bytes as f64 / MIB, PACKAGE_MIB, "MiB"));
    for (name, &bytes) in &measured.bytes {
        figures.push(Figure::new(format!("size of {name}"), bytes as f64 / MIB, HELPER_MIB, "MiB"));
    }
    for (name, &bytes) in &measured.peak_memory {
        let nvml = if name == "verify" { measured.nvml_memory } else { 0 };
        let name = format!("peak memory of {name}{}", if nvml > 0 { ", NVML's with it" } else { "" });
        let limit = PEAK_MIB + nvml as f64 / MIB;
        figures.push(Figure::new(name, bytes as f64 / MIB, limit, "MiB"));
    }
    if let [few, many] = searches.crowds.as_slice() {
        let growth = (many.scan / few.scan) / (f64::from(many.processes) / f64::from(few.processes));
        figures.push(Figure::new("search of 5,000 processes / fuser", few.scan / few.fuser, 1.0 / 3.0, "x"));
        figures.push(Figure::new("search of 5,000 processes / lsof", few.scan / few.lsof, 0.1, "x"));
        figures.push(Figure::new("search of 20,000, time a process", growth, LINEAR, "x"));
        figures.push(Figure::new(
            "search of 20,000, peak memory",
            many.peak_memory as f64 / MIB,
            20.0,
            "MiB",
        ));
        figures.push(Figure::new("search, GPUs idle", many.fast_path * 1000.0, 5.0, "ms"));
    }
    for crowd::Large { name, search, fuser, peak_memory, .. } in &searches.large {
        figures.push(Figure::new(format!("{name} / fuser"), search / fuser, 1.0, "x"));
        figures.push(Figure::new(
            format!("{name}, peak memory"),
            *peak_memory as f64 / MIB,
            LARGE_MIB,
            "MiB",
        ));
    }
    let Measured { date, virtualization, cpus, rows, .. } = measured;
    let machine = format!("{} in QEMU ({virtualization}, {cpus} CPUs), driver {}", spec.distro, spec.driver);
    Ok(Report { date, machine, rows, figures })
}

/// Of an even number the upper one; NaN of none, which is over no limit and shows in the table.
fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the machine prints it.
    pub(super) const PRINTED: &str = r#"{"date":"2026-11-26","virtual":"kvm","cpus":2,"rows":{
        "chain":{"seconds":[1.0],"downtime":[]},"empty":{"seconds":[2.9,3.0,3.1],"downtime":[]},
        "hand":{"seconds":[5.0],"downtime":[4.0]},"five":{"seconds":[4.5],"downtime":[3.0]},
        "reboot":{"seconds":[60.0],"downtime":[58.0]},"kexec":{"seconds":[30.0],"downtime":[29.0]}},
        "crowd":{"count":20,"stop":[2.0],"start":[2.0],"drain":[2.2],"restore":[2.4],"peak_memory":1048576},
        "bytes":{"verify":1048576},"peak_memory":{"verify":13631488,"restore":13631488},"nvml_memory":12582912}"#;

    pub(super) fn report() -> Report {
        let measured = serde_json::from_str(PRINTED).expect("decodes");
        let scan = |processes, scan, memory| crowd::Measured {
            processes,
            scan,
            fuser: 0.9,
            lsof: 4.0,
            fast_path: 0.001,
            peak_memory: memory,
        };
        let crowds = vec![scan(5_000, 0.31, 1 << 20), scan(20_000, 1.2, 30 << 20)];
        let searches = crowd::Searches { crowds, large: Vec::new() };
        judge(measured, &Spec::default(), 2 << 20, &searches).expect("judges")
    }

    #[test]
    fn what_is_over_its_limit_is_marked() {
        let over: Vec<String> =
            report().figures.into_iter().filter(Figure::is_over).map(|figure| figure.name).collect();
        assert_eq!(
            over,
            [
                "empty reload / bare chain",
                "restore of 20 / the engine's own",
                "peak memory of restore",
                "search of 5,000 processes / fuser",
                "search of 20,000, peak memory"
            ]
        );
    }

    #[test]
    fn a_row_that_is_missing_is_named() {
        let mut measured: Measured = serde_json::from_str(PRINTED).expect("decodes");
        measured.rows.remove("kexec");
        let error = judge(measured, &Spec::default(), 1, &crowd::Searches::default()).expect_err("must fail");
        assert!(error.to_string().contains("kexec"), "{error}");
    }
}

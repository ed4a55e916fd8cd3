//! `cargo rig bench`: how long a reload takes, against what is bare necessity,
//! and how much the helpers weigh.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::crowd;
use crate::machine::{Machine, Spec};
use crate::scenario::{End, Output, Scenario};

const MIB: f64 = 1024.0 * 1024.0;
/// The largest that each may be.
const HELPER_MIB: f64 = 2.0;
const PACKAGE_MIB: f64 = 5.0;
const PEAK_MIB: f64 = 12.0;
const EMPTY_RATIO: f64 = 2.5;
const FIVE_RATIO: f64 = 1.3;
/// What a search may take of memory whatever a user does, in MiB.
const LARGE_MIB: f64 = 64.0;
/// What drain and restore of a crowd may take, of what the engine needs for the same.
const CROWD_RATIO: f64 = 1.15;
const CROWD_MIB: f64 = 15.0;
/// No faster than linearly, within the noise of a measurement.
const LINEAR: f64 = 1.1;

/// What the measurement in the machine prints.
#[derive(Deserialize, Serialize)]
struct Measured {
    seconds: Seconds,
    bytes: BTreeMap<String, u64>,
    /// Each with the processes that it starts.
    peak_memory: BTreeMap<String, u64>,
    /// What NVIDIA's library takes in the process that verify starts to ask it.
    nvml_memory: u64,
    /// Drain and restore, by how many containers there are.
    #[serde(default)]
    containers: Vec<Containers>,
}

/// One number of containers.
#[derive(Deserialize, Serialize)]
struct Containers {
    count: u32,
    /// The engine's own stop and start, side by side, from the shell.
    stop: Series,
    start: Series,
    drain: Series,
    restore: Series,
    /// Of drain-containers, as it gives them back.
    peak_memory: u64,
}

#[derive(Deserialize, Serialize)]
struct Seconds {
    /// `modprobe -r` of the chain and `modprobe` back.
    floor_a: Series,
    /// `systemctl start` with nothing running.
    empty: Series,
    /// Floor A with five containers stopped and started by hand.
    floor_b: Series,
    /// A reload with those five.
    five: Series,
}

#[derive(Deserialize, Serialize)]
struct Series {
    median: f64,
    all: Vec<f64>,
}

/// A figure and its limit, as both the table and the JSON have it.
#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    limit: f64,
    unit: &'static str,
    ok: bool,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, limit: f64, unit: &'static str) -> Self {
        Figure { name: name.into(), value, limit, unit, ok: value <= limit }
    }
}

#[derive(Serialize)]
struct Report {
    measured: Measured,
    package_bytes: u64,
    searches: crowd::Searches,
    figures: Vec<Figure>,
}

/// Measures; prints the table, and writes the JSON where asked. Whether all is
/// within its limits.
pub fn bench(
    machine: &mut Machine,
    spec: &Spec,
    package: &Path,
    searches: crowd::Searches,
    json: Option<&Path>,
) -> Result<bool> {
    let scenario = Scenario::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("bench"))?;
    let mut file = tempfile::tempfile()?;
    let output = Output::StdoutTo(file.try_clone()?);
    match scenario.run(machine, spec, &[], &output, None)? {
        End::Exit(0) => {}
        end => bail!("the measurement ended with {end:?}"),
    }
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let measured: Measured =
        serde_json::from_str(text.trim()).with_context(|| format!("the measurement printed: {text}"))?;
    let report = judge(measured, fs::metadata(package)?.len(), searches);
    print!("{}", table(&report));
    if let Some(path) = json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.figures.iter().all(|figure| figure.ok))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52 bytes")]
fn judge(measured: Measured, package_bytes: u64, searches: crowd::Searches) -> Report {
    let seconds = &measured.seconds;
    let mut figures = vec![
        Figure::new(
            "empty reload / bare chain",
            seconds.empty.median / seconds.floor_a.median,
            EMPTY_RATIO,
            "x",
        ),
        Figure::new(
            "reload with 5 containers / by hand",
            seconds.five.median / seconds.floor_b.median,
            FIVE_RATIO,
            "x",
        ),
        Figure::new("package", package_bytes as f64 / MIB, PACKAGE_MIB, "MiB"),
    ];
    for (name, &bytes) in &measured.bytes {
        figures.push(Figure::new(format!("size of {name}"), bytes as f64 / MIB, HELPER_MIB, "MiB"));
    }
    for (name, &bytes) in &measured.peak_memory {
        let nvml = if name == "verify" { measured.nvml_memory } else { 0 };
        let name = format!("peak memory of {name}{}", if nvml > 0 { ", NVML's with it" } else { "" });
        let limit = PEAK_MIB + nvml as f64 / MIB;
        figures.push(Figure::new(name, bytes as f64 / MIB, limit, "MiB"));
    }
    for containers in &measured.containers {
        let Containers { count, stop, start, drain, restore, peak_memory } = containers;
        let ratio = |name, ours: &Series, engine: &Series| {
            Figure::new(
                format!("{name} of {count} / the engine's own"),
                ours.median / engine.median,
                CROWD_RATIO,
                "x",
            )
        };
        figures.push(ratio("drain", drain, stop));
        figures.push(ratio("restore", restore, start));
        let name = format!("peak memory, {count} containers");
        figures.push(Figure::new(name, *peak_memory as f64 / MIB, CROWD_MIB, "MiB"));
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
        figures.push(Figure::new("search, nobody there", many.fast_path * 1000.0, 5.0, "ms"));
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
    Report { measured, package_bytes, searches, figures }
}

fn table(report: &Report) -> String {
    let seconds = &report.measured.seconds;
    let mut text = String::from("seconds                                median   fastest   slowest\n");
    for (name, series) in [
        ("A: modprobe -r of the chain and back", &seconds.floor_a),
        ("empty reload", &seconds.empty),
        ("B: five containers by hand, and A", &seconds.floor_b),
        ("reload with five containers", &seconds.five),
    ] {
        let fastest = series.all.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = series.all.iter().copied().fold(0.0, f64::max);
        text.push_str(&format!("  {name:<36} {:>6.2} {fastest:>9.2} {slowest:>9.2}\n", series.median));
    }
    text.push_str("\nfigure                                  value     limit\n");
    for figure in &report.figures {
        let mark = if figure.ok { "" } else { "   over" };
        text.push_str(&format!(
            "  {:<36} {:>6.2} {:>9.2} {}{mark}\n",
            figure.name, figure.value, figure.limit, figure.unit
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_limit_is_marked() {
        let text = r#"{"seconds":{"floor_a":{"median":1.0,"all":[1.0]},"empty":{"median":3.0,"all":[2.9,3.0,3.1]},
            "floor_b":{"median":5.0,"all":[5.0]},"five":{"median":6.0,"all":[6.0]}},
            "bytes":{"verify":1048576},"peak_memory":{"verify":13631488,"restore":13631488},"nvml_memory":12582912,
            "containers":[{"count":5,"stop":{"median":2.0,"all":[]},"start":{"median":2.0,"all":[]},
                "drain":{"median":2.2,"all":[]},"restore":{"median":2.4,"all":[]},"peak_memory":1048576}]}"#;
        let report =
            serde_json::from_str(text).map(|measured| judge(measured, 1 << 20, crowd::Searches::default()));
        let Ok(report) = report else { panic!("not read: {text}") };
        let over: Vec<&str> = report.figures.iter().filter(|f| !f.ok).map(|f| f.name.as_str()).collect();
        assert_eq!(
            over,
            ["empty reload / bare chain", "peak memory of restore", "restore of 5 / the engine's own"]
        );
        assert!(table(&report).contains("   over"));
    }
}

// SPDX-License-Identifier: MIT
//! The same as `check`, for Prometheus: a file for the node exporter's textfile directory.

use std::fmt;
use std::path::Path;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use serde::Serialize;
use step::Exit;

use crate::check::{Checked, Condition};
use crate::fault::{Fault, Result};
use crate::past::Past;
use crate::report::Outcome;
use crate::runs::Summary;
use crate::view::text::clean;

type Labels = Vec<(&'static str, String)>;

/// The values of one metric, in the order in which they are written: the library's own families have none.
#[derive(Debug)]
struct Rows(Vec<(Labels, f64)>);

impl EncodeMetric for Rows {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::result::Result<(), fmt::Error> {
        for (labels, value) in &self.0 {
            match labels.is_empty() {
                true => put(&mut encoder, *value)?,
                false => put(&mut encoder.encode_family(labels)?, *value)?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A count and a yes are no fractions.
fn put(encoder: &mut MetricEncoder<'_>, value: f64) -> std::result::Result<(), fmt::Error> {
    match value.fract() == 0.0 && value.abs() < 1e15 {
        true => encoder.encode_gauge(&(value as i64)),
        false => encoder.encode_gauge(&value),
    }
}

/// `checked` and what was done before, in Prometheus' text format. Metrics that have no value are left out.
pub fn text(checked: &Checked, past: &Past) -> String {
    let mut registry = Registry::with_prefix("nvidia_reload");
    let mut family = |name: &str, help: &str, rows: Vec<(Labels, f64)>| {
        let escape = |(labels, value): (Labels, f64)| {
            let labels = labels.into_iter().map(|(name, text)| (name, escaped(&text))).collect();
            (labels, value)
        };
        registry.register(name, help, Rows(rows.into_iter().map(escape).collect()));
    };
    of_now(checked, &mut family);
    of_runs(past, &mut family);
    of_waiting(past, &mut family);
    let unseen = (checked.unseen.len() + past.unseen.len()) as f64;
    family("unseen", "Sources that could not be looked at", vec![(Vec::new(), unseen)]);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

/// Takes a metric: its name, what it means, and its values.
type Family<'a> = dyn FnMut(&str, &str, Vec<(Labels, f64)>) + 'a;

fn of_now(checked: &Checked, family: &mut Family<'_>) {
    let condition = |condition: Condition| {
        (vec![("condition", condition.key().to_owned())], f64::from(u8::from(condition == checked.condition)))
    };
    family(
        "condition",
        "What the driver needs: 1 for the one that holds",
        Condition::ALL.into_iter().map(condition).collect(),
    );
    let version = |version: &Option<String>| version.clone().unwrap_or_default();
    let versions = vec![
        ("loaded", version(&checked.driver.loaded)),
        ("on_disk", version(&checked.driver.on_disk)),
        ("library", version(&checked.library)),
    ];
    family("driver_info", "The driver's versions; empty for none", vec![(versions, 1.0)]);
    let healed = checked.healed.iter().map(|version| (vec![("version", version.clone())], 1.0));
    family(
        "healed",
        "The driver whose libraries are found before those on disk, until the reload",
        healed.collect(),
    );
    let gpus = checked.gpus.iter().map(|gpu| {
        (vec![("pci", gpu.pci.clone().unwrap_or_default()), ("class", gpu.class.name().to_owned())], 1.0)
    });
    family("gpu_class", "What each GPU needs, as `nvidia-reload explain` has it", gpus.collect());
}

/// The run that ended last, and the one that is open.
fn of_runs(past: &Past, family: &mut Family<'_>) {
    let one = |value: Option<f64>| value.map(|value| (Vec::new(), value)).into_iter().collect::<Vec<_>>();
    let last = |value: fn(&Summary) -> Option<f64>| one(past.last.as_ref().and_then(value));
    let outcomes = past.last.iter().flat_map(|run| {
        [Outcome::Done, Outcome::RolledBack, Outcome::Cancelled, Outcome::Degraded].map(|outcome| {
            (vec![("outcome", word(outcome))], f64::from(u8::from(run.result == Some(outcome))))
        })
    });
    family("last_run_outcome", "How the last run ended: 1 for the one that holds", outcomes.collect());
    family(
        "last_run_start_timestamp_seconds",
        "When the last run began",
        last(|run| Some(seconds(run.began_usec))),
    );
    family(
        "last_run_end_timestamp_seconds",
        "When the last run ended",
        last(|run| run.ended_usec.map(seconds)),
    );
    family("last_run_duration_seconds", "How long the last run took", last(|run| run.seconds));
    family(
        "last_run_downtime_seconds",
        "The longest time for which the last run stopped one workload; none where it stopped none, or one is not restored",
        last(|run| run.downtime_seconds),
    );
    family(
        "open_run_start_timestamp_seconds",
        "When the run began that is open",
        one(past.open.as_ref().map(|run| seconds(run.began_usec))),
    );
}

/// What waits, and what is saved.
fn of_waiting(past: &Past, family: &mut Family<'_>) {
    let request = past.request.as_ref();
    let state = request.map(|request| (vec![("state", word(request.state))], 1.0));
    family("request_state", "How far a request for a reload is", state.into_iter().collect());
    let asked = request.map(|request| (Vec::new(), seconds(request.asked_usec)));
    family("request_timestamp_seconds", "When a reload was asked for last", asked.into_iter().collect());
    let lease = past.lease.as_ref();
    let held = lease.map(|lease| {
        let state = word(lease.state);
        (vec![("group", lease.group.clone()), ("server", lease.server.clone()), ("state", state)], 1.0)
    });
    family("lease_state", "How far the lease of the fleet lock is", held.into_iter().collect());
    let since = lease.map(|lease| (Vec::new(), seconds(lease.since_usec)));
    family(
        "lease_state_timestamp_seconds",
        "Since when the lease of the fleet lock is as it is",
        since.into_iter().collect(),
    );
    let slot = |value: fn(&crate::past::Saved) -> f64| {
        past.slots
            .iter()
            .map(|slot| (vec![("version", slot.version.clone())], value(slot)))
            .collect::<Vec<_>>()
    };
    family(
        "slot_saved_timestamp_seconds",
        "When the driver was saved to its slot",
        slot(|slot| seconds(slot.made_usec)),
    );
    family("slot_size_bytes", "The bytes that the driver in its slot has", slot(|slot| slot.bytes as f64));
}

/// As the JSON of `check`, `request` and `status` has it: words for people may change.
fn word(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn seconds(usec: u64) -> f64 {
    usec as f64 / 1e6
}

/// A label's value as Prometheus reads it: the library writes it as it is, and a quotation mark or a line end in a
/// version would make another metric of the rest.
fn escaped(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Puts `text` into `path` in one go: a reader finds the old one or the new one.
///
/// # Errors
/// It cannot be written there.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let fault = |error: &dyn std::error::Error| {
        Fault::new(
            Exit::Failed,
            format!("cannot write {}", path.display()),
            "is it a file in a folder that is there and writable?",
        )
        .because(error)
    };
    files::replace(path, 0o644, text.as_bytes()).map_err(|error| fault(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::SCHEMA;
    use crate::gpus::Need;
    use crate::runs::in_short;
    use std::fs;
    use step::Versions;

    #[test]
    fn a_machine_that_needs_a_reload() {
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::ReloadNeeded,
            why: vec!["1 is loaded, 2 is on disk".into()],
            driver: Versions { loaded: Some("1".into()), on_disk: Some("2".into()) },
            library: Some("2".into()),
            healed: Some("1".into()),
            gpus: vec![Need { pci: Some("0000:3b:00".into()), class: xid::Class::Info, why: Vec::new() }],
            unseen: Vec::new(),
        };
        let text = text(&checked, &Past::default());
        for line in [
            "nvidia_reload_condition{condition=\"reload-needed\"} 1",
            "nvidia_reload_condition{condition=\"reboot-needed\"} 0",
            "nvidia_reload_driver_info{loaded=\"1\",on_disk=\"2\",library=\"2\"} 1",
            "nvidia_reload_gpu_class{pci=\"0000:3b:00\",class=\"info\"} 1",
            "nvidia_reload_healed{version=\"1\"} 1",
            "nvidia_reload_unseen 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_same_state_has_the_same_text() {
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::Match,
            why: Vec::new(),
            driver: Versions::default(),
            library: None,
            healed: None,
            gpus: (0..8u8)
                .map(|bus| Need {
                    pci: Some(format!("0000:{bus:02x}:00.0")),
                    class: xid::Class::Info,
                    why: Vec::new(),
                })
                .collect(),
            unseen: Vec::new(),
        };
        let first = text(&checked, &Past::default());
        assert!((0..20).all(|_| text(&checked, &Past::default()) == first));
        let gpus: Vec<&str> =
            first.lines().filter(|line| line.starts_with("nvidia_reload_gpu_class{")).collect();
        assert!(gpus.is_sorted() && gpus.len() == 8, "{first}");
        assert!(first.ends_with("# EOF\n"), "{first}");
    }

    #[test]
    fn a_label_is_one_label_whatever_is_in_it() {
        let long = "9".repeat(100_000);
        let odd = format!("5\"}} 1\nforged 1\n\x1b[2J\\{long}");
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::ReloadNeeded,
            why: Vec::new(),
            driver: Versions { loaded: Some(odd), on_disk: Some(String::from_utf8_lossy(b"\xff").into()) },
            healed: None,
            library: None,
            gpus: Vec::new(),
            unseen: Vec::new(),
        };
        let text = text(&checked, &Past::default());
        assert!(
            !text.lines().any(|line| line.starts_with("forged")) && !text.contains('\x1b'),
            "{text:.400}"
        );
        // Backslashes of the escapes are escaped themselves: Prometheus knows three escapes and no others.
        let value = format!(
            r#"{{loaded="5\"}} 1\\nforged 1\\n\\x1b[2J\\{long}",on_disk="{}",library=""}} 1"#,
            '\u{fffd}'
        );
        assert!(text.contains(&value), "{text:.400}");
    }

    #[test]
    fn what_was_done_waits_and_is_saved_has_its_metrics_in_one_order() {
        use ledger::{Event, Object, Record, Snapshot, Step, Unit};
        let unit = Object::Unit(Unit { name: "a.service".into(), user: None, role: "holder".into() });
        let events = [
            Event::Opened { snapshot: Box::new(Snapshot::default()) },
            Event::Intent { id: 1, step: Step::StopUnits, object: unit },
            Event::Done { id: 1 },
            Event::Committed,
            Event::Undone { id: 1 },
            Event::Closed { outcome: ledger::Outcome::Done },
        ];
        let record = |(at, event): (u64, &Event)| Record {
            v: 1,
            run: "r".into(),
            boot: "b".into(),
            realtime_usec: 1_795_000_000_000_000 + at * 1_250_000,
            event: event.clone(),
        };
        let records: Vec<Record> = (0..).zip(&events).map(record).collect();
        let run = |length: usize| {
            let records = records[..length].to_vec();
            let run = ledger::Run::from_records(&records).expect("adds up");
            in_short(&step::Root::at("/nonexistent"), &ledger::Recorded { run, records })
        };
        let json = serde_json::json!({
            "schema": "nvidia-reload.request/1", "reasons": ["dpkg"], "asked_usec": 1_795_000_100_000_000_u64,
            "state": "waiting-for-lock", "since_usec": 1, "because": [],
        });
        let lease = serde_json::json!({
            "schema": "nvidia-reload.lease/1", "server": "https://lock/\"base", "group": "gpus", "id": "n1",
            "state": "held", "since_usec": 1_795_000_200_500_000_u64, "run": "r", "trouble": null,
        });
        let saved = |version: &str| crate::past::Saved {
            version: version.into(),
            made_usec: 1_794_000_000_000_000,
            bytes: 1 << 30,
        };
        let past = Past {
            open: Some(run(3)),
            last: Some(run(6)),
            request: serde_json::from_value(json).expect("is a request"),
            lease: serde_json::from_value(lease).expect("is a lease"),
            slots: vec![saved("550"), saved("535")],
            unseen: vec!["a".into()],
        };
        let checked = Checked {
            schema: SCHEMA,
            condition: Condition::Match,
            why: Vec::new(),
            driver: Versions { loaded: Some("1".into()), on_disk: Some("1".into()) },
            library: None,
            healed: None,
            gpus: Vec::new(),
            unseen: Vec::new(),
        };
        let page = text(&checked, &past);
        insta::assert_snapshot!(page);
        assert_eq!(page, text(&checked, &past), "the same again, line by line");
    }

    #[test]
    fn a_file_is_replaced_and_a_folder_that_is_missing_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("nvidia.prom");
        write(&path, "a\n").expect("writes");
        write(&path, "b\n").expect("writes again");
        assert_eq!(fs::read_to_string(&path).expect("reads"), "b\n");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
        let fault = write(Path::new("/no/such/folder/x.prom"), "").expect_err("must fail");
        assert!(fault.error.contains("/no/such/folder/x.prom"));
    }
}

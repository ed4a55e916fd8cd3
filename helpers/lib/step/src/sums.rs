// SPDX-License-Identifier: MIT
//! The limits of waits, added up: what a unit may wait for in a row, at the limits that the configuration
//! allows, fits into the unit's own timeout. The constants are read from where they stand.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ledger::Step;

use crate::sibling::undo_unit;
use crate::undo_limit;

/// One order to a container: it is taken, and the engine goes away once meanwhile.
const ORDER: [(&str, &str); 2] =
    [("lib/engines/src/api.rs", "ORDER"), ("lib/engines/src/drive.rs", "DEADLINE")];

/// One order to a unit, by the sibling.
const UNIT: (&str, &str) = ("lib/step/src/manager.rs", "PATIENCE");

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The seconds of `const NAME: Duration = Duration::from_secs(…)` in a file of the helpers.
fn of((file, name): (&str, &str)) -> u64 {
    let text = text(&format!("helpers/{file}"));
    let start = format!("const {name}: Duration = Duration::from_secs(");
    let (_, rest) = text.split_once(&start).unwrap_or_else(|| panic!("{file} has no {name}"));
    let (sum, _) = rest.split_once(");").expect("ends");
    let product =
        |term: &str| term.split('*').map(|one| one.trim().parse::<u64>().expect(sum)).product::<u64>();
    sum.split('+').map(product).sum()
}

fn all(constants: &[(&str, &str)]) -> u64 {
    constants.iter().map(|constant| of(*constant)).sum()
}

/// The most that the configuration allows for `key`.
fn most(key: &str) -> u64 {
    let text = text("helpers/lib/step/src/config.rs");
    let field = key.replace('-', "_");
    let line = text.lines().find(|line| line.contains(&format!("\"{key}\", self.{field},")));
    let line = line.unwrap_or_else(|| panic!("no limit for {key}"));
    let (_, number) = line.trim_end().trim_end_matches("),").rsplit_once(", ").expect("has a limit");
    number.parse().expect("is a number")
}

fn unit(step: Step, key: &str) -> u64 {
    of_unit(&step.unit(), key)
}

fn of_unit(unit: &str, key: &str) -> u64 {
    let text = text(&format!("units/{unit}"));
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    let value = value.unwrap_or_else(|| panic!("{unit} has no {key}"));
    match value.strip_suffix("min") {
        Some(minutes) => 60 * minutes.parse::<u64>().expect("is a number"),
        None => value.trim_end_matches('s').parse().expect("is a number"),
    }
}

fn health() -> u64 {
    let text = text("helpers/lib/step/src/config.rs");
    let (_, rest) = text.split_once("self.containers.health_timeout > ").expect("has a limit");
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("is a number")
}

/// What asking the fleet's lock takes: the record is locked twice, a unit asks between, and one is queued.
fn lease() -> u64 {
    2 * of(("lib/fleetlock/src/lease.rs", "LOCK_TIME"))
        + of_unit("nvidia-reload-lock.service", "TimeoutStartSec")
        + of(("lib/bus/src/connect.rs", "PATIENCE"))
}

/// What a step may wait for in a row while it runs.
fn run(step: Step) -> u64 {
    let udev = of(("lib/modules/src/gate.rs", "UDEV"));
    // The modules of the driver, and as many of others that stand on it.
    let modules = 8;
    match step {
        Step::Preflight => {
            // Each sibling is asked once for what would be stopped.
            2 * of(("preflight/src/sibling.rs", "SIBLING"))
                + all(&[
                    ("preflight/src/package.rs", "TIME"),
                    ("preflight/src/choose.rs", "TIME"),
                    ("preflight/src/gpus.rs", "TIME"),
                    ("preflight/src/predict/userland.rs", "RPM"),
                    ("preflight/src/predict/userland.rs", "RPM"),
                    ("lib/messages/src/journal.rs", "TIME"),
                    ("lib/step/src/units.rs", "TIME"),
                ])
                + lease()
        }
        Step::DrainContainers => {
            let stop = most("containers.stop-timeout-max");
            let system = of(UNIT) + of(("lib/engines/src/api.rs", "PATIENCE")) + stop + all(&ORDER);
            let users = stop + of(("drain-containers/src/take.rs", "USER"));
            // The kubelet; the survey once more; its containers.
            let survey = of(("lib/engines/src/api.rs", "PATIENCE"));
            let pods = of(UNIT) + survey + stop + of(("lib/cri/src/lib.rs", "PATIENCE"));
            system + users + pods
        }
        Step::StopUnits => {
            let last = of(("stop-units/src/stop.rs", "MOST"));
            let users =
                of(("stop-units/src/users.rs", "PLAN")) + of(("stop-units/src/users.rs", "CALL")) + 2 * last;
            let rounds = 3;
            most("units.stop-timeout") + rounds * (of(("stop-units/src/wanted.rs", "SURVEY")) + users)
        }
        Step::KillHolders => {
            2 * most("processes.grace")
                + all(&[("kill-holders/src/main.rs", "CLEANUP"), ("kill-holders/src/main.rs", "SETTLE")])
        }
        Step::UnbindVt => 0,
        Step::RmmodChain => {
            let exit = of(("lib/modules/src/unload.rs", "EXIT"));
            udev + modules * (of(("rmmod-chain/src/main.rs", "PATIENCE")) + exit)
        }
        Step::GpuReset => {
            run(Step::RmmodChain)
                + all(&[("gpu-reset/src/main.rs", "MODE"), ("gpu-reset/src/main.rs", "RESET")])
                + undo(Step::RmmodChain)
                + run(Step::Verify)
        }
        Step::InstallDriver => all(&[
            ("install-driver/src/disk.rs", "WAIT"),
            ("install-driver/src/packages.rs", "BEFORE"),
            UNIT,
            ("lib/slots/src/lock.rs", "RUN_TIME"),
            ("install-driver/src/exchange.rs", "INSTALLER"),
        ]),
        Step::ModprobeChain => of(("modprobe-chain/src/main.rs", "LOADS")) + udev,
        Step::Verify => all(&[("verify/src/nvml.rs", "TIME"), ("lib/messages/src/journal.rs", "TIME")]),
        Step::Settings | Step::Restore | Step::Rollback => unreachable!("their waits are undos"),
    }
}

/// What the undo of a step may wait for in a row.
fn undo(step: Step) -> u64 {
    let stopping = of(("lib/step/src/shutdown.rs", "PATIENCE"));
    match step {
        Step::DrainContainers => {
            let wave = of(("drain-containers/src/restore.rs", "PATIENCE")) + all(&ORDER) + health();
            let cdi = of(UNIT) + of(("drain-containers/src/cdi/refresh.rs", "PATIENCE"));
            let users =
                all(&[("lib/step/src/sibling.rs", "USERS"), ("drain-containers/src/restore.rs", "USER")]);
            // Before CDI and after it; the kubelet; its pods.
            // What NVIDIA's hook fails is tried once more, behind a restart of the engine.
            let renewed = of(UNIT) + all(&ORDER) + health();
            stopping + 2 * wave + renewed + cdi + of(UNIT) + most("containers.pods-timeout") + users
        }
        Step::StopUnits => {
            let bus = of(("lib/bus/src/connect.rs", "PATIENCE"));
            // Sockets, the ranks of services, which share the time of two, and the rest.
            let (waves, ranks) = (4, 6);
            let starts = waves * of(("stop-units/src/start.rs", "PATIENCE"))
                + (ranks + 2) * of(("lib/bus/src/follow.rs", "ABSENCE"))
                + 2 * of(("stop-units/src/failed_services.rs", "STAYS"));
            4 * bus + starts + of(("stop-units/src/users.rs", "RESTORE"))
        }
        Step::InstallDriver => {
            let index = of(("lib/slots/src/place.rs", "INDEX"));
            of(("install-driver/src/packages.rs", "BACK"))
                + of(("lib/slots/src/lock.rs", "RUN_TIME"))
                + 2 * index
                // Whose the replaced files are.
                + of(("lib/slots/src/rpm.rs", "PATIENCE"))
        }
        // The lease is released by a unit that is queued.
        Step::Preflight => {
            stopping
                + of(UNIT)
                + of(("lib/fleetlock/src/lease.rs", "LOCK_TIME"))
                + of(("lib/bus/src/connect.rs", "PATIENCE"))
        }
        Step::RmmodChain | Step::GpuReset => of(("rmmod-chain/src/back.rs", "ALL")),
        Step::ModprobeChain => of(("modprobe-chain/src/main.rs", "UNDO")),
        Step::Settings => of(("settings/src/main.rs", "TIME")),
        // Each of the undos that it runs may have to be stopped.
        Step::Restore => {
            4 * (of(("lib/bus/src/connect.rs", "PATIENCE")) + of(("stop-units/src/single.rs", "PATIENCE")))
        }
        Step::KillHolders | Step::UnbindVt | Step::Verify | Step::Rollback => 0,
    }
}

fn steps() -> impl Iterator<Item = Step> {
    Step::ALL.into_iter().chain([Step::GpuReset])
}

#[test]
fn what_a_step_may_wait_for_fits_into_its_unit() {
    for step in steps().filter(|step| *step != Step::Restore) {
        let (sum, limit) = (run(step), unit(step, "TimeoutStartSec"));
        assert!(sum < limit, "{}: its waits add up to {sum} s, TimeoutStartSec= is {limit} s", step.name());
    }
}

#[test]
fn what_an_undo_may_wait_for_fits_into_its_limit() {
    for step in steps().chain([Step::Settings]) {
        let (sum, limit) = (undo(step), undo_limit(step).as_secs());
        assert!(sum <= limit, "{}: its undo waits for {sum} s, its limit is {limit} s", step.name());
    }
}

#[test]
fn a_unit_gives_its_undo_the_same_limit_or_the_undo_asks_for_it() {
    for step in steps() {
        let stop = unit(step, "TimeoutStopSec");
        let asks = matches!(step, Step::RmmodChain | Step::GpuReset | Step::ModprobeChain);
        if asks {
            let file = if step == Step::ModprobeChain {
                "modprobe-chain/src/main.rs"
            } else {
                "rmmod-chain/src/back.rs"
            };
            let code = text(&format!("helpers/{file}"));
            assert!(code.contains("context.needs("), "{file} asks for nothing");
        } else {
            assert_eq!(stop, undo_limit(step).as_secs(), "{}", step.name());
        }
    }
}

#[test]
fn the_unit_of_an_undo_has_its_limit() {
    for step in steps().chain([Step::Settings]) {
        let unit = undo_unit(step);
        if Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../units").join(&unit).exists() {
            assert_eq!(of_unit(&unit, "TimeoutStartSec"), undo_limit(step).as_secs(), "{unit}");
        }
    }
}

/// restore and rollback run the undos of others; for each `undo_steps` asks systemd for its limit.
#[test]
fn those_who_run_undos_ask_for_their_time() {
    let code = text("helpers/lib/step/src/sibling.rs");
    let (_, body) = code.split_once("pub fn undo_steps(").expect("is there");
    let (body, _) = body.split_once("\n}\n").expect("ends");
    assert!(body.contains("context.needs(limit + MARGIN)") && body.contains("context.needs(REST)"), "{body}");
    for helper in ["restore", "rollback"] {
        assert!(text(&format!("helpers/{helper}/src/main.rs")).contains("undo_steps(context, "), "{helper}");
    }
    // Before the first undo: what the units say themselves.
    let before = of(("lib/step/src/units.rs", "TIME")) + of(UNIT);
    for step in [Step::Restore, Step::Rollback] {
        assert!(before < unit(step, "TimeoutStartSec"), "{}", step.name());
    }
    // After them: a boot's driver is exchanged.
    let after = of(("rollback/src/main.rs", "LOADS"))
        + 8 * (of(("rollback/src/main.rs", "PATIENCE")) + of(("lib/modules/src/unload.rs", "EXIT")));
    assert!(after < of(("lib/step/src/sibling.rs", "REST")), "{after} s");
}

#[test]
fn the_command_waits_longer_than_a_whole_run() {
    let forward: u64 =
        steps().filter(|step| *step != Step::Restore).map(|step| unit(step, "TimeoutStartSec")).sum();
    let undos: Duration = Step::TAKING.into_iter().map(undo_limit).sum();
    // restore, the undos of the steps, rollback.
    let run = forward + 3 * undos.as_secs() + unit(Step::Rollback, "TimeoutStartSec");
    let limit = of(("nvidia-reload/src/follow/mod.rs", "LIMIT"));
    assert!(run < limit, "a run may take {run} s, and the command waits {limit} s");
}

#[test]
fn who_asks_another_helper_waits_longer_than_that_helper() {
    let nvml = of(("verify/src/nvml.rs", "TIME")) + of(("lib/messages/src/journal.rs", "TIME"));
    assert!(nvml + most("verify.smoke-timeout") < of(("nvidia-reload/src/verify.rs", "PATIENCE")));
    // A plan neither waits for packages nor asks for a lease.
    let plan = run(Step::Preflight) - of(("preflight/src/package.rs", "TIME")) - lease();
    assert!(plan < of(("upgrade/src/idle.rs", "PLAN")), "{plan} s");
    assert!(of(("stop-units/src/wanted.rs", "SURVEY")) < of(("preflight/src/sibling.rs", "SIBLING")));
    assert!(of(("stop-units/src/users.rs", "RESTORE")) < of(("lib/step/src/sibling.rs", "USERS")));
    assert!(of(("stop-units/src/single.rs", "LIMIT")) < of(UNIT));
    // Slurm is asked beside the siblings, by a unit: node, jobs, and the node's state.
    let slurm = of_unit("nvidia-reload-slurm.service", "TimeoutStartSec");
    assert!(3 * of(("lib/slurm/src/ask.rs", "TIME")) < slurm);
    assert!(slurm < of(("stop-units/src/single.rs", "PATIENCE")));
    assert!(of(UNIT) < of(("preflight/src/sibling.rs", "SIBLING")));
    // logind is asked beside them.
    assert!(of(("lib/step/src/inhibitors.rs", "TIME")) < of(("preflight/src/sibling.rs", "SIBLING")));
    assert!(2 * of(("lib/bus/src/connect.rs", "PATIENCE")) < of(("lib/step/src/inhibitors.rs", "TIME")));
    // The fleet's lock is asked with the record locked.
    let asks = of(("fleet-lock/src/client.rs", "TIME"));
    let lock = of(("lib/fleetlock/src/lease.rs", "LOCK_TIME"));
    assert!(asks < lock);
    for unit in ["nvidia-reload-lock.service", "nvidia-reload-unlock.service"] {
        let time = of_unit(unit, "TimeoutStartSec");
        assert!(lock + asks < time && time < of(("stop-units/src/single.rs", "PATIENCE")), "{unit}");
    }
    let verified = nvml + 2 * lock;
    assert!(verified < of_unit("nvidia-reload-steady.service", "TimeoutStartSec"), "{verified} s");
    let run =
        of(("nvidia-reload/src/follow/mod.rs", "LIMIT")) + of(("nvidia-reload/src/plan.rs", "PATIENCE"));
    assert!(run < of(("upgrade/src/reload.rs", "RUN")));
    let check = of(("check-initramfs/src/main.rs", "MAKE"));
    assert!(
        text("units/nvidia-reload-check-initramfs.service").contains("TimeoutStartSec=15min") && check < 900
    );
}

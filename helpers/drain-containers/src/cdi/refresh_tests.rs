// SPDX-License-Identifier: MIT
use super::*;

/// A root with specifications, and a program in the place of the toolkit's.
struct Machine {
    _directory: tempfile::TempDir,
    root: Root,
    program: String,
}

impl Machine {
    /// `script` finds the path that it is to write in `$output`.
    fn new(script: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = Root::at(directory.path());
        for path in ["/proc", "/etc/cdi", "/dev"] {
            fs::create_dir_all(root.path(path)).expect("creates");
        }
        let program = root.path("/nvidia-ctk");
        let text = format!(
            "echo \"$*\" >>{}\nfor word; do case $word in --output=*) output=${{word#*=}} ;; esac; done\n{script}",
            root.path("/asked").display()
        );
        golden::script(&program, &text);
        let program = program.to_str().expect("is text").to_owned();
        Self { _directory: directory, root, program }
    }

    fn write(&self, path: &str, kind: &str, names: &[&str], file: &str) {
        fs::write(self.root.path(path), spec(kind, names, file)).expect("writes");
    }

    fn rewrite(&self, path: &str) -> Result<()> {
        let (all, _) = specs(&self.root).expect("looks");
        let old = all.iter().find(|spec| spec.path == path).expect("is there");
        let others: Vec<&Spec> = all.iter().filter(|spec| spec.path != path).collect();
        rewrite(&self.root, &self.program, 0, old, &others, Instant::now() + Duration::from_secs(5))
    }

    fn asked(&self) -> String {
        let asked = fs::read_to_string(self.root.path("/asked")).unwrap_or_default();
        let draft = format!("--output={} ", self.root.path("/run/nvidia-reload/cdi/0.json").display());
        asked.trim().replace(&draft, "")
    }
}

/// Of one mount, from `file` of the host.
fn spec(kind: &str, names: &[&str], file: &str) -> String {
    let devices: Vec<_> = names.iter().map(|name| serde_json::json!({"name": name})).collect();
    let edits = serde_json::json!({"mounts": [{"hostPath": file, "containerPath": file}]});
    serde_json::json!({"kind": kind, "devices": devices, "containerEdits": edits}).to_string()
}

#[test]
fn each_kind_is_written_as_what_it_was() {
    for (kind, names, arguments) in [
        ("nvidia.com/gpu", &["0", "1", "all"][..], "--format=json --device-name-strategy=index"),
        ("nvidia.com/gpu", &["GPU-1", "all"], "--format=json --device-name-strategy=uuid"),
        (
            "nvidia.com/gpu",
            &["0", "GPU-1"],
            "--format=json --device-name-strategy=index --device-name-strategy=uuid",
        ),
        ("nvidia.com/gpu", &["gpu0", "mig1:0"], "--format=json --device-name-strategy=type-index"),
        (
            "nvidia.com/gpu",
            &["0:1", "MIG-7"],
            "--format=json --device-name-strategy=index --device-name-strategy=uuid",
        ),
        (
            "management.nvidia.com/gpu",
            &["all"],
            "--format=json --mode=management --vendor=management.nvidia.com --class=gpu",
        ),
        (
            "runtime.nvidia.com/gpu",
            &["0"],
            "--format=json --vendor=runtime.nvidia.com --class=gpu --device-name-strategy=index",
        ),
        ("nvidia.com/gds", &["all"], "--format=json --mode=gds --vendor=nvidia.com --class=gds"),
        (
            "nvidia.com/imex-channel",
            &["0"],
            "--format=json --mode=imex --vendor=nvidia.com --class=imex-channel",
        ),
    ] {
        let machine = Machine::new(&format!("echo '{}' >\"$output\"", spec(kind, names, "/dev")));
        machine.write("/etc/cdi/x.json", kind, names, "/gone");
        machine.rewrite("/etc/cdi/x.json").expect("is written");
        assert_eq!(machine.asked(), format!("cdi generate {arguments}"), "{kind} {names:?}");
        let (all, _) = specs(&machine.root).expect("looks");
        assert_eq!(all.len(), 1, "{kind}: no draft is left where engines look");
        assert_eq!(all[0].problems(&machine.root), [""; 0], "{kind}");
        assert!(!machine.root.path("/run/nvidia-reload/cdi/0.json").exists());
    }
}

#[test]
fn what_is_not_known_is_left_and_no_program_asked() {
    for (kind, names, why) in [
        ("k8s.device-plugin.nvidia.com/gpu", &["GPU-1"][..], "the device plugin's"),
        ("nvidia.com/pgpu", &["0"], "nvidia.com/pgpu"),
        ("nvidia.com/gpu", &["mine"], "\"mine\""),
    ] {
        let machine = Machine::new("exit 1");
        machine.write("/etc/cdi/x.json", kind, names, "/gone");
        let error = format!("{:#}", machine.rewrite("/etc/cdi/x.json").expect_err("is left"));
        assert!(error.contains(why), "{error}");
        assert_eq!(machine.asked(), "", "{kind}");
    }
}

#[test]
fn what_the_toolkit_makes_has_to_be_what_the_old_one_was() {
    // An old toolkit makes its plain one, whatever is asked for.
    for (made, kind, names, why) in [
        (
            spec("nvidia.com/gpu", &["0", "all"], "/dev"),
            "management.nvidia.com/gpu",
            &["all"][..],
            "kind nvidia.com/gpu",
        ),
        (
            spec("nvidia.com/gpu", &["0", "all"], "/dev"),
            "nvidia.com/gpu",
            &["GPU-1"],
            "without the device GPU-1",
        ),
        (spec("nvidia.com/gpu", &["0"], "/gone-too"), "nvidia.com/gpu", &["0"], "does not fit either"),
        (
            spec("nvidia.com/gpu", &["0", "7"], "/dev"),
            "nvidia.com/gpu",
            &["0"],
            "which is defined in /etc/cdi/y.json",
        ),
        ("torn".to_owned(), "nvidia.com/gpu", &["0"], "kind unknown"),
    ] {
        let machine = Machine::new(&format!("echo '{made}' >\"$output\""));
        machine.write("/etc/cdi/x.json", kind, names, "/gone");
        machine.write("/etc/cdi/y.json", "nvidia.com/gpu", &["7"], "/dev");
        let error = format!("{:#}", machine.rewrite("/etc/cdi/x.json").expect_err("is left"));
        assert!(error.contains(why), "{error}");
        let now = fs::read_to_string(machine.root.path("/etc/cdi/x.json")).expect("reads");
        assert_eq!(now, spec(kind, names, "/gone"), "the old one stays");
    }
}

#[test]
fn a_toolkit_that_hangs_is_killed_and_one_that_is_missing_is_named() {
    let machine = Machine::new("sleep 60 & wait");
    let run = |program: &str| by_program(program, "/x", &[], Instant::now() + Duration::from_millis(500));
    assert_eq!(run(&machine.program).expect_err("hangs").kind(), ErrorKind::TimedOut);
    assert!(!run("/no/such/nvidia-ctk").expect("is missing"));
    let machine = Machine::new("exit 3");
    assert!(run(&machine.program).expect_err("fails").to_string().contains("exit status: 3"));
}

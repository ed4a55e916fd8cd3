// SPDX-License-Identifier: MIT
use super::*;
use std::collections::BTreeMap;

/// A host with the nodes of driver 550, one of them under another name, and one that is no GPU.
struct Fixture(BTreeMap<&'static str, Number>);

fn host() -> Fixture {
    Fixture(BTreeMap::from([
        ("/dev/nvidia0", (195, 0)),
        ("/dev/nvidiactl", (195, 255)),
        ("/dev/nvidia-uvm", (510, 0)),
        ("/dev/dri/card0", (226, 0)),
        ("/dev/dri/card1", (226, 1)),
        ("/dev/mygpu", (195, 1)),
        ("/dev/nvidia-fake", (1, 3)),
        ("/dev/null", (1, 3)),
    ]))
}

impl Host for Fixture {
    fn class(&self, number: Number) -> Option<String> {
        match number {
            (195, _) => Some("nvidia".into()),
            (510, _) => Some("nvidia-uvm".into()),
            (226, 1) => Some("a DRM node of nvidia".into()),
            _ => None,
        }
    }

    fn at(&self, path: &str) -> Found {
        let below = format!("{path}/");
        let found: Vec<_> = self
            .0
            .iter()
            .filter(|(node, _)| **node == path || node.starts_with(&below))
            .map(|(node, number)| ((*node).to_owned(), *number))
            .collect();
        if found.is_empty() && path.starts_with("/dev") { Found::Missing } else { Found::Devices(found) }
    }
}

fn decode(json: &str) -> Inspect {
    serde_json::from_str(json).expect("is an answer")
}

fn reasons(json: &str, evidence: Evidence<'_>) -> String {
    let why = why(&decode(json), &host(), evidence);
    why.iter().map(Why::to_string).collect::<Vec<_>>().join("; ")
}

fn given(host_config: &str) -> String {
    reasons(&format!("{{\"HostConfig\":{host_config}}}"), Evidence::default())
}

fn environment_of(runtime: Runtime<'_>, env: &str) -> String {
    let json = format!("{{\"Config\":{{\"Env\":{env}}}}}");
    reasons(&json, Evidence { runtime, ..Evidence::default() })
}

fn bundle(devices: &[(&str, Number)]) -> Bundle {
    let devices = devices.iter().map(|(path, number)| ((*path).to_owned(), *number)).collect();
    Bundle { devices, ..Bundle::default() }
}

#[test]
fn a_device_counts_by_its_number() {
    let device = |path: &str| {
        given(&format!(
            "{{\"Devices\":[{{\"PathOnHost\":\"{path}\",\"PathInContainer\":\"/dev/x\",\"CgroupPermissions\":\"rwm\"}}]}}"
        ))
    };
    assert_eq!(device("/dev/nvidia0"), "was given /dev/nvidia0 (device 195:0, nvidia)");
    assert_eq!(device("/dev/nvidia-uvm"), "was given /dev/nvidia-uvm (device 510:0, nvidia-uvm)");
    assert_eq!(device("/dev/mygpu"), "was given /dev/mygpu (device 195:1, nvidia)");
    assert_eq!(device("/dev/dri"), "was given /dev/dri/card1 (device 226:1, a DRM node of nvidia)");
    for other in ["/dev/dri/card0", "/dev/nvidia-fake", "/dev/null", "/dev/gone"] {
        assert_eq!(device(other), "", "{other}");
    }
    assert_eq!(device("nvidia.com/gpu=0"), "was given CDI device nvidia.com/gpu=0");
}

#[test]
fn a_path_that_is_gone_counts_by_its_name_and_says_so() {
    let json = r#"{"HostConfig":{"Devices":[{"PathOnHost":"/dev/nvidia7"}]}}"#;
    let gone = reasons(json, Evidence::default());
    assert_eq!(gone, "was given /dev/nvidia7, which is gone from the host; by its name it was the driver's");
    let own = bundle(&[("/dev/nvidia7", (195, 7))]);
    let known = reasons(json, Evidence { bundle: Some(&own), ..Evidence::default() });
    assert_eq!(known, "was given /dev/nvidia7 (device 195:7, nvidia)", "the bundle knows the number");
    let other = bundle(&[("/dev/nvidia7", (1, 3))]);
    assert_eq!(reasons(json, Evidence { bundle: Some(&other), ..Evidence::default() }), "");
}

#[test]
fn what_the_runtime_injected_counts() {
    let bundle = bundle(&[("/dev/null", (1, 3)), ("/dev/nvidiactl", (195, 255))]);
    let evidence = Evidence { bundle: Some(&bundle), ..Evidence::default() };
    assert_eq!(reasons("{}", evidence), "was given /dev/nvidiactl (device 195:255, nvidia)");
    // A privileged container's bundle has every node of the host.
    assert_eq!(reasons(r#"{"HostConfig":{"Privileged":true}}"#, evidence), "");
    let holds = Evidence { holds: true, ..evidence };
    assert_eq!(reasons(r#"{"HostConfig":{"Privileged":true}}"#, holds), "holds a GPU");
}

#[test]
fn requests_for_gpus_count() {
    let request = |request: &str| given(&format!("{{\"DeviceRequests\":[{request}]}}"));
    let all = r#"{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{}}"#;
    assert_eq!(request(all), "requests GPUs (gpu)");
    let one = r#"{"Driver":"nvidia","Count":0,"DeviceIDs":["GPU-1"],"Capabilities":[["compute"]]}"#;
    assert_eq!(request(one), "requests GPUs from driver nvidia (GPU-1)");
    let cdi = r#"{"Driver":"cdi","DeviceIDs":["nvidia.com/gpu=all","acme.com/nic=0"]}"#;
    assert_eq!(request(cdi), "was given CDI device nvidia.com/gpu=all");
    for other in [
        r#"{"Driver":"cdi","DeviceIDs":["acme.com/nvidia=0"]}"#,
        r#"{"Driver":"cdi","DeviceIDs":["notnvidia.com/gpu=0"]}"#,
        r#"{"Driver":"amd","Capabilities":[["gpu"]]}"#,
        r#"{"Driver":"","Capabilities":[["tpu"]]}"#,
    ] {
        assert_eq!(request(other), "", "{other}");
    }
}

#[test]
fn a_variable_is_a_request_under_nvidias_runtime_and_else_a_wish() {
    use Runtime::{Chosen, Other, Usual};
    let all = r#"["NVIDIA_VISIBLE_DEVICES=all"]"#;
    assert_eq!(environment_of(Other, all), "", "every image of CUDA and PyTorch has it");
    let both = "has NVIDIA_VISIBLE_DEVICES=all; runs under runtime nvidia";
    assert_eq!(environment_of(Chosen("nvidia"), all), both);
    assert_eq!(environment_of(Usual("nvidia"), all), both);
    for none in ["", "void", "none"] {
        let env = format!("[\"NVIDIA_VISIBLE_DEVICES={none}\"]");
        for runtime in [Other, Usual("nvidia"), Chosen("nvidia")] {
            assert_eq!(environment_of(runtime, &env), "", "{none:?} {runtime:?}");
        }
    }
    let overridden = r#"["NVIDIA_VISIBLE_DEVICES=all","NVIDIA_VISIBLE_DEVICES=void"]"#;
    assert_eq!(environment_of(Chosen("nvidia"), overridden), "");
    let others = r#"["NOTE=NVIDIA_VISIBLE_DEVICES=all","NVIDIA_DRIVER=1","NVIDIA_REQUIRE_CUDA=cuda>=12"]"#;
    assert_eq!(environment_of(Usual("nvidia"), others), "");
    // Images from before the variable.
    assert_eq!(environment_of(Usual("nvidia"), r#"["CUDA_VERSION=9.0"]"#), "runs under runtime nvidia");
    let new = r#"["CUDA_VERSION=12.0","NVIDIA_REQUIRE_CUDA=cuda>=12"]"#;
    assert_eq!(environment_of(Usual("nvidia"), new), "");
    // Said for this container: it is given what the runtime gives.
    assert_eq!(environment_of(Chosen("nvidia"), "null"), "runs under runtime nvidia");
}

#[test]
fn a_bundle_tells_what_a_pod_asks_its_runtime_for() {
    let asks = Bundle { environment: vec!["NVIDIA_VISIBLE_DEVICES=GPU-1".into()], ..Bundle::default() };
    let of = |bundle: &Bundle, runtime| {
        reasons("{}", Evidence { bundle: Some(bundle), runtime, ..Evidence::default() })
    };
    assert_eq!(of(&asks, Runtime::Other), "");
    let asked = "has NVIDIA_VISIBLE_DEVICES=GPU-1; runs under runtime nvidia";
    assert_eq!(of(&asks, Runtime::Usual("nvidia")), asked);
    // The hook of old goes by the variable, whatever the runtime.
    let hooked = Bundle { has_hook: true, ..asks.clone() };
    assert_eq!(of(&hooked, Runtime::Other), "has NVIDIA_VISIBLE_DEVICES=GPU-1");
    assert_eq!(of(&Bundle { has_hook: true, ..Bundle::default() }, Runtime::Other), "");
    // The device plugin's other ways to say it.
    let to = "/var/run/nvidia-container-devices/GPU-2".to_owned();
    let mounts = vec![("/dev/null".to_owned(), to)];
    let mounted = Bundle { mounts, ..Bundle::default() };
    assert_eq!(of(&mounted, Runtime::Other), "");
    let requested = "requests GPUs from driver nvidia (GPU-2); runs under runtime nvidia";
    assert_eq!(of(&mounted, Runtime::Usual("nvidia")), requested);
}

#[test]
fn a_bundles_rule_counts_together_with_a_mounted_node() {
    let of = |rule: &str, source: &str| {
        let text = format!(
            r#"{{"mounts":[{{"source":"{source}","destination":"/x"}}],"linux":{{"resources":{{"devices":[
            {{"allow":false,"access":"rwm"}},{{"allow":true,"type":"c","access":"m"}},{rule}]}}}}}}"#
        );
        let given = Bundle::parse(text.as_bytes()).expect("is a bundle");
        reasons("{}", Evidence { bundle: Some(&given), ..Evidence::default() })
    };
    let rule = r#"{"allow":true,"type":"c","major":195,"access":"rw"}"#;
    assert_eq!(of(rule, "/dev/nvidia0"), "was given /dev/nvidia0 (device 195:0, nvidia)");
    for (rule, source) in [
        (rule, "/srv/data"),
        (r#"{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"}"#, "/dev/nvidia0"),
        (r#"{"allow":true,"type":"c","major":195,"access":"m"}"#, "/dev/nvidia0"),
    ] {
        assert_eq!(of(rule, source), "", "{rule} {source}");
    }
}

#[test]
fn nvidias_programs_are_known_by_their_names() {
    for name in [
        "nvidia",
        "nvidia-cdi",
        "nvidia-legacy",
        "/usr/bin/nvidia-container-runtime",
        "/usr/local/nvidia/toolkit/nvidia-container-runtime.cdi",
        "nvidia-container-runtime.legacy",
    ] {
        assert!(is_nvidia_runtime(name), "{name}");
    }
    for name in ["runc", "nvidia-inspired", "/opt/nvidia/runc", "/usr/bin/nvidia-ctk", ""] {
        assert!(!is_nvidia_runtime(name), "{name}");
    }
}

#[test]
fn a_rule_counts_together_with_a_mounted_node() {
    let with = |rules: &str, source: &str| {
        let json = format!(
            "{{\"HostConfig\":{{\"DeviceCgroupRules\":{rules}}},\
             \"Mounts\":[{{\"Type\":\"bind\",\"Source\":\"{source}\",\"Destination\":\"/x\"}}]}}"
        );
        reasons(&json, Evidence::default())
    };
    let given = "was given /dev/nvidia0 (device 195:0, nvidia)";
    assert_eq!(with(r#"["c 195:* rwm"]"#, "/dev/nvidia0"), given);
    assert_eq!(with(r#"["a *:* rwm"]"#, "/dev/nvidia0"), given);
    assert_eq!(with(r#"["a"]"#, "/dev/nvidia0"), given);
    assert_eq!(with(r#"["c 510:0 rw"]"#, "/dev"), "was given /dev/nvidia-uvm (device 510:0, nvidia-uvm)");
    for (rules, source) in [
        (r#"["c 195:* rwm"]"#, "/srv/data"),
        (r#"["c 195:7 rwm"]"#, "/dev/nvidia0"),
        (r#"["b 195:* rwm"]"#, "/dev/nvidia0"),
        (r#"["c 226:* rwm"]"#, "/dev/nvidia0"),
        ("null", "/dev/nvidia0"),
    ] {
        assert_eq!(with(rules, source), "", "{rules} {source}");
    }
}

#[test]
fn a_generic_resource_of_swarm_is_a_request_where_the_runtime_takes_it_for_one() {
    let swarm = ["DOCKER_RESOURCE_GPU".to_owned()];
    let of = |runtime, swarm: &[String], env: &str| {
        let json = format!("{{\"Config\":{{\"Env\":{env}}}}}");
        reasons(&json, Evidence { runtime, swarm, ..Evidence::default() })
    };
    let task = r#"["NVIDIA_VISIBLE_DEVICES=void","DOCKER_RESOURCE_GPU=GPU-1"]"#;
    let requested = "requests GPUs from driver nvidia (DOCKER_RESOURCE_GPU=GPU-1); runs under runtime nvidia";
    assert_eq!(of(Runtime::Usual("nvidia"), &swarm, task), requested);
    assert_eq!(of(Runtime::Other, &swarm, task), "", "under runc nothing grants it");
    assert_eq!(of(Runtime::Usual("nvidia"), &[], task), "", "not configured");
    assert_eq!(of(Runtime::Usual("nvidia"), &swarm, r#"["DOCKER_RESOURCE_SSD=1"]"#), "");
}

#[test]
fn the_word_nvidia_alone_counts_for_nothing() {
    let json = r#"{"Id":"0a","Name":"/nvidia-exporter","Created":"2026-01-01T00:00:00Z",
        "Config":{"Image":"nvidia/cuda","Labels":{"vendor":"nvidia.com/gpu=all"},"Env":["X=/dev/nvidia0"]},
        "HostConfig":{"Runtime":"runc","Binds":["/usr/lib/nvidia:/nvidia"]},
        "Mounts":[{"Source":"/usr/lib/nvidia"}]}"#;
    assert_eq!(reasons(json, Evidence::default()), "");
}

#[test]
fn the_rest_of_the_answer_is_read() {
    let json = r#"{"Id":"0a1b","Name":"/job","State":{"Status":"paused","Pid":42,"ExitCode":0},
        "HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":3},
            "NetworkMode":"container:beef","IpcMode":"private","Links":["/db:/job/db"]},
        "Config":{"StopTimeout":5,"Labels":{"com.docker.compose.project":"p","com.docker.compose.service":"job",
            "com.docker.compose.depends_on":"cache:service_started:false,queue"}}}"#;
    let job = decode(json);
    assert_eq!((job.id(), job.name(), job.pid()), ("0a1b", "job", Some(42)));
    assert_eq!((job.phase(), job.auto_remove()), (crate::Phase::Paused, true));
    assert_eq!((job.restart().as_str(), job.stop_timeout()), ("on-failure", Some(5)));
    assert_eq!(job.needs(), ["beef", "compose:p/cache", "compose:p/queue", "db"]);
    assert_eq!(job.aliases(), ["0a1b", "job", "compose:p/job"]);
    // Podman's own states, which bollard does not know, and nothing at all.
    let stopped: Inspect = serde_json::from_str(r#"{"State":{"Status":"stopped"}}"#).expect("decodes");
    assert_eq!(stopped.phase(), crate::Phase::Down);
    let empty = decode("{}");
    assert_eq!((empty.phase(), empty.restart().as_str()), (crate::Phase::Unknown(String::new()), "no"));
}

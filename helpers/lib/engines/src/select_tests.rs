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

fn reasons(json: &str, beside: Beside<'_>) -> String {
    let why = why(&decode(json), &host(), beside);
    why.iter().map(Why::to_string).collect::<Vec<_>>().join("; ")
}

fn given(host_config: &str) -> String {
    reasons(&format!("{{\"HostConfig\":{host_config}}}"), Beside::default())
}

fn environment_of(runtime: &str, env: &str) -> String {
    let json = format!("{{\"HostConfig\":{{\"Runtime\":\"{runtime}\"}},\"Config\":{{\"Env\":{env}}}}}");
    reasons(&json, Beside { default_runtime: Some("runc"), ..Beside::default() })
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
    let gone = reasons(json, Beside::default());
    assert_eq!(gone, "was given /dev/nvidia7, which is gone from the host; by its name it was the driver's");
    let bundle = [("/dev/nvidia7".to_owned(), (195, 7))];
    let known = reasons(json, Beside { bundle: &bundle, ..Beside::default() });
    assert_eq!(known, "was given /dev/nvidia7 (device 195:7, nvidia)", "the bundle knows the number");
    let other = [("/dev/nvidia7".to_owned(), (1, 3))];
    assert_eq!(reasons(json, Beside { bundle: &other, ..Beside::default() }), "");
}

#[test]
fn what_the_runtime_injected_counts() {
    let bundle = [("/dev/null".to_owned(), (1, 3)), ("/dev/nvidiactl".to_owned(), (195, 255))];
    let beside = Beside { bundle: &bundle, ..Beside::default() };
    assert_eq!(reasons("{}", beside), "was given /dev/nvidiactl (device 195:255, nvidia)");
    // A privileged container's bundle has every node of the host.
    assert_eq!(reasons(r#"{"HostConfig":{"Privileged":true}}"#, beside), "");
    let holds = Beside { holds: true, ..beside };
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
fn the_effective_environment_counts() {
    assert_eq!(environment_of("runc", r#"["NVIDIA_VISIBLE_DEVICES=all"]"#), "has NVIDIA_VISIBLE_DEVICES=all");
    let both = environment_of("nvidia", r#"["NVIDIA_VISIBLE_DEVICES=0"]"#);
    assert_eq!(both, "has NVIDIA_VISIBLE_DEVICES=0; runs under runtime nvidia");
    for none in ["", "void", "none"] {
        let env = format!("[\"NVIDIA_VISIBLE_DEVICES={none}\"]");
        assert_eq!(environment_of("runc", &env), "", "{none:?}");
        assert_eq!(environment_of("nvidia", &env), "", "{none:?}");
    }
    let overridden = r#"["NVIDIA_VISIBLE_DEVICES=all","NVIDIA_VISIBLE_DEVICES=void"]"#;
    assert_eq!(environment_of("runc", overridden), "");
    assert_eq!(environment_of("runc", r#"["NOTE=NVIDIA_VISIBLE_DEVICES=all","NVIDIA_DRIVER=1"]"#), "");
}

#[test]
fn the_runtime_counts_unless_it_is_everybodys() {
    assert_eq!(environment_of("nvidia", "[]"), "runs under runtime nvidia");
    assert_eq!(environment_of("nvidia-cdi", "null"), "runs under runtime nvidia-cdi");
    assert_eq!(environment_of("nvidia-inspired", "[]"), "");
    let default = |env: &str| {
        let json = format!("{{\"HostConfig\":{{\"Runtime\":\"nvidia\"}},\"Config\":{{\"Env\":{env}}}}}");
        reasons(&json, Beside { default_runtime: Some("nvidia"), ..Beside::default() })
    };
    assert_eq!(default("[]"), "");
    assert_eq!(default(r#"["CUDA_VERSION=9.0"]"#), "runs under runtime nvidia");
    assert_eq!(default(r#"["CUDA_VERSION=12.0","NVIDIA_REQUIRE_CUDA=cuda>=12"]"#), "");
}

#[test]
fn a_rule_counts_together_with_a_mounted_node() {
    let with = |rules: &str, source: &str| {
        let json = format!(
            "{{\"HostConfig\":{{\"DeviceCgroupRules\":{rules}}},\
             \"Mounts\":[{{\"Type\":\"bind\",\"Source\":\"{source}\",\"Destination\":\"/x\"}}]}}"
        );
        reasons(&json, Beside::default())
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
fn the_word_nvidia_alone_counts_for_nothing() {
    let json = r#"{"Id":"0a","Name":"/nvidia-exporter","Created":"2026-01-01T00:00:00Z",
        "Config":{"Image":"nvidia/cuda","Labels":{"vendor":"nvidia.com/gpu=all"},"Env":["X=/dev/nvidia0"]},
        "HostConfig":{"Runtime":"runc","Binds":["/usr/lib/nvidia:/nvidia"]},
        "Mounts":[{"Source":"/usr/lib/nvidia"}]}"#;
    assert_eq!(reasons(json, Beside::default()), "");
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

//! The manifest for Kubernetes: its form, and that its rights are those of the unit and of the program.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use knock_tests::{
    binary::binaries,
    daemon::config_file,
    namespace::run,
    net::{self, Family, SERVER_LINK},
    process::Process,
    server::Server,
    ssh::{DOOR, SSH},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::VERSION;

/// Reads all documents of the manifest.
fn documents() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/kubernetes/daemonset.yaml");
    let mut yq = Command::new("yq");
    serde_json::from_str(&run(yq.args(["--slurp", "."]).arg(path))).unwrap()
}

fn named(kind: &str) -> Value {
    let found = documents()
        .into_iter()
        .find(|document| document["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

fn texts(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_reference_in_the_manifest_is_defined() {
    let kinds: Vec<_> = documents()
        .iter()
        .map(|document| format!("{}/{}", document["apiVersion"], document["kind"]))
        .collect();
    assert_eq!(
        kinds,
        [
            "\"v1\"/\"Namespace\"",
            "\"v1\"/\"Secret\"",
            "\"apps/v1\"/\"DaemonSet\""
        ]
    );
    let set = named("DaemonSet");
    let spec = &set["spec"];
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(spec["selector"]["matchLabels"], *labels);
    let namespace = &named("Namespace")["metadata"]["name"];
    let secret = named("Secret");
    for document in [&set, &secret] {
        assert_eq!(document["metadata"]["namespace"], *namespace);
    }
    let pod = &spec["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1);
    let names = |list: &Value| -> BTreeSet<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    let volume = |name: &str| -> Value {
        let volumes = pod["volumes"].as_array().unwrap().iter();
        volumes
            .filter(|volume| volume["name"] == name)
            .cloned()
            .collect()
    };
    assert_eq!(
        volume("config")[0]["secret"]["secretName"],
        secret["metadata"]["name"]
    );
    for mount in container["volumeMounts"].as_array().unwrap() {
        let name = mount["name"].as_str().unwrap();
        if name != "config" {
            // Pins and the registry of a node have the same paths in its pod.
            assert_eq!(
                volume(name)[0]["hostPath"]["path"],
                mount["mountPath"],
                "{name}"
            );
        }
    }
    assert_eq!(container["image"], format!("knock:{VERSION}"));
    assert_eq!(pod["hostNetwork"], json!(true));
}

#[test]
fn the_program_accepts_the_arguments() {
    let pod = &named("DaemonSet")["spec"]["template"]["spec"];
    let words: Vec<String> = pod["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap().to_owned())
        .collect();
    // It reads the arguments before it shows this.
    let mut user = Command::new(&binaries().user);
    let printed = run(user.args(&words).arg("--help"));
    assert!(printed.contains("--wait-for-interfaces"), "{printed}");
    let configuration = named("Secret")["stringData"]["seq.toml"]
        .as_str()
        .unwrap()
        .to_owned();
    let active = configuration
        .lines()
        .any(|line| !line.trim_start().starts_with('#'));
    assert!(!active, "it protects before it is edited: {configuration}");
}

/// `tests/tests/privileges.rs` shows that the program works with these capabilities and has no others.
#[test]
fn the_capabilities_are_those_of_the_unit() {
    let container = &named("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["allowPrivilegeEscalation"], json!(false));
    assert_eq!(security.get("privileged"), None);
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/knock-user.service");
    let unit = fs::read_to_string(unit).unwrap();
    for key in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap();
        let of_the_unit = line
            .split_whitespace()
            .map(|name| name.trim_start_matches("CAP_"));
        let of_the_unit = of_the_unit.map(str::to_owned).collect();
        assert_eq!(
            texts(&security["capabilities"]["add"]),
            of_the_unit,
            "{key}"
        );
    }
}

/// Root in a pod has the capabilities of its bounding set.
#[test]
fn the_program_needs_each_capability_of_the_manifest() {
    let container = &named("DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let all = texts(&container["securityContext"]["capabilities"]["add"]);
    assert_eq!(all.len(), 3, "{all:?}");
    for left_out in all.iter().map(Some).chain([None]) {
        net::test(|net| {
            let row = format!("without {left_out:?}");
            let _server = Server::tcp(&net.server, &[SSH]);
            let config = config_file(DOOR.as_bytes());
            let kept = all.iter().filter(|name| Some(*name) != left_out);
            let kept: String = kept
                .map(|name| format!(",+{}", name.to_lowercase()))
                .collect();
            let mut command = Command::new("setpriv");
            command.arg(format!("--bounding-set=-all{kept}"));
            command.arg(&binaries().user).args(["--iface", SERVER_LINK]);
            command.arg("--config").arg(config.path());
            let mut process = Process::start(&net.server, &mut command);
            let source = net.new_source(Family::V4);
            if left_out.is_some() {
                let ended = process.wait();
                assert!(!ended.status.success(), "{row}: {ended:?}");
                source.finds(true, SSH, &row);
                return;
            }
            wait::until("protected", || {
                assert!(process.is_running(), "{row}: {}", process.printed());
                source.connect(SSH, Duration::from_millis(300)).is_err()
            });
            let ended = process.stop(Signal::SIGTERM);
            assert!(ended.status.success(), "{row}: {ended:?}");
        });
    }
}

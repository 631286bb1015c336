//! Stock programs that read the metrics: Prometheus, its checks, and node_exporter.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use knock_tests::{
    daemon,
    net::{self, Family, Net},
    process::Process,
    ssh::KNOCKS,
    wait,
};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{AT, names, response, start, value};

/// Where Prometheus listens, and node_exporter.
const PROMETHEUS: &str = "127.0.0.1:9090";
const EXPORTER: &str = "127.0.0.1:9100";
/// Prometheus is ready after ten seconds on an idle machine.
const STARTS: Duration = Duration::from_secs(180);

#[test]
fn a_stock_prometheus_scrapes_the_page() {
    net::test(|net| {
        let daemon = start(net);
        let client = net.new_source(Family::V4);
        client.knock(KNOCKS);
        daemon.wait_for_event(&json!({"event": "opened", "source": client.name()}));
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("prometheus.yml");
        let rules = dist("prometheus/knock.rules.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 2s, evaluation_interval: 2s}}\nrule_files: [\"{}\"]\n\
                 scrape_configs:\n- job_name: knock\n  static_configs: [{{targets: [\"{AT}\"]}}]\n",
                rules.display()
            ),
        )
        .unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={PROMETHEUS}"));
        let prometheus = Process::start(&net.server, &mut command);
        for (query, expected) in [
            ("up{job=\"knock\"}", 1.0),
            ("knock_in_force", 1.0),
            ("knock_door_openings_total{door=\"ssh\"}", 1.0),
            ("sum(knock_interface_state{state=\"protected\"})", 1.0),
            ("knock_packets_total{reason=\"opened\"}", 1.0),
        ] {
            let found = wait::poll(STARTS, || {
                query_value(net, query).filter(|found| *found == expected)
            });
            assert_eq!(found, Some(expected), "{query}: {}", prometheus.printed());
        }
        let alerts = ask_prometheus(net, "/api/v1/rules").unwrap();
        let count = alerts["data"]["groups"][0]["rules"]
            .as_array()
            .map(Vec::len);
        assert_eq!(count, Some(9), "{alerts}");
        prometheus.stop(SIGTERM);
        daemon.stop();
    });
}

#[test]
fn alert_rules_pass_their_tests() {
    for arguments in [
        ["check", "rules", "knock.rules.yml"],
        ["test", "rules", "knock.rules.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(dist("prometheus"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

/// As docs/guides/metrics.md has it: a timer writes the file, with a daemon and without one.
#[test]
fn a_stock_node_exporter_reads_the_file() {
    net::test(|net| {
        let daemon = start(net);
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("knock.prom");
        let write = || {
            let words = ["metrics", "--out", file.to_str().unwrap()];
            let (code, output) = daemon::ask(&net.server, &words);
            assert_eq!((code, output.as_str()), (Some(0), ""));
            fs::read_to_string(&file).unwrap()
        };
        // Debian starts it as another user, who reads what root wrote.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg("prometheus-node-exporter");
        command.args(["--collector.disable-defaults", "--collector.textfile"]);
        let place = directory.path().display();
        command.arg(format!("--collector.textfile.directory={place}"));
        command.arg(format!("--web.listen-address={EXPORTER}"));
        let written = write();
        let exporter = Process::start(&net.server, &mut command);
        let found = wait::poll(STARTS, || exported(net).filter(|page| !page.is_empty()));
        let page = found.unwrap_or_else(|| panic!("no page: {}", exporter.printed()));
        reads(&page, &written);
        assert_eq!(value(&page, "knock_process_up"), Some(1.0), "{page}");

        daemon.kill();
        let written = write();
        let page = exported(net).unwrap();
        reads(&page, &written);
        assert_eq!(value(&page, "knock_process_up"), Some(0.0), "{page}");
        exporter.stop(SIGTERM);
        daemon::detach(&net.server);
    });
}

/// Returns the page of node_exporter; none if it does not listen yet.
fn exported(net: &Net) -> Option<String> {
    let response = response(&net.server, EXPORTER, "GET /metrics HTTP/1.0\r\n\r\n")?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.0 200 OK"), "{response}");
    Some(body.to_owned())
}

/// Asserts that a page has every family of a file and as many series, and that node_exporter found no fault.
#[track_caller]
fn reads(page: &str, written: &str) {
    assert_eq!(
        value(page, "node_textfile_scrape_error"),
        Some(0.0),
        "{page}"
    );
    let own = |name: &&str| name.starts_with("knock_");
    let sorted = |text: &str| {
        let mut names: Vec<_> = names(text)
            .into_iter()
            .filter(own)
            .map(str::to_owned)
            .collect();
        names.sort();
        names
    };
    assert!(!sorted(written).is_empty(), "{written}");
    assert_eq!(sorted(page), sorted(written));
    let series = |text: &str| text.lines().filter(own).count();
    assert_eq!(series(page), series(written), "{page}");
}

#[track_caller]
pub(crate) fn promtool_accepts(text: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}:\n{text}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

fn query_value(net: &Net, query: &str) -> Option<f64> {
    let encoded: String = query
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let answer = ask_prometheus(net, &format!("/api/v1/query?query={encoded}"))?;
    answer["data"]["result"][0]["value"][1]
        .as_str()?
        .parse()
        .ok()
}

fn ask_prometheus(net: &Net, path: &str) -> Option<Value> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    let response = response(&net.server, PROMETHEUS, &request)?;
    let (_, body) = response.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

fn dist(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dist")
        .join(path)
}

//! A real Prometheus with the rules of `conf/observability`, and promtool. The rules are copied with short times, so that alerts
//! fire within seconds.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::apps::LONG;
use super::client::{Wire, get_with};
use super::net::Address;
use super::ports::Port;
use super::{eventually, guard};

/// A running Prometheus.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    port: Port,
    log: PathBuf,
}

/// The rules, the dashboard and their tests.
pub(crate) fn mixin() -> PathBuf {
    let root =
        std::env::var_os("HOMING_SOURCE").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    root.join("conf/observability")
}

/// A program that `scripts/test-prometheus` brought.
pub(crate) fn program(name: &str) -> Command {
    let beside_tmp = || option_env!("CARGO_TARGET_TMPDIR").map(|tmp| Path::new(tmp).with_file_name("prometheus"));
    let brought = std::env::var_os("HOMING_PROMETHEUS").map(PathBuf::from).or_else(beside_tmp);
    let program =
        brought.expect("HOMING_PROMETHEUS names the directory, or cargo has built the tests").join("bin").join(name);
    assert!(program.exists(), "{} is missing: run `scripts/test-prometheus` or `make test`", program.display());
    Command::new(program)
}

/// Minutes become seconds, and what must hold for some time must hold for one second.
fn shortened(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (long, short) in
        [("[5m]", "[5s]"), ("[10m]", "[10s]"), ("[15m]", "[15s]"), ("[30m]", "[10s]"), ("[1h]", "[20s]")]
    {
        text = text.replace(long, short);
    }
    assert!(!text.contains("m]"), "each window has a short one: {text}");
    let line = |line: &str| match line.trim_start().strip_prefix("for: ") {
        Some("0s") | None => format!("{line}\n"),
        Some(_) => format!("{}for: 1s\n", " ".repeat(line.len() - line.trim_start().len())),
    };
    text.lines().map(line).collect()
}

impl Prometheus {
    /// Starts it with the targets of the job `homing`, and waits until it is ready.
    pub(crate) fn start(directory: &Path, targets: &[&Address]) -> Self {
        let directory = directory.join("prometheus");
        fs::create_dir(&directory).expect("a directory for Prometheus");
        let rules = ["recording.rules.yaml", "alerts.rules.yaml"];
        for rules in rules {
            let text = fs::read_to_string(mixin().join(rules)).expect("the rules");
            fs::write(directory.join(rules), shortened(&text)).expect("their copy");
        }
        let targets: Vec<_> = targets.iter().map(|target| format!("\"{target}\"")).collect();
        let config = format!(
            "global: {{ scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{ job_name: homing, static_configs: [{{ targets: [{}] }}] }}]\n",
            rules.join(", "),
            targets.join(", ")
        );
        fs::write(directory.join("prometheus.yaml"), config).expect("its configuration");
        let port = Port::reserve();
        let log = File::create(directory.join("log")).expect("its log");
        let child = program("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={}", port.address()))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus starts");
        guard::watch(&child);
        let mut started = Self { child, port, log: directory.join("log") };
        eventually(LONG, "Prometheus is ready", || {
            let ended = started.child.try_wait().expect("its state");
            assert!(ended.is_none(), "Prometheus ended at its start: {ended:?}");
            started.is_ready().unwrap_or(false)
        });
        started
    }

    fn address(&self) -> Address {
        self.port.address().into()
    }

    fn is_ready(&self) -> std::io::Result<bool> {
        let mut wire = Wire::try_connect(&self.address())?;
        wire.try_send("GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        Ok(wire.try_receive("GET")?.status == 200)
    }

    /// How many targets answer.
    pub(crate) fn targets_up(&self) -> usize {
        let json = get_with(&self.address(), "/api/v1/targets?state=active", &[]).expect(200).json();
        let targets = json["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        targets.iter().filter(|target| target["health"] == "up").count()
    }

    /// The names of the alerts that fire.
    pub(crate) fn firing(&self) -> BTreeSet<String> {
        let json = get_with(&self.address(), "/api/v1/alerts", &[]).expect(200).json();
        let alerts = json["data"]["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        guard::release(&self.child);
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- log of Prometheus ----\n{}----", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

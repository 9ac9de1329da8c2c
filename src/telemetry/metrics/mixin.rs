//! The rules and the dashboard of `conf/observability` name only metrics that the proxy has, with labels that these have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::sample::busy;
use super::*;

/// Labels by metric, of every metric.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let metrics = busy();
    metrics.started_as("edge-1");
    metrics.config_accepted("hash", true);
    metrics.certificates([("shop", 0)].into_iter());
    let server = ServerReading {
        pool: "web",
        server: "a",
        up: true,
        state: "ready",
        breaker: Some("closed"),
        in_flight: 0,
        queued: 0,
        streams: 0,
        weight: 1.0,
        sessions: 0,
    };
    let pool = PoolReading { pool: "web", complete: true, queued: 0 };
    let table = TableReading { entries: 0, capacity: 0, bytes: 0, handoff_bytes: 0 };
    let text = metrics.render(&table, [server].into_iter(), [pool].into_iter()).unwrap();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8(text).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let (name, _) = line.split_once(['{', ' ']).unwrap();
        let labels = line.split_once('{').map(|(_, rest)| labels(rest)).unwrap_or_default();
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    known
}

/// The names of labels before the closing brace. No value of ours has a comma or a brace.
fn labels(text: &str) -> BTreeSet<String> {
    let inside = text.split_once('}').map_or("", |(inside, _)| inside);
    let name = |pair: &str| pair.split_once(['=', '!']).map(|(name, _)| name.trim().to_owned());
    inside.split(',').filter_map(name).collect()
}

/// What the text says of metrics: names, and the labels that it selects by. Names of recording rules have a colon.
fn named(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(of_name) {
        let (_, word) = rest.split_at(start);
        let end = word.find(|c| !of_name(c)).unwrap_or(word.len());
        let (name, behind) = word.split_at(end);
        rest = behind;
        if name.starts_with("homing_") || name.starts_with("process_") {
            found.push((name.to_owned(), behind.strip_prefix('{').map(labels).unwrap_or_default()));
        }
    }
    found
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_there_are_with_their_labels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/observability");
    // Set by Prometheus.
    let of_target = ["job", "instance"];
    let known = known();
    let mut names = BTreeSet::new();
    for file in ["recording.rules.yaml", "alerts.rules.yaml", "alerts.test.yaml", "dashboard.json"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap().replace("\\\"", "\"");
        for (name, selected) in named(&text) {
            let Some(labels) = known.get(&name) else { panic!("{file}: there is no metric {name}") };
            for label in selected {
                // The bound of a bucket is a label of the text only.
                let is_known = labels.contains(&label) || of_target.contains(&&*label);
                assert!(is_known, "{file}: {name} has no label {label}, only {labels:?}");
            }
            names.insert(name);
        }
    }
    assert!(names.len() > 40, "the files name metrics: {names:?}");
}

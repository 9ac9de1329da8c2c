//! Metrics as a whole.

use std::collections::HashSet;
use std::time::Duration;

use super::*;

const TABLE: TableReading = TableReading { entries: 3, capacity: 10, bytes: 999, handoff_bytes: 0 };

fn text(metrics: &Metrics, servers: Vec<ServerReading<'_>>) -> String {
    String::from_utf8(metrics.render(&TABLE, servers.into_iter(), std::iter::empty()).unwrap()).unwrap()
}

fn reading() -> ServerReading<'static> {
    ServerReading {
        pool: "web",
        server: "a",
        up: true,
        state: "drain",
        breaker: Some("half_open"),
        in_flight: 2,
        queued: 3,
        streams: 1,
        weight: 7.0,
        sessions: 5,
    }
}

#[test]
fn names_are_unique_and_all_carry_help() {
    let metrics = sample::busy();
    metrics.started_as("edge-1");
    let text = text(&metrics, vec![reading()]);
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let names: HashSet<&str> = families.iter().filter_map(|family| family.split(' ').next()).collect();
    assert_eq!(names.len(), families.len(), "{families:?}");
    let helps = text.lines().filter(|line| line.starts_with("# HELP ")).count();
    assert_eq!(helps, families.len());
    assert!(text.contains("homing_build_info{node=\"edge-1\","), "{text}");
    assert!(text.contains("homing_table_capacity 10"), "{text}");
}

#[test]
fn a_removed_server_is_no_longer_shown() {
    let metrics = Metrics::new().unwrap();
    let with = text(&metrics, vec![reading()]);
    assert!(with.contains(r#"homing_server_state{pool="web",server="a",state="drain"} 1"#), "{with}");
    assert!(with.contains(r#"homing_server_state{pool="web",server="a",state="ready"} 0"#), "{with}");
    assert!(with.contains(r#"homing_server_breaker{pool="web",server="a",state="half_open"} 1"#), "{with}");
    assert!(with.contains(r#"homing_server_requests_queued{pool="web",server="a"} 3"#), "{with}");
    assert!(with.contains(r#"homing_sessions{pool="web",server="a"} 5"#), "{with}");
    let without = text(&metrics, vec![]);
    assert!(!without.contains("server=\"a\""), "{without}");
}

#[test]
fn responses_are_counted_by_status() {
    let metrics = Metrics::new().unwrap();
    let pool = metrics.pool("web", &[]);
    pool.request(200, Duration::from_millis(3));
    pool.request(200, Duration::from_millis(3));
    pool.request(1000, Duration::ZERO);
    let text = text(&metrics, vec![]);
    assert!(text.contains(r#"homing_requests_total{code="200",pool="web"} 2"#), "{text}");
    assert!(text.contains(r#"homing_request_duration_seconds_count{pool="web"} 3"#), "{text}");
}

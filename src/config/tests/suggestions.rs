//! What problems tell to write instead, fed back.

use super::parse;

/// A whole file around one value, which is wrong, and a line that takes its place.
fn with_line(before: &str, line: &str) -> String {
    format!("version: 1\n{before}{line}\n")
}

#[test]
fn what_a_problem_of_shape_suggests_passes_the_check() {
    const LISTENERS: &str = "listeners: [{ address: 127.0.0.1:8080 }]\n";
    const POOLS: &str = "pools: { web: { servers: [{ name: a, address: 127.0.0.1:9001 }] } }\n";
    const SOURCES: &str =
        "pools:\n  web:\n    servers: [{ name: a, address: 127.0.0.1:9001 }]\n    persistence:\n      ";
    let whole = format!("{LISTENERS}{POOLS}");
    let pool = format!("{LISTENERS}pools:\n  web:\n    servers: [{{ name: a, address: 127.0.0.1:9001 }}]\n    ");
    let sources = format!("{LISTENERS}{SOURCES}");
    let in_sources = format!("{sources}sources:\n        - ");
    let mut seen = 0;
    for (before, wrong) in [
        (POOLS, "listeners: 127.0.0.1:8080"),
        (POOLS, "listeners: { address: 127.0.0.1:8080 }"),
        (POOLS, "listeners: true"),
        (LISTENERS, "pools: { web: [127.0.0.1:9001, 127.0.0.1:9002] }"),
        (LISTENERS, "pools: { web: { servers: [127.0.0.1:9001, app:80] } }"),
        (LISTENERS, "pools: { web: { servers: 127.0.0.1:9001 } }"),
        (LISTENERS, "pools: { web: 127.0.0.1:9001 }"),
        (LISTENERS, "pools: [{ name: web }]"),
        (&whole, "admin: 127.0.0.1:9911"),
        (&whole, "metrics: 127.0.0.1:9901"),
        (&whole, "log: debug"),
        (&whole, "store: memory"),
        (&whole, "store: { snapshot: /var/lib/homing/sessions }"),
        (&whole, "store: []"),
        (&whole, "proxy: []"),
        (&whole, "routes: web"),
        (&whole, "routes: { name: r, pool: web }"),
        (&pool, "health_check: true"),
        (&pool, "health_check: /up"),
        (&pool, "health_check: { expect_status: 200 }"),
        (&pool, "health_check: { timeout: 200 }"),
        (&whole, "store: { timeout: 50 }"),
        (&pool, "connection: 5s"),
        (&pool, "retries: 3"),
        (&pool, "persistence: cookie"),
        (&pool, "persistence: true"),
        (&sources, "cookie: JSESSIONID"),
        (&sources, "handoff: true"),
        (&sources, "sources: cookie"),
        (&sources, "sources: { cookie: {} }"),
        (&in_sources, "cookie"),
        (&in_sources, "learn"),
        (&in_sources, "learn: JSESSIONID"),
        (&in_sources, "learn: true"),
        (&in_sources, "route: JSESSIONID"),
        (&in_sources, "header: X-Session"),
        (&in_sources, "query: sid"),
        (&in_sources, "client_ip: true"),
        (&in_sources, "client_ip"),
        (&in_sources, "true"),
    ] {
        follow_suggestions(before, wrong);
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

/// Writes what each problem of the line suggests, until the file passes the check.
fn follow_suggestions(before: &str, wrong: &str) {
    let mut line = wrong.to_owned();
    // Of several values that are wrong in one way, each has its suggestion.
    for _ in 0..3 {
        let Err(problems) = parse(&with_line(before, &line)) else { break };
        let problem = problems.iter().next().unwrap();
        let suggestion = problem.help.as_deref().and_then(|help| help.strip_prefix("write "));
        let suggestion = suggestion.unwrap_or_else(|| panic!("{problem}"));
        line = corrected(before, &line, problem.column.unwrap(), suggestion);
    }
    if let Err(problems) = parse(&with_line(before, &line)) {
        panic!(
            "{wrong}
    as suggested: {line}
    {problems}"
        );
    }
    assert_ne!(line, wrong, "it was wrong");
}

/// The line with the suggestion in place of the value at that column, or of its key and value.
#[expect(clippy::string_slice, reason = "test code: the lines are ASCII")]
fn corrected(before: &str, line: &str, column: usize, suggestion: &str) -> String {
    let indent = before.rsplit('\n').next().unwrap_or_default().len();
    let at = column - 1 - indent;
    let (key, _) = suggestion.split_once(": ").unwrap_or_default();
    let is_key = !key.is_empty() && !key.contains(['{', '[']);
    let start = line[..at].rfind(&format!("{key}: ")).filter(|_| is_key).unwrap_or(at);
    let rest = &line[at..];
    let end = match rest.chars().next() {
        Some('[') => rest.find(']').map(|end| end + 1),
        Some('{') => rest.rfind('}').map(|end| end + 1),
        _ => rest.find([',', ' ', ']', '}']),
    };
    format!("{}{suggestion}{}", &line[..start], &rest[end.unwrap_or(rest.len())..])
}

#[test]
fn words_of_other_proxies_point_to_ours() {
    let messages = |pool: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\npools: {{ web: {{ servers: [{{ name: a, address: 127.0.0.1:9001 }}], {pool} }} }}\n"
        );
        parse(&text).unwrap_err().to_string()
    };
    for (written, ours) in [
        ("timeout: 5s", "\"connection\""),
        ("check: true", "health_check:"),
        ("sticky: true", "persistence: {}"),
        ("cookie: SERVERID", "persistence: { cookie:"),
    ] {
        let said = messages(written);
        assert!(said.contains(ours) && said.contains("docs/migrating.md"), "{said}");
    }
}

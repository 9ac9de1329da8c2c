//! Whether the worlds of this run take the fast path.
//!
//! With `HOMING_TEST_FAST_PATH=off` every configuration that does not mention `fast_path` itself has `proxy.fast_path: off`, so
//! that all tests can be run on the full path too.

use std::env;

const VARIABLE: &str = "HOMING_TEST_FAST_PATH";

/// The text of a configuration as the run wants it.
pub(super) fn apply(text: String) -> String {
    match env::var(VARIABLE).as_deref() {
        Err(_) | Ok("auto") => text,
        Ok("off") => with_full_path_only(&text),
        Ok(other) => panic!("{VARIABLE} is {other}; auto and off are known"),
    }
}

fn with_full_path_only(text: &str) -> String {
    // No configuration, or one that says so itself.
    if text.contains("fast_path") || !text.lines().any(|line| line.starts_with("listeners:")) {
        return text.to_owned();
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.iter().position(|line| line.starts_with("proxy:")) {
        Some(at) => {
            if let Some((before, after)) = lines[at].split_once('{') {
                lines[at] = format!("{before}{{ fast_path: off, {}", after.trim_start());
            } else {
                let next = lines.get(at + 1).map_or("", String::as_str);
                let indent = next.len() - next.trim_start().len();
                lines.insert(at + 1, format!("{}fast_path: off", " ".repeat(indent)));
            }
        }
        // Last: the lines of problems stay where they are.
        None => lines.push("proxy: { fast_path: off }".to_owned()),
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_switch_keeps_what_a_configuration_says() {
    let rest = "version: 1\nlisteners:\n  - { address: x }\n";
    for (before, after) in [
        ("", "proxy: { fast_path: off }\n"),
        ("proxy: { threads: 1 }\n", "proxy: { fast_path: off, threads: 1 }\n"),
        ("proxy:\n    threads: 1\n", "proxy:\n    fast_path: off\n    threads: 1\n"),
        ("proxy: { fast_path: auto }\n", "proxy: { fast_path: auto }\n"),
    ] {
        assert_eq!(with_full_path_only(&format!("{rest}{before}")), format!("{rest}{after}"));
    }
    assert_eq!(with_full_path_only("no configuration"), "no configuration");
}

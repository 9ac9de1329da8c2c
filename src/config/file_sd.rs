//! Lists of targets as Prometheus reads them (`file_sd_configs`), so that whatever writes those can feed a pool.
//!
//! A list of groups, `[{"targets": ["10.0.0.1:8080"], "labels": {"weight": "2"}}]`; the format is described at
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#file_sd_config>.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use super::address::{ServerAddress, is_name, server_address};
use super::pools::Server;
use super::raw::ServerState;

#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The servers of a file. `yaml`: it is YAML; else JSON, of which half a file is never valid.
///
/// # Errors
/// Says what is wrong. A list with one fault counts as a whole as invalid, since half of it may be what its writer has written so
/// far.
pub fn parse_targets(text: &str, yaml: bool) -> Result<Vec<Server>, String> {
    let groups: Vec<Group> = if yaml {
        serde_yaml::from_str(text).map_err(|error| format!("not a list of target groups: {error}"))?
    } else {
        serde_json::from_str(text).map_err(|error| format!("not a list of target groups: {error}"))?
    };
    let mut servers = Vec::new();
    let mut names = HashSet::new();
    for group in &groups {
        for target in &group.targets {
            let server = of_target(target, group)?;
            if !names.insert(server.name.clone()) {
                return Err(format!("server {:?} exists twice", server.name));
            }
            servers.push(server);
        }
    }
    Ok(servers)
}

fn of_target(target: &str, Group { targets, labels }: &Group) -> Result<Server, String> {
    let address = server_address(target).map_err(|help| format!("target {target:?} is no address: {help}"))?;
    let name = match labels.get("name") {
        Some(_) if targets.len() > 1 => {
            return Err(format!("label \"name\" with {} targets: a name is one server's", targets.len()));
        }
        Some(name) if is_name(name) => name.clone(),
        Some(name) => return Err(format!("label name {name:?}: letters, digits, \"_\", \".\" and \"-\", at most 64")),
        None if matches!(address, ServerAddress::Unix(_)) => {
            return Err(format!("target {target:?} needs a label \"name\""));
        }
        None => target.to_owned(),
    };
    let weight = labels.get("weight").map_or(Ok(1), |text| {
        text.parse().map_err(|_error| format!("label weight {text:?} of {target:?}: a number from 0 to 65535"))
    })?;
    let state = match labels.get("state").map(String::as_str) {
        None | Some("ready") => ServerState::Ready,
        Some("drain") => ServerState::Drain,
        Some("maint") => ServerState::Maint,
        Some(other) => return Err(format!("label state {other:?} of {target:?}: ready, drain or maint")),
    };
    Ok(Server { weight, state, ..Server::discovered(name, address) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        parse_targets(text, false).unwrap().into_iter().map(|server| server.name).collect()
    }

    #[test]
    fn targets_are_named_by_their_addresses_or_labels() {
        let text = r#"[{"targets": ["10.0.0.1:8080", "[fd00::1]:80", "app-1.internal:80"]},
                       {"targets": ["unix:/run/b.sock"], "labels": {"name": "b", "weight": "3", "state": "drain", "__meta_x": "y"}}]"#;
        assert_eq!(names(text), ["10.0.0.1:8080", "[fd00::1]:80", "app-1.internal:80", "b"]);
        let b = &parse_targets(text, false).unwrap()[3];
        assert_eq!((b.weight, b.state, b.route.as_str()), (3, ServerState::Drain, "b"));
        assert_eq!(names("[]"), Vec::<String>::new());
    }

    #[test]
    fn yaml_is_read_too() {
        let text = "- targets: ['10.0.0.1:8080']\n  labels: { name: a, weight: '2' }\n- targets: ['10.0.0.2:8080']\n";
        let servers = parse_targets(text, true).unwrap();
        assert_eq!((servers.len(), servers[0].name.as_str(), servers[0].weight), (2, "a", 2));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "not a list"),
            ("{}", "not a list"),
            (r#"[{"targets": ["10.0.0.1"]}]"#, "the port is missing"),
            (r#"[{"targets": ["10.0.0.1:80", "10.0.0.1:80"]}]"#, "exists twice"),
            (r#"[{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"name": "a"}}]"#, "a name is one server's"),
            (r#"[{"targets": ["10.0.0.1:80"], "labels": {"name": "a b"}}]"#, "label name"),
            (r#"[{"targets": ["10.0.0.1:80"], "labels": {"weight": "heavy"}}]"#, "label weight"),
            (r#"[{"targets": ["10.0.0.1:80"], "labels": {"state": "up"}}]"#, "ready, drain or maint"),
            (r#"[{"targets": ["unix:/run/a.sock"]}]"#, "needs a label"),
        ] {
            let why = parse_targets(text, false).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn no_part_of_a_json_file_is_a_list() {
        let text = r#"[{"targets": ["10.0.0.1:8080", "10.0.0.2:8080"], "labels": {"weight": "2"}}]"#;
        assert_eq!(names(text).len(), 2);
        for end in 0..text.len() {
            let part = text.get(..end).unwrap();
            assert!(parse_targets(part, false).is_err(), "{part}");
        }
    }
}

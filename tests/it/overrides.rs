//! What operators set for servers at run time.

use std::fs;
use std::path::{Path, PathBuf};

use crate::world::{Conf, World};

const STATE: &str = "homing_server_state";

pub(crate) fn with_state_file(conf: Conf) -> Conf {
    conf.top("admin: { address: \"{{admin}}\", state_file: \"{{dir}}/servers.json\" }")
}

pub(crate) fn state_file_of(world: &World) -> PathBuf {
    world.directory().join("servers.json")
}

fn draining(server: &str) -> String {
    format!(
        "{{ \"version\": 1, \"servers\": [\
         {{ \"pool\": \"web\", \"server\": \"{server}\", \"state\": \"drain\", \"by\": \"ops\", \
            \"at\": 1790000000000, \"state_at\": 1790000000000 }},\
         {{ \"pool\": \"web\", \"server\": \"gone\", \"weight\": 3, \"by\": \"ops\", \
            \"at\": 1790000000000, \"state_at\": 1790000000000 }}] }}"
    )
}

fn start_with_state_file(text: &str) -> World {
    let text = text.to_owned();
    World::builder(with_state_file(Conf::servers("a b")))
        .before(move |environment| fs::write(environment.directory().join("servers.json"), text).expect("a file"))
        .start()
}

fn new_sessions(world: &World) -> Vec<String> {
    (0..8).map(|_| world.browser().server()).collect()
}

#[test]
fn a_state_that_was_set_at_run_time_is_in_force_after_a_restart_and_through_reloads() {
    let mut world = start_with_state_file(&draining("a"));
    assert!(new_sessions(&world).iter().all(|server| server == "b"), "no new session for a draining server");
    assert_eq!(world.metric(STATE, &[("server", "a"), ("state", "drain")]), 1.0);
    assert!(world.log().contains("override dropped"), "of a server that is gone:\n{}", world.log());
    world.reload(with_state_file(Conf::servers("a b").server("a", "weight: 5")));
    assert!(new_sessions(&world).iter().all(|server| server == "b"));
    world.restart_proxy();
    assert!(new_sessions(&world).iter().all(|server| server == "b"));
    // It goes with its server.
    world.reload(with_state_file(Conf::servers("b")));
    world.reload(with_state_file(Conf::servers("a b")));
    assert!(new_sessions(&world).iter().any(|server| server == "a"));
    let kept = fs::read_to_string(state_file_of(&world)).expect("the file");
    assert!(!kept.contains("\"server\""), "{kept}");
}

fn damaged(file: &Path) -> String {
    fs::read_to_string(format!("{}.damaged", file.display())).expect("the file that was put aside")
}

#[test]
fn a_damaged_state_file_keeps_no_proxy_from_starting() {
    for text in ["", "{", "not json", "{ \"version\": 9, \"servers\": [] }"] {
        let world = start_with_state_file(text);
        assert_eq!(damaged(&state_file_of(&world)), text);
        assert!(world.log().contains("put aside"), "{}", world.log());
        assert!(new_sessions(&world).iter().any(|server| server == "a"));
    }
}

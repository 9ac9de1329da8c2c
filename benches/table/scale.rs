//! How cost grows with the number of sessions: each part at each size in a process of its own, in rounds.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::crowd::{evicting, expiring};
use crate::figures::Figures;
use crate::sessions::MILLION;
use crate::single::visits;
use crate::start::{data, start};

type Part = fn(u64, &mut Figures);

/// Name, what it does, and the sizes at which it says something.
const PARTS: [(&str, Part, &[u64]); 5] = [
    ("visits", visits, &[1_000, 10_000, 100_000, MILLION, 10 * MILLION]),
    ("eviction", evicting, &[1_000, 10_000, 100_000, MILLION, 10 * MILLION]),
    ("expiry", expiring, &[10_000, 100_000, MILLION, 10 * MILLION]),
    ("start", start, &[MILLION, 10 * MILLION]),
    ("data", data, &[MILLION]),
];

/// What a child's last line begins with.
const FIGURES: &str = "figures ";

/// All parts, or those that are named, so many times; the figures go into `table.json` in the bench's folder.
pub(crate) fn scale(rounds: u64, named: &str) {
    let named: Vec<&str> = named.split(',').filter(|name| !name.is_empty()).collect();
    for name in &named {
        assert!(
            PARTS.iter().any(|(part, ..)| part == name),
            "no part {name}: there are {}",
            PARTS.map(|part| part.0).join(", ")
        );
    }
    let mut told = Vec::new();
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for (part, _, sizes) in PARTS.iter().filter(|(part, ..)| named.is_empty() || named.contains(part)) {
            for sessions in *sizes {
                println!("\n{part}, {sessions} sessions");
                let figures = in_its_own_process(part, *sessions);
                told.push(json!({ "round": round, "part": part, "sessions": sessions, "figures": figures }));
            }
        }
    }
    let path = folder().join("table.json");
    fs::write(&path, serde_json::to_string_pretty(&told).unwrap()).unwrap();
    println!("\n{}", path.display());
}

fn in_its_own_process(part: &str, sessions: u64) -> Value {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--scale-one", part, &sessions.to_string()]).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let mut figures = Value::Null;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix(FIGURES) {
            Some(json) => figures = serde_json::from_str(json).unwrap(),
            None => println!("{line}"),
        }
    }
    assert!(child.wait().unwrap().success(), "{part} with {sessions} sessions failed");
    figures
}

/// One part in this process.
pub(crate) fn scale_one(part: &str, sessions: u64) {
    let (_, play, _) = PARTS.iter().find(|(name, ..)| *name == part).expect("a part");
    let mut figures = Figures::default();
    play(sessions, &mut figures);
    println!("{FIGURES}{}", figures.json());
}

/// Where files of the bench go.
pub(crate) fn folder() -> PathBuf {
    let folder = PathBuf::from(env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into())).join("bench-table");
    fs::create_dir_all(&folder).unwrap();
    folder
}

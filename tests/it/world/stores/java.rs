//! Stores that run on Java: their jars, which `scripts/test-stores-java` fetches, and a command line to run them.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process::{program, stores};

/// A heap for a test's worth of sessions, and no compiler threads to take the cores of other tests.
const SMALL: [&str; 2] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// To start: a second or two, and half a minute where several tests start one at a time on two cores.
pub(super) const START: Duration = Duration::from_secs(180);

/// The jars, as the lock file lists them: folder, coordinates, sum.
const LIST: &str = include_str!("../../../stores/jars.txt");

/// A store that runs on Java.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JavaStore {
    Hazelcast,
    Ignite,
}

impl JavaStore {
    /// Whether its jars are here. They may be out of reach: then a test says so, and returns. With `CI=true` it fails.
    #[track_caller]
    pub(crate) fn is_here(self) -> bool {
        let missing: Vec<_> =
            self.jars().filter(|(_, path)| !path.exists()).map(|(coordinates, _)| coordinates).collect();
        if missing.is_empty() {
            return true;
        }
        let said = format!(
            "not tested, jars are missing: {}. Put them into {}, or run `scripts/test-stores-java` where Maven reaches them",
            missing.join(", "),
            self.folder().display()
        );
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{said}");
        // Written past the test harness, which hides what a passing test prints.
        let _ = writeln!(io::stderr(), "{self:?}: {said}");
        false
    }

    /// `java` with these flags, this store's jars as its class path, and this main class; `runner` is a command that runs
    /// another, or nothing.
    pub(super) fn command(self, flags: &[&str], main: &str, runner: &[String]) -> Command {
        let jars: Vec<_> = self.jars().map(|(_, path)| path.display().to_string()).collect();
        let java = fs::canonicalize(program("java")).expect("a link to java").display().to_string();
        let mut line = runner.iter().chain([&java]);
        let mut command = Command::new(line.next().expect("a program"));
        command.args(line).args(SMALL).args(flags).arg("-cp").arg(jars.join(":")).arg(main);
        command
    }

    fn jars(self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let lines = LIST.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(move |line| {
            let mut words = line.split(' ');
            let coordinates = (words.next()? == self.name()).then(|| words.next())??;
            let (_, file) = coordinates.split_once(':')?;
            Some((coordinates, self.folder().join(format!("{}.jar", file.replace(':', "-")))))
        })
    }

    fn folder(self) -> PathBuf {
        stores().join("jars").join(self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hazelcast => "hazelcast",
            Self::Ignite => "ignite",
        }
    }
}

//! The applications in `tests/apps`: what runs them, and the packages that `scripts/test-apps` brought for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An application with a server and perhaps a client of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// Below `tests/apps`, and below `apps` in cargo's target directory.
    folder: &'static str,
    language: Language,
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Node,
    Python,
}

/// Connections in memory; HTTP long polling, then WebSocket.
pub(crate) const SOCKET_IO: Program = Program { folder: "socketio", language: Language::Node };
/// Sessions in memory, named by the header `Mcp-Session-Id`; streams of events.
pub(crate) const MCP: Program = Program { folder: "mcp", language: Language::Node };
/// Sessions in memory, named by the cookie `SHOPSESSION`.
pub(crate) const WSGI: Program = Program { folder: "wsgi", language: Language::Python };
/// A browser, led by playwright-core, with axe-core for accessibility; a client only.
pub(crate) const CHROMIUM: Program = Program { folder: "chromium", language: Language::Node };

/// A collector of OpenTelemetry spans.
pub(crate) const OTLP: Program = Program { folder: "otlp", language: Language::Python };

/// Counters of clients in memory; unary calls and streams. A client names its session by metadata.
pub(crate) const GRPC: Program = Program { folder: "grpc", language: Language::Python };

impl Program {
    /// It speaks HTTP/1.1, and so says itself when it is ready.
    pub(super) fn speaks_http1(self) -> bool {
        self.folder != GRPC.folder
    }

    /// A command line of its server: `NAME PORT` are to follow.
    pub(crate) fn server(self) -> Command {
        self.command("server")
    }

    /// A command line of its client.
    pub(crate) fn client(self) -> Command {
        self.command("client")
    }

    fn command(self, script: &str) -> Command {
        let packages = self.packages();
        let sources = self.sources();
        match self.language {
            Language::Node => {
                let mut command = Command::new("node");
                command.arg(sources.join(format!("{script}.js")));
                command.env("NODE_PATH", packages.join("node_modules")).env_remove("NODE_OPTIONS");
                command
            }
            Language::Python => {
                let mut command = Command::new(packages.join("venv/bin/python"));
                command.arg(sources.join(format!("{script}.py"))).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
        }
    }

    fn sources(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(self.folder)
    }

    /// Where the packages are, which must have been brought for the lock file as it is now.
    fn packages(self) -> PathBuf {
        let packages = installed_apps().join(self.folder);
        let lock = match self.language {
            Language::Node => "package-lock.json",
            Language::Python => "requirements.txt",
        };
        let wanted = fs::read_to_string(self.sources().join(lock)).expect("the application's lock file");
        let present = fs::read_to_string(packages.join("brought")).unwrap_or_default();
        assert!(
            present.starts_with(&wanted),
            "the packages of tests/apps/{} are not in {} (or older than its {lock}): run `scripts/test-apps` or `make test`",
            self.folder,
            packages.display()
        );
        packages
    }
}

/// `apps` in cargo's target directory, or what `HOMING_APPS` names for a test binary that was carried elsewhere.
fn installed_apps() -> PathBuf {
    let beside_tmp = || option_env!("CARGO_TARGET_TMPDIR").map(|tmp| Path::new(tmp).with_file_name("apps"));
    let apps = std::env::var_os("HOMING_APPS").map(PathBuf::from).or_else(beside_tmp);
    apps.expect("HOMING_APPS names the packages' directory, or cargo has built the tests")
}

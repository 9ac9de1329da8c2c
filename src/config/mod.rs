//! What the operator wrote, turned into what we run on. Imports nothing of ours.
//!
//! `yaml/` reads the file into a tree that knows the location of each value, and fills in its expansions.
//! `schema_check/` compares the tree with the schema, which is made from the raw configuration (`raw/`: every key with its
//! type, default and range; also the source of the manual). `check/` turns the raw configuration into a checked
//! [`Config`], in which nothing is left to guess: no `Option` that means "default", no string that means an address.
//! All problems are reported at once.

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub(crate) mod address;
pub(crate) mod bind_to;
pub(crate) mod certificate_files;
mod check;
pub(crate) mod check_context;
pub(crate) mod cookie;
pub(crate) mod diagnostics;
mod discovery;
mod file_sd;
pub(crate) mod environment;
pub(crate) mod key_prefix;
mod pools;
mod process;
mod raw;
mod routes;
mod schema;
mod schema_check;
pub(crate) mod secret;
mod settings;
mod show;
mod store;
pub(crate) mod suggest;
mod tls;
mod tracing;
pub(crate) mod units;
mod watch;
pub(crate) mod yaml;

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;

pub use address::{ListenAddress, ServerAddress};
pub use bind_to::BindTo;
pub use certificate_files::{ClientCa, ClientCertificate, ClientTls, NamedFile};
pub use cookie::{Cookie, CookieMode, Lifetime, SameSite, Secure};
pub use diagnostics::{Problem, Problems, Severity, Warning};
pub use discovery::{Discovery, DnsDiscovery, RecordType};
pub use environment::{Environment, FileText, ProcessEnvironment};
pub use file_sd::parse_targets;
pub use pools::{HashOn, HealthCheck, Pool, Probe, Retries, Server};
pub use process::{AccessLog, Admin, Listener, Log, MetricsListener, Proxy};
pub use raw::{
    AcmeChallenge, AdminToken, Balance, CircuitBreaker, ClientAuth, Connection, ConnectionTls, ExternalAccount,
    FastPath, GuestCookies, Handoff, Issue, Key, ListenerLimits, ListenerTimeouts, LogFormat, LogLevel, NewSessionHint,
    OnClientHalfClose, OnForged, OnServerDown, OnServerDrain, Persistence, PoolLimits, Rebalance, Redirect, Role,
    Scheme, ServerState, Share, StreamsOnDown, TlsVersion, UpstreamProtocol,
};
pub use routes::{HostPattern, RequestHeaders, Route, RouteTarget};
pub use schema::{example, schema};
pub use secret::Secret;
pub use settings::Config;
pub use store::{Store, TableSnapshot};
pub use tls::{Acme, Certificate, ServerTls, Tls};
pub use tracing::{Otlp, Tracing};
pub use units::Size;
pub(crate) use watch::contents;
pub use watch::{Watch, watch};

pub use crate::session::source::SourceSettings;
pub use crate::store::engines::RemoteEngine;
pub use crate::store::shared::settings::{OnError, Remote};

use diagnostics::source_text::SourceText;
use diagnostics::{Diagnostic, Diagnostics};
use watch::MAX_CONFIG_FILE;

const NO_SHAPE: &str = "the file has not the shape of a configuration";

/// A file that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadedConfig {
    /// What to run on.
    pub config: Config,
    /// What deserves attention, in the order of the file.
    pub warnings: Vec<Warning>,
    /// With every default in it.
    root: raw::Root,
}

impl LoadedConfig {
    /// What to run on, without all else.
    pub fn into_config(self) -> Config {
        self.config
    }

    /// The effective configuration as YAML: every default spelled out, secrets replaced by `${…}`.
    pub fn effective(&self) -> String {
        show::show(&self.root, &self.config.pool_names())
    }
}

impl Config {
    /// Reads a file, with the environment of this process.
    pub fn load(path: &Path) -> Result<LoadedConfig, Problems> {
        let name = path.display().to_string();
        let bytes = read(path).map_err(|diagnostic| alone(&name, "", diagnostic))?;
        Self::parse(&name, bytes, &ProcessEnvironment)
    }

    /// Reads the text of a file. The name is for messages, and relative paths of certificates begin at its folder.
    pub fn parse(
        file_name: &str,
        text: impl AsRef<[u8]>,
        environment: &dyn Environment,
    ) -> Result<LoadedConfig, Problems> {
        let text = as_text(text.as_ref()).map_err(|diagnostic| alone(file_name, "", diagnostic))?;
        let mut source = SourceText::new(file_name, text);
        let mut diagnostics = Diagnostics::default();
        let config = build(file_name, text, environment, &mut source, &mut diagnostics);
        let report = |severity| {
            let source = &source;
            move |diagnostic: &Diagnostic| source.report(severity, diagnostic)
        };
        match config {
            Some((mut root, mut config)) if diagnostics.problems.is_empty() => {
                show::fill_in(&mut root, &config);
                config.hash = show::hash(&mut root, &config.pool_names());
                let warnings = Problems::new(diagnostics.warnings, report(Severity::Warning)).into_list();
                Ok(LoadedConfig { config, warnings, root })
            }
            _ => Err(Problems::new(diagnostics.problems, report(Severity::Error))),
        }
    }
}

fn build(
    file_name: &str,
    text: &str,
    environment: &dyn Environment,
    source: &mut SourceText<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<(raw::Root, Config)> {
    let mut tree = match yaml::parse(text, diagnostics) {
        Ok(tree) => tree,
        Err(diagnostic) => {
            diagnostics.problems.push(diagnostic);
            return None;
        }
    };
    source.hide_secrets_of(&tree);
    yaml::expand(&mut tree, environment, diagnostics);
    let Some(conforming) = schema_check::conforming(&tree, diagnostics) else {
        if diagnostics.problems.is_empty() {
            diagnostics.problem(None, NO_SHAPE, "");
        }
        return None;
    };
    let root: raw::Root = match serde_json::from_value(conforming.to_json()) {
        Ok(root) => root,
        Err(error) => {
            // The schema check passed what the raw types do not take: a bug, but it gets an answer, not a panic.
            diagnostics.problem(None, format!("{NO_SHAPE}: {error}"), "");
            return None;
        }
    };
    let pools: Vec<&str> = tree
        .entry("pools")
        .map(|pools| pools.value.entries())
        .unwrap_or_default()
        .iter()
        .map(|pool| pool.key.as_str())
        .collect();
    let folder = Path::new(file_name).parent().unwrap_or(Path::new(""));
    let context = check_context::CheckContext { environment, folder };
    let config = check::check(&root, &conforming, &pools, &context, diagnostics);
    Some((root, config))
}

/// A problem with the file as a whole.
fn alone(name: &str, text: &str, diagnostic: Diagnostic) -> Problems {
    Problems::new(vec![diagnostic], |diagnostic| SourceText::new(name, text).report(Severity::Error, diagnostic))
}

fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let unreadable = |error: &std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name the file with --config; \"homing config example\" prints one to start with"
            }
            std::io::ErrorKind::PermissionDenied => "the user that homing runs as must be allowed to read it",
            std::io::ErrorKind::IsADirectory => "name the file in it",
            _ => "",
        };
        Diagnostic::new(None, format!("cannot read the configuration: {error}"), help)
    };
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that is just as large.
    file.take(MAX_CONFIG_FILE + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    Ok(bytes)
}

fn as_text(bytes: &[u8]) -> Result<&str, Diagnostic> {
    if bytes.len() as u64 > MAX_CONFIG_FILE {
        return Err(Diagnostic::new(None, "the file is larger than 8 MiB", "is this the configuration of homing?"));
    }
    let help = "save it as UTF-8 without a byte order mark";
    if bytes.starts_with(&[0xef, 0xbb, 0xbf]) || bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Diagnostic::new(None, "the file begins with a byte order mark", help));
    }
    let line = |at: usize| bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(Diagnostic::new(
            None,
            format!("the file holds a NUL byte, on line {}", line(at)),
            "is this a text file?",
        ));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        Diagnostic::new(None, format!("the file is not UTF-8, on line {}", line(error.valid_up_to())), help)
    })
}

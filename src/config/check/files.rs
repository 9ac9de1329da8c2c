//! Files that the proxy writes.

use std::path::{Path, PathBuf};

use crate::config::check_context::NodeRef;
use crate::config::diagnostics::Diagnostics;
use crate::config::environment::Environment;
use crate::config::settings::Config;
use crate::config::suggest;

/// A file that a key names.
pub(super) struct WrittenFile {
    /// The key.
    pub(super) key: &'static str,
    /// What cannot be written when its directory does not take it.
    pub(super) what: &'static str,
    /// A path to write instead.
    pub(super) example: &'static str,
}

impl WrittenFile {
    /// The path, if it can be one. A directory that does not take files is only warned of: it may be made before the start.
    pub(super) fn check(
        &self,
        path: &str,
        at: NodeRef<'_>,
        environment: &dyn Environment,
        diagnostics: &mut Diagnostics,
    ) -> Option<PathBuf> {
        let file = Path::new(path);
        let (Some(folder), true, false) = (file.parent(), file.is_absolute(), path.ends_with('/')) else {
            let message = format!("\"{}\" cannot be {}", self.key, suggest::quoted(path));
            diagnostics.problem(
                at.location,
                message,
                format!("write the absolute path of a file, like {}", self.example),
            );
            return None;
        };
        if let Err(error) = environment.takes_files(folder) {
            let message = format!("no {} can be written to {}: {error}", self.what, folder.display());
            diagnostics.warn(at.location, message, "make the directory, and give it to the user that homing runs as");
        }
        Some(file.to_owned())
    }
}

/// One file for the sessions and the states: each would put the other aside.
pub(super) fn shared_files(config: &Config, at: NodeRef<'_>, diagnostics: &mut Diagnostics) {
    let state_file = config.admin.as_ref().and_then(|admin| admin.state_file.as_ref());
    if state_file.is_some() && state_file == config.store.snapshot.as_ref().map(|snapshot| &snapshot.path) {
        let message = "\"admin.state_file\" is the file of store.snapshot";
        diagnostics.problem(at.key("admin").key("state_file").location, message, "give each a file of its own");
    }
}

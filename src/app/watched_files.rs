//! Which files are watched: the configuration, and the certificates that it names.

use std::path::PathBuf;

use tokio::sync::mpsc::Sender;

use crate::config::{Config, ServerTls, Tls, Watch, contents, watch};

use super::reload_trigger::ReloadTrigger;

/// What files hold: a hash each; `None` for one that cannot be read.
pub(super) type FileContents = Vec<Option<Vec<u8>>>;

/// Triggers a reload when one of the files changes, until it is dropped.
pub(super) struct FileWatcher {
    file: PathBuf,
    /// The file and its certificates.
    files: Vec<PathBuf>,
    reloads: Sender<ReloadTrigger>,
    watch: Option<Watch>,
}

impl FileWatcher {
    pub(super) fn new(file: PathBuf, config: &Config, reloads: Sender<ReloadTrigger>) -> Self {
        let mut watcher = Self { file, files: Vec::new(), reloads, watch: None };
        watcher.update(config);
        watcher
    }

    /// What the files hold now, to compare.
    pub(super) fn contents(&self) -> FileContents {
        self.files.iter().map(|file| contents(file)).collect()
    }

    /// Watches the files that this configuration names.
    pub(super) fn update(&mut self, config: &Config) {
        let certificates = config.listeners.iter().filter_map(|listener| listener.tls.as_ref()).flat_map(Tls::files);
        let to_servers = config.pools.iter().filter_map(|pool| pool.tls.as_ref()).flat_map(ServerTls::files);
        let mut files = vec![self.file.clone()];
        for certificate in certificates.chain(to_servers) {
            if !files.iter().any(|file| file == certificate) {
                files.push(certificate.to_owned());
            }
        }
        if files == self.files {
            return;
        }
        let reloads = self.reloads.clone();
        let watch = watch(&files, move || {
            let _ = reloads.try_send(ReloadTrigger::FileChanged);
        });
        // A directory that cannot be watched is no reason not to run: HUP still reloads.
        match watch {
            Ok(watch) => {
                for (directory, error) in &watch.unwatched {
                    let directory = directory.display();
                    tracing::warn!(%directory, %error, "a directory cannot be watched; use HUP after changes there");
                }
                self.watch = Some(watch);
            }
            Err(error) => {
                tracing::warn!(%error, "files cannot be watched; use HUP to reload");
                self.watch = None;
            }
        }
        self.files = files;
    }
}

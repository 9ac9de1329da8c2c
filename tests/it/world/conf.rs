//! Configurations in a few words. What a test does not say has the default; keys and an access log are always there,
//! so that restarts forget nothing and failures show what happened.

use std::fmt;

/// A sealing key.
pub(crate) const KEY_1: &str = "{ id: k1, secret: \"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\" }";
/// Another.
pub(crate) const KEY_2: &str = "{ id: k2, secret: \"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=\" }";

/// A health check that finds a dead server within a second.
pub(crate) const QUICK_CHECK: &str =
    "health_check: { type: http, path: /healthz, interval: 250ms, timeout: 250ms, rise: 1, fall: 2 }";

/// One listener and one pool, `web`, with applications of the world as servers.
#[derive(Debug, Clone)]
pub(crate) struct Conf {
    listener: Vec<String>,
    servers: Vec<(String, String, Vec<String>)>,
    pool: Vec<String>,
    persistence: Option<Vec<String>>,
    keys: Vec<String>,
    store: Vec<String>,
    top: Vec<String>,
}

impl Conf {
    /// A pool of these servers, named with blanks between them, sticky by cookie.
    pub(crate) fn servers(names: &str) -> Self {
        Self {
            listener: Vec::new(),
            servers: names.split_whitespace().map(|n| (n.to_owned(), format!("{{{{{n}}}}}"), Vec::new())).collect(),
            pool: Vec::new(),
            persistence: Some(Vec::new()),
            keys: vec![KEY_1.to_owned()],
            store: Vec::new(),
            top: Vec::new(),
        }
    }

    /// Says more about a server, e.g. `weight: 0`.
    pub(crate) fn server(mut self, name: &str, entry: &str) -> Self {
        let server = self.servers.iter_mut().find(|(n, ..)| n == name);
        server.unwrap_or_else(|| panic!("the configuration has no server {name}")).2.push(entry.to_owned());
        self
    }

    /// Puts a server at another address.
    pub(crate) fn address(mut self, name: &str, address: &str) -> Self {
        let server = self.servers.iter_mut().find(|(n, ..)| n == name);
        address.clone_into(&mut server.unwrap_or_else(|| panic!("the configuration has no server {name}")).1);
        self
    }

    /// Says more about the pool, e.g. `balance: random`.
    pub(crate) fn pool(mut self, entry: &str) -> Self {
        self.pool.push(entry.to_owned());
        self
    }

    /// Says more about persistence, e.g. `idle_timeout: 2s`.
    pub(crate) fn persistence(mut self, entry: &str) -> Self {
        self.persistence.get_or_insert_default().push(entry.to_owned());
        self
    }

    /// Every request is balanced afresh.
    pub(crate) fn without_persistence(mut self) -> Self {
        self.persistence = None;
        self
    }

    /// Says more about the listener, e.g. `max_body_size: 1KiB`.
    pub(crate) fn listener(mut self, entry: &str) -> Self {
        self.listener.push(entry.to_owned());
        self
    }

    /// Other sealing keys, or none.
    pub(crate) fn keys(mut self, keys: &[&str]) -> Self {
        self.keys = keys.iter().map(|&k| k.to_owned()).collect();
        self
    }

    /// Says more about the store, e.g. `near_ttl: 1s`; what a started store's `entry()` says makes the proxy use it.
    pub(crate) fn store(mut self, entry: &str) -> Self {
        self.store.push(entry.to_owned());
        self
    }

    /// A line at the top level, e.g. `proxy: { threads: 1 }`.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }
}

impl fmt::Display for Conf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listener = more_entries(&self.listener);
        writeln!(f, "version: 1")?;
        writeln!(f, "listeners:\n  - {{ address: \"{{{{proxy}}}}\"{listener} }}")?;
        if !self.top.iter().any(|line| line.starts_with("admin:")) {
            writeln!(f, "admin: {{ address: \"{{{{admin}}}}\" }}")?;
        }
        if !self.top.iter().any(|line| line.starts_with("log:")) {
            writeln!(f, "log: {{ level: info, access: \"{{{{access}}}}\" }}")?;
        }
        if !self.keys.is_empty() {
            writeln!(f, "keys: [{}]", self.keys.join(", "))?;
        }
        if !self.store.is_empty() {
            writeln!(f, "store: {{ {} }}", self.store.join(", "))?;
        }
        for line in &self.top {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "pools:\n  web:\n    servers:")?;
        for (name, address, entries) in &self.servers {
            let entries = more_entries(entries);
            writeln!(f, "      - {{ name: {name}, address: \"{address}\"{entries} }}")?;
        }
        for entry in &self.pool {
            writeln!(f, "    {entry}")?;
        }
        match &self.persistence {
            Some(entries) => writeln!(f, "    persistence: {{ {} }}", entries.join(", ")),
            None => writeln!(f, "    persistence: null"),
        }
    }
}

/// Further entries of a mapping in braces.
fn more_entries(entries: &[String]) -> String {
    entries.iter().flat_map(|entry| [", ", entry]).collect()
}

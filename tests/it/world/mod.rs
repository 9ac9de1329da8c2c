//! The world that the tests speak of: application servers, browsers, and the real proxy between them.
//!
//! ```text
//! let world = World::start(Conf::servers("a b c"));
//! let alice = world.browser();
//! let home = alice.server();
//! world.app(&home).kill();
//! assert_ne!(alice.server(), home);
//! ```
//!
//! In a configuration `{{proxy}}` and `{{admin}}` stand for the proxy's own addresses, `{{access}}` for its access log,
//! `{{dir}}` for the test's directory, `{{name}}` for the application server of that name, which is then started;
//! `{{name:port}}` for its port alone. More addresses of the proxy: `{{proxy2}}`, `{{metrics}}`; on `::1`: `{{proxy6}}`.

pub(crate) mod acme;
pub(crate) mod app;
pub(crate) mod apps;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod conf;
pub(crate) mod crowd;
pub(crate) mod frames;
mod guard;
pub(crate) mod h2c;
pub(crate) mod http1;
pub(crate) mod link;
pub(crate) mod metrics;
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod operator;
pub(crate) mod ports;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod stores;
mod switch;
pub(crate) mod tls;
pub(crate) mod tls_server;
pub(crate) mod traffic;
pub(crate) mod websocket;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use app::App;
pub(crate) use browser::{Browser, SESSION_COOKIE};
pub(crate) use client::{Response, Wire};
pub(crate) use conf::{Conf, KEY_1, KEY_2, QUICK_CHECK};
pub(crate) use net::{Address, PATIENCE};
use ports::Port;
pub(crate) use proxy::{Launch, Proxy, Signal};

/// Waits for a condition; what it waited for is in the message when it never came.
#[track_caller]
pub(crate) fn eventually(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asks so many times at once, and says which different answers there were.
pub(crate) fn at_once<T: Ord + Send>(times: usize, ask: impl Fn() -> T + Sync) -> BTreeSet<T> {
    let ask = &ask;
    thread::scope(|scope| {
        let asked: Vec<_> = (0..times).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    })
}

/// Application servers and a proxy before them. Its [`Proxy`] can be spoken to directly.
#[derive(Debug)]
pub(crate) struct World {
    // Dropped in this order: the proxy first.
    proxy: Option<Proxy>,
    pub(crate) environment: Environment,
}

/// The application servers, the ports and the files of one test.
#[derive(Debug)]
pub(crate) struct Environment {
    apps: BTreeMap<String, App>,
    ports: BTreeMap<String, Port>,
    template: String,
    directory: TempDir,
}

/// How a world begins.
#[derive(Debug)]
pub(crate) struct Builder {
    environment: Environment,
    down: Vec<String>,
}

impl Builder {
    /// The server's port is reserved, but nothing listens on it yet.
    pub(crate) fn down(mut self, app: &str) -> Self {
        self.down.push(app.to_owned());
        self
    }

    /// An application server of one's own making, e.g. on `::1` or a unix socket.
    pub(crate) fn with_app(mut self, make: impl FnOnce(&Path) -> App) -> Self {
        let app = make(self.environment.directory.path());
        self.environment.apps.insert(app.name().to_owned(), app);
        self
    }

    /// Prepares the environment, with its application servers running, before the proxy starts.
    pub(crate) fn before(mut self, prepare: impl FnOnce(&mut Environment)) -> Self {
        self.start_apps();
        prepare(&mut self.environment);
        self
    }

    fn start_apps(&mut self) {
        self.environment.render_for("");
        for (name, app) in &self.environment.apps {
            if !self.down.contains(name) {
                app.start();
            }
        }
    }

    pub(crate) fn start(mut self) -> World {
        self.start_apps();
        let launch = self.environment.launch("");
        let proxy = Proxy::start(&launch, self.environment.directory.path());
        World { proxy: Some(proxy), environment: self.environment }
    }

    /// Without a proxy: the test starts it itself.
    pub(crate) fn start_without_proxy(self) -> World {
        World { proxy: None, environment: self.without_proxy() }
    }

    /// The servers and the configuration file, but no proxy.
    pub(crate) fn without_proxy(mut self) -> Environment {
        self.start_apps();
        self.environment.launch("");
        self.environment
    }
}

impl World {
    /// The servers that the configuration names, and the proxy, ready.
    pub(crate) fn start(configuration: impl Display) -> Self {
        Self::builder(configuration).start()
    }

    pub(crate) fn builder(configuration: impl Display) -> Builder {
        let environment = Environment {
            apps: BTreeMap::new(),
            ports: BTreeMap::new(),
            template: configuration.to_string(),
            directory: tempfile::Builder::new().prefix("homing-it-").tempdir().expect("a directory for the test"),
        };
        Builder { environment, down: Vec::new() }
    }

    /// One more proxy with the same servers, keys and file, at addresses of its own.
    pub(crate) fn another_proxy(&mut self, suffix: &str) -> Proxy {
        let launch = self.environment.launch(suffix);
        Proxy::start(&launch, self.environment.directory.path())
    }

    /// Ends the proxy and starts it again, with the same file and addresses.
    pub(crate) fn restart_proxy(&mut self) {
        self.stop_proxy();
        self.start_proxy();
    }

    /// The proxy has ended by itself or by a signal.
    pub(crate) fn forget_proxy(&mut self) {
        self.proxy = None;
    }

    /// A proxy that was started elsewhere. Returned is the one that was there.
    pub(crate) fn replace_proxy(&mut self, proxy: Proxy) -> Proxy {
        self.proxy.replace(proxy).expect("the proxy runs")
    }

    /// The same where there is none.
    pub(crate) fn set_proxy(&mut self, proxy: Proxy) {
        self.proxy = Some(proxy);
    }

    /// A new proxy with the same file and addresses.
    pub(crate) fn start_proxy(&mut self) {
        let launch = self.environment.launch("");
        self.proxy = Some(Proxy::start(&launch, self.environment.directory.path()));
    }

    /// Ends the proxy gracefully and forgets it.
    pub(crate) fn stop_proxy(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.stop();
        }
    }

    /// Puts another configuration into force.
    #[track_caller]
    pub(crate) fn reload(&mut self, configuration: impl Display) {
        let text = self.environment.rewrite(configuration);
        Proxy::reload(self, &text);
    }

    /// Tries another configuration, which may be refused or change nothing.
    #[track_caller]
    pub(crate) fn try_reload(&mut self, configuration: impl Display) {
        let text = self.environment.rewrite(configuration);
        Proxy::try_reload(self, &text);
    }

    pub(crate) fn app(&self, name: &str) -> &App {
        self.environment.app(name)
    }

    pub(crate) fn apps(&self) -> impl Iterator<Item = &App> {
        self.environment.apps.values()
    }

    /// How many requests of that method and path arrived at all servers together.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.apps().map(|app| app.count(method, path)).sum()
    }

    /// Waits until the proxy believes a server up (1) or down (0).
    #[track_caller]
    pub(crate) fn wait_for_health(&self, server: &str, up: bool) {
        eventually(PATIENCE, &format!("server {server} is {}", if up { "up" } else { "down" }), || {
            let value = self.metric("homing_server_up", &[("server", server)]);
            (value > 0.5) == up
        });
    }

    pub(crate) fn directory(&self) -> &Path {
        self.environment.directory.path()
    }
}

impl Deref for World {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        self.proxy.as_ref().expect("the proxy runs")
    }
}

impl Environment {
    pub(crate) fn app(&self, name: &str) -> &App {
        self.apps.get(name).unwrap_or_else(|| panic!("the world has no server {name}"))
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.config_of("")
    }

    /// Another template from now on; servers that it names newly are started. Returns its text for the first proxy.
    pub(crate) fn rewrite(&mut self, configuration: impl Display) -> String {
        let known: Vec<_> = self.apps.keys().cloned().collect();
        self.template = configuration.to_string();
        let text = self.render_for("");
        for (name, app) in &self.apps {
            if !known.contains(name) {
                app.start();
            }
        }
        text
    }

    /// An address of the proxy of that suffix, reserved when it is first asked for.
    pub(crate) fn address(&mut self, name: &str) -> Address {
        let make = if name.ends_with('6') { Port::reserve_v6 } else { Port::reserve };
        self.ports.entry(name.to_owned()).or_insert_with(make).address().into()
    }

    fn config_of(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("homing{suffix}.yaml"))
    }

    fn access_of(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("access{suffix}.log"))
    }

    /// Writes the file of the proxy of that suffix and says how to start it.
    pub(crate) fn launch(&mut self, suffix: &str) -> Launch {
        let text = self.render_for(suffix);
        let config = self.config_of(suffix);
        fs::write(&config, text).expect("a configuration file");
        Launch {
            address: self.address(&format!("proxy{suffix}")),
            admin: self.address(&format!("admin{suffix}")),
            config,
            access_log: self.access_of(suffix),
            environment: Vec::new(),
            arguments: None,
            program: None,
            descriptors: None,
            stdin: None,
        }
    }

    /// The template's text with everything in double braces replaced.
    pub(crate) fn render_for(&mut self, suffix: &str) -> String {
        let template = self.template.clone();
        let mut text = String::new();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, left) = after.split_once("}}").expect("double braces are closed");
            text.push_str(before);
            text.push_str(&self.value_of(name, suffix));
            rest = left;
        }
        text.push_str(rest);
        switch::apply(text)
    }

    fn value_of(&mut self, name: &str, suffix: &str) -> String {
        if let Some(name) = name.strip_suffix(":port") {
            return self.app_address(name).port().to_string();
        }
        match name {
            "dir" => self.directory.path().display().to_string(),
            "access" => self.access_of(suffix).display().to_string(),
            _ if ["proxy", "admin", "metrics"].iter().any(|word| name.starts_with(word)) => {
                self.address(&format!("{name}{suffix}")).to_string()
            }
            _ => self.app_address(name).to_string(),
        }
    }

    fn app_address(&mut self, name: &str) -> Address {
        self.apps.entry(name.to_owned()).or_insert_with(|| App::reserve(name)).address()
    }
}

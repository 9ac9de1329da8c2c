//! Connecting: the URLs of the configuration, each step in bounded time, and what kind of server answers.

use std::fmt;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, InfoDict, IntoConnectionInfo, Pipeline, RedisError,
    Value as Response,
};
use tokio::time::timeout;
use tracing::warn;

use super::errors::{Failure, Remedy};
use super::settings::{RedisMode, RedisSettings};
use crate::store::engine::StoreError;

/// The addresses to connect to. Only addresses are ever printed: the rest of a URL is secret.
#[derive(Debug, Clone)]
pub(super) struct Endpoints {
    /// The server, the sentinels, or nodes of the cluster. Never empty.
    pub(super) seeds: Vec<ConnectionInfo>,
    pub(super) mode: RedisMode,
    /// What the sentinels call the server.
    pub(super) master_name: String,
}

impl Endpoints {
    /// # Errors
    /// Names the invalid URL by its index, with the reason.
    pub(super) fn read(settings: &RedisSettings) -> Result<Self, StoreError> {
        let seeds = settings.urls.iter().enumerate().map(|(at, url)| {
            url.expose()
                .into_connection_info()
                .map_err(|error| error.to_string())
                .and_then(with_our_settings)
                .map_err(|reason| StoreError::Refused(format!("urls[{at}] is invalid: {reason}")))
        });
        let seeds = seeds.collect::<Result<Vec<_>, _>>()?;
        if seeds.is_empty() {
            return Err(StoreError::Refused("urls is empty: write at least one, `redis://10.0.0.1:6379`".to_owned()));
        }
        Ok(Self { seeds, mode: settings.mode, master_name: settings.master_name.clone().unwrap_or_default() })
    }
}

fn with_our_settings(info: ConnectionInfo) -> Result<ConnectionInfo, String> {
    if let ConnectionAddr::TcpTls { host, insecure, .. } = info.addr() {
        if *insecure {
            return Err("`#insecure` is not supported: the server's certificate is always verified".to_owned());
        }
        rustls::pki_types::ServerName::try_from(host.as_str())
            .map_err(|_invalid| format!("no certificate can be for the host {host:?}"))?;
    }
    let redis = info.redis_settings().clone().set_lib_name("homing", env!("CARGO_PKG_VERSION"));
    Ok(info.set_tcp_settings(tcp()).set_redis_settings(redis))
}

/// Without Nagle's delay, which redis-rs leaves on.
pub(super) fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

/// An address as it is written in a URL.
pub(super) fn address(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
            format!("[{host}]:{port}")
        }
        addr => addr.to_string(),
    }
}

/// Host and port, as a cluster or a sentinel reports them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Node {
    /// The inverse of `Display`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    /// `None` for a unix socket.
    pub(super) fn of(info: &ConnectionInfo) -> Option<Self> {
        match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                Some(Self { host: host.clone(), port: *port })
            }
            _ => None,
        }
    }

    /// This node with the user, password, database and scheme of `info`.
    pub(super) fn info(&self, info: &ConnectionInfo) -> ConnectionInfo {
        let (host, port) = (self.host.clone(), self.port);
        let addr = match info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        info.clone().set_addr(addr)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Opens connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// For each step.
    pub(super) timeout: Duration,
}

/// A connection that receives announcements, and the handle to ping it.
pub(super) struct Subscription {
    pub(super) sink: PubSubSink,
    pub(super) stream: PubSubStream,
}

impl Connector {
    /// When redis-rs drops a request. Callers have given up long before; this only bounds what it keeps in memory.
    pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
    /// For a whole cluster, some of whose nodes may not answer.
    pub(super) const CLUSTER_TIMEOUT: Duration = Duration::from_secs(3);
    /// Requests waiting to be written. Further callers wait for a free slot until they give up.
    const PIPELINE_BUFFER: usize = 1024;

    /// A connection for commands, and what kind of server it leads to.
    pub(super) async fn identified(
        &self,
        info: &ConnectionInfo,
    ) -> Result<(MultiplexedConnection, ServerInfo), Failure> {
        let mut connection = self.open(info).await?;
        let server = self.identify(&mut connection).await?;
        Ok((connection, server))
    }

    /// A connection for commands.
    pub(super) async fn open(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(Self::RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(Self::PIPELINE_BUFFER);
        let client = Client::open(info.clone())?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        self.within("connecting", self.timeout, connecting).await
    }

    /// A connection subscribed to one channel.
    pub(super) async fn subscribe(&self, info: &ConnectionInfo, channel: &str) -> Result<Subscription, Failure> {
        let client = Client::open(info.clone())?;
        let (mut sink, stream) =
            self.within("connecting to subscribe", self.timeout, client.get_async_pubsub()).await?.split();
        self.within("SUBSCRIBE", self.timeout, sink.subscribe(channel)).await?;
        Ok(Subscription { sink, stream })
    }

    /// The same; `None` where the user has no permission to subscribe: then moves are not announced.
    pub(super) async fn subscribe_if_permitted(
        &self,
        info: &ConnectionInfo,
        channel: &str,
    ) -> Result<Option<Subscription>, Failure> {
        match self.subscribe(info, channel).await {
            Err(failure) if failure.remedy == Remedy::OtherCommand => {
                warn!("no permission to subscribe, so moves by other proxies are noticed late: {}", failure.error);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Checks that the server is ready (one that is loading its data is not) and asks for its version. Where the user has
    /// no permission for `INFO`, the version is unknown.
    async fn identify(&self, connection: &mut MultiplexedConnection) -> Result<ServerInfo, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING").cmd("INFO").arg("server").cmd("INFO").arg("replication");
        pipeline.cmd("CLIENT").arg("SETNAME").arg("homing").ignore_errors();
        let query = pipeline.query_async::<Vec<Response>>(connection);
        let mut responses = self.within("the first response", self.timeout, query).await?.into_iter();
        check_ping(responses.next().unwrap_or_default().extract_error())?;
        let text = info_text(responses.next()) + &info_text(responses.next());
        Ok(ServerInfo::parse(&text))
    }

    /// The result of a step, or a failure when it takes longer than `limit`.
    pub(super) async fn within<T>(
        &self,
        step: &str,
        limit: Duration,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        if let Ok(done) = timeout(limit, work).await {
            return Ok(done?);
        }
        let reason = format!("{step} took longer than {} ms", limit.as_millis());
        Err(Failure::unreachable(reason, Remedy::Reconnect))
    }
}

/// A server that answers `PING`, or denies it to this user, is ready; one that is loading is not.
pub(super) fn check_ping(response: Result<Response, RedisError>) -> Result<(), Failure> {
    match response.map_err(Failure::from) {
        Err(failure) if failure.remedy != Remedy::OtherCommand => Err(failure),
        _ => Ok(()),
    }
}

/// The response to `INFO` in any protocol version; empty when there is none.
pub(super) fn info_text(response: Option<Response>) -> String {
    response.and_then(|response| redis::from_redis_value(response).ok()).unwrap_or_default()
}

/// What a server reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerInfo {
    /// "valkey 9.1.2", or "unknown" where the user has no permission for `INFO`.
    pub(super) label: String,
    /// Whether it accepts writes; `None` when not reported.
    pub(super) primary: Option<bool>,
    version: Option<(Vendor, (u32, u32))>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Redis,
    Valkey,
}

impl ServerInfo {
    /// From the response to `INFO`, sections `server` and `replication`.
    pub(super) fn parse(text: &str) -> Self {
        let info = InfoDict::new(text);
        let field = |name: &str| info.get::<String>(name).filter(|value| !value.is_empty());
        // Valkey reports a `redis_version` too, for compatibility, so its own comes first.
        let (vendor, name, version) = match (field("valkey_version"), field("redis_version")) {
            (Some(version), _) => (Vendor::Valkey, "valkey", version),
            (None, Some(version)) => (Vendor::Redis, "redis", version),
            (None, None) => {
                return Self { label: "unknown".to_owned(), primary: is_primary(field("role")), version: None };
            }
        };
        let label = format!("{name} {version}");
        let version = major_minor(&version).map(|version| (vendor, version));
        Self { label, primary: is_primary(field("role")), version }
    }

    /// `SET … NX GET` and `PEXPIRE … GT`. Where the version is unknown they are tried.
    pub(super) fn has_nx_get_and_gt(&self) -> bool {
        self.is_at_least((7, 0), (7, 2)).unwrap_or(true)
    }

    /// `SET … IFEQ`, for certain.
    pub(super) fn has_set_ifeq(&self) -> bool {
        self.is_at_least((8, 4), (8, 1)).unwrap_or(false)
    }

    fn is_at_least(&self, redis: (u32, u32), valkey: (u32, u32)) -> Option<bool> {
        self.version.map(|(vendor, version)| match vendor {
            Vendor::Redis => version >= redis,
            Vendor::Valkey => version >= valkey,
        })
    }
}

fn is_primary(role: Option<String>) -> Option<bool> {
    role.map(|role| role == "master")
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn read(urls: &[&str]) -> Result<Endpoints, StoreError> {
        Endpoints::read(&RedisSettings {
            urls: urls.iter().copied().map(Secret::new).collect(),
            ..RedisSettings::default()
        })
    }

    #[test]
    fn a_url_gives_address_user_password_and_database() {
        let endpoints = read(&["rediss://edge:p%40ss@redis.internal:6390/3"]).unwrap();
        let seed = endpoints.seeds.first().unwrap();
        assert_eq!(seed.addr().to_string(), "redis.internal:6390");
        let settings = seed.redis_settings();
        assert_eq!((settings.username(), settings.password(), settings.db()), (Some("edge"), Some("p@ss"), 3));
        assert!(seed.tcp_settings().nodelay(), "a command does not wait for a second one");
        let other = Node { host: "10.0.0.9".to_owned(), port: 6379 }.info(seed);
        assert!(matches!(other.addr(), ConnectionAddr::TcpTls { .. }), "the scheme is kept");
        assert_eq!((other.addr().to_string().as_str(), other.redis_settings().db()), ("10.0.0.9:6379", 3));
    }

    #[test]
    fn an_address_is_printed_as_it_is_written() {
        for written in ["10.0.0.9:6379", "[::1]:6390", "redis.internal:6379"] {
            let endpoints = read(&[&format!("redis://:hunter2@{written}/1")]).unwrap();
            assert_eq!(address(endpoints.seeds.first().unwrap()), written);
        }
    }

    #[test]
    fn an_invalid_url_is_reported_without_its_password() {
        for (urls, reason) in [
            (&[][..], "urls is empty"),
            (&["redis://a", "http://edge:hunter2@b"], "urls[1] is invalid"),
            (&["redis://edge:hunter2@a/x"], "urls[0] is invalid"),
            (&["rediss://edge:hunter2@a#insecure"], "`#insecure` is not supported"),
            (&["redis://edge:hunter2@0.0.0.0"], "urls[0] is invalid"),
        ] {
            let error = read(urls).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_server_has_the_commands_of_its_version() {
        for (info, expected) in [
            ("# Server\r\nredis_version:6.2.14\r\n", ("redis 6.2.14", false, false)),
            ("redis_version:7.0.15\r\nrole:master", ("redis 7.0.15", true, false)),
            ("redis_version:8.2.9", ("redis 8.2.9", true, false)),
            ("redis_version:8.4.0", ("redis 8.4.0", true, true)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.9", ("valkey 7.2.9", true, false)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0", ("valkey 8.1.0", true, true)),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2", ("valkey 9.1.2", true, true)),
            ("", ("unknown", true, false)),
            ("redis_version:next", ("redis next", true, false)),
        ] {
            let server = ServerInfo::parse(info);
            let commands = (server.label.as_str(), server.has_nx_get_and_gt(), server.has_set_ifeq());
            assert_eq!(commands, expected, "{info:?}");
        }
    }

    #[test]
    fn a_replica_is_told_from_a_primary() {
        for (info, primary) in [("role:master\r\n", Some(true)), ("role:slave\r\n", Some(false)), ("", None)] {
            assert_eq!(ServerInfo::parse(info).primary, primary, "{info:?}");
        }
    }
}

//! Connecting: in bounded time, with the settings that a proxy needs, and asking at once who answers.

use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, Pipeline, RedisError, Value as Answer};
use tokio::time::timeout;

use super::failure::{Failure, Remedy};
use super::server::Server;
use crate::store::engine::StoreError;

/// How to connect.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    /// For each step.
    pub(super) timeout: Duration,
}

/// Announcements that come in, and the way to ask whether they still do.
pub(super) struct Subscription {
    pub(super) sink: PubSubSink,
    pub(super) stream: PubSubStream,
}

impl Dial {
    /// When redis-rs gives a request up. Callers have given it up long before; this only bounds what is remembered of it.
    pub(super) const RESPONSE: Duration = Duration::from_secs(5);
    /// For a whole cluster, some of whose nodes may not answer.
    pub(super) const CLUSTER: Duration = Duration::from_secs(3);
    /// Requests that wait to be written. More than that wait for their turn, until their callers give up.
    const WAITING: usize = 1024;

    /// A connection for commands, and who answers there.
    pub(super) async fn commands(&self, info: &ConnectionInfo) -> Result<(MultiplexedConnection, Server), Failure> {
        let mut connection = self.bare(info).await?;
        let server = self.introduce(&mut connection).await?;
        Ok((connection, server))
    }

    /// A connection for commands, to whomever.
    pub(super) async fn bare(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(Self::RESPONSE))
            .set_pipeline_buffer_size(Self::WAITING);
        let client = Client::open(info.clone())?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        self.within("connecting", self.timeout, connecting).await
    }

    /// A connection that hears one channel.
    pub(super) async fn subscription(&self, info: &ConnectionInfo, channel: &str) -> Result<Subscription, Failure> {
        let client = Client::open(info.clone())?;
        let (mut sink, stream) =
            self.within("connecting to subscribe", self.timeout, client.get_async_pubsub()).await?.split();
        self.within("SUBSCRIBE", self.timeout, sink.subscribe(channel)).await?;
        Ok(Subscription { sink, stream })
    }

    /// Whether it works now (a server that loads its data does not), and which server it is. A user who may not ask that
    /// has a server of unknown version.
    async fn introduce(&self, connection: &mut MultiplexedConnection) -> Result<Server, Failure> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("PING").cmd("INFO").arg("server").cmd("INFO").arg("replication");
        pipeline.cmd("CLIENT").arg("SETNAME").arg("homing").ignore_errors();
        let asking = pipeline.query_async::<Vec<Answer>>(connection);
        let mut answers = self.within("the first answer", self.timeout, asking).await?.into_iter();
        alive(answers.next().unwrap_or_default().extract_error())?;
        let text = info_text(answers.next()) + &info_text(answers.next());
        Ok(Server::read(&text))
    }

    /// The step's result, unless it takes too long.
    pub(super) async fn within<T>(
        &self,
        step: &str,
        limit: Duration,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Failure> {
        match timeout(limit, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Failure::new(
                StoreError::Unreachable(format!("{step} took longer than {} ms", limit.as_millis())),
                Remedy::Replace,
            )),
        }
    }
}

/// A server that answers `PING`, or that this user may not, is alive; one that is loading is not.
pub(super) fn alive(answer: Result<Answer, RedisError>) -> Result<(), Failure> {
    match answer.map_err(Failure::from) {
        Err(failure) if failure.remedy != Remedy::OtherCommand => Err(failure),
        _ => Ok(()),
    }
}

/// The text of an answer to `INFO`, in any protocol; empty when there is none.
pub(super) fn info_text(answer: Option<Answer>) -> String {
    match answer {
        Some(Answer::BulkString(text)) => String::from_utf8_lossy(&text).into_owned(),
        Some(Answer::VerbatimString { text, .. } | Answer::SimpleString(text)) => text,
        _ => String::new(),
    }
}

/// Without Nagle's delay, which redis-rs leaves on.
pub(super) fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

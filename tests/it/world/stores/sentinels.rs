//! A master with a replica, and three sentinels of which two agree on a failover.

use super::redis::{Kind, RedisServer, Role, Setup};
use super::resp::Reply;
use crate::world::apps::LONG;
use crate::world::eventually;

/// What the sentinels call their master.
const NAME: &str = "homing";

/// Two servers, one of them the master, and the sentinels that watch them.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: [RedisServer; 2],
    sentinels: Vec<RedisServer>,
}

impl Sentinels {
    #[track_caller]
    pub(crate) fn start(kind: Kind) -> Self {
        Self::with(kind, |setup| setup)
    }

    /// With more said of both servers: with a password, `|server| server.password("x").line("masterauth x")`.
    #[track_caller]
    pub(crate) fn with<'a>(kind: Kind, adapt: impl Fn(Setup<'a>) -> Setup<'a>) -> Self {
        let master = adapt(RedisServer::setup(kind)).start();
        let address = master.address();
        let of_master = format!("replicaof {} {}", address.ip(), address.port());
        let replica = adapt(RedisServer::setup(kind)).line(&of_master).start();
        // Sentinels ask a master for its replicas when they meet it, and then only every ten seconds.
        eventually(LONG, "the replica has all that the master has", || {
            replica.info("master_link_status").as_deref() == Some("up")
                && master.info("slave0").is_some_and(|slave| slave.contains("state=online"))
        });
        let sentinels = (0..3).map(|_| {
            let mut setup = Setup::new(kind, Role::Sentinel)
                .line(&format!("sentinel monitor {NAME} {} {} 2", address.ip(), address.port()))
                // On a machine with two cores and many tests, a pause of a second is no failure, and a demoted master
                // loses its latest writes.
                .line(&format!("sentinel down-after-milliseconds {NAME} 2000"))
                .line(&format!("sentinel failover-timeout {NAME} 2000"));
            if let Some((user, password)) = master.login() {
                setup = setup.line(&format!("sentinel auth-pass {NAME} {password}"));
                if user != "default" {
                    setup = setup.line(&format!("sentinel auth-user {NAME} {user}"));
                }
            }
            let sentinel = setup.start();
            // Else they look every ten seconds, tell each other every two, and after a pause of the machine rest for thirty.
            // A server that is too old for it refuses, and all takes longer.
            sentinel.command(&[
                "SENTINEL",
                "DEBUG",
                "info-period",
                "300",
                "publish-period",
                "300",
                "tilt-period",
                "1000",
            ]);
            sentinel
        });
        let sentinels = Self { sentinels: sentinels.collect(), servers: [master, replica] };
        sentinels.wait_until_they_know_each_other();
        sentinels
    }

    #[track_caller]
    fn wait_until_they_know_each_other(&self) {
        eventually(LONG, "the sentinels know each other and the replica", || {
            self.sentinels.iter().all(|sentinel| {
                let Ok(Reply::List(facts)) = sentinel.try_command(&["SENTINEL", "MASTER", NAME]) else { return false };
                let facts: Vec<_> = facts.into_iter().map(Reply::text).collect();
                let says = |name: &str, value: &str| facts.chunks(2).any(|fact| fact[0] == name && fact[1] == value);
                says("num-slaves", "1") && says("num-other-sentinels", "2") && says("flags", "master")
            })
        });
    }

    /// For `Conf::store`, with the addresses of all sentinels.
    pub(crate) fn entry(&self) -> String {
        let urls: Vec<_> = self.sentinels.iter().map(|sentinel| format!("\"{}\"", sentinel.url())).collect();
        format!("type: redis, redis: {{ mode: sentinel, master_name: {NAME}, urls: [{}] }}", urls.join(", "))
    }

    pub(crate) fn sentinel(&self, number: usize) -> &RedisServer {
        &self.sentinels[number]
    }

    /// The master, by the word of all sentinels that run.
    #[track_caller]
    pub(crate) fn master(&self) -> &RedisServer {
        &self.servers[self.agreed_primary().expect("the sentinels agree on the master")]
    }

    /// The other server.
    #[track_caller]
    pub(crate) fn replica(&self) -> &RedisServer {
        &self.servers[1 - self.agreed_primary().expect("the sentinels agree on the master")]
    }

    /// Kills the master and waits until the other is it. Returns the new one.
    #[track_caller]
    pub(crate) fn fail_over(&self) -> &RedisServer {
        let old = self.master();
        old.kill();
        self.wait_for_failover_from(old)
    }

    /// After the master was killed or frozen: waits until the other is it, and all sentinels know. Returns the new one.
    #[track_caller]
    pub(crate) fn wait_for_failover_from(&self, old: &RedisServer) -> &RedisServer {
        let mut new = None;
        eventually(LONG, "the replica becomes the master", || {
            let named = self.agreed_primary().map(|number| &self.servers[number]);
            new = named.filter(|server| server.address() != old.address() && is_master(server));
            new.is_some()
        });
        new.expect("just seen")
    }

    /// The number of the server that all running sentinels name.
    fn agreed_primary(&self) -> Option<usize> {
        let named = |sentinel: &RedisServer| {
            let named = sentinel.try_command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
            let port = named.list().pop()?.text();
            self.servers.iter().position(|server| server.address().port().to_string() == port)
        };
        let mut all = self.sentinels.iter().filter(|sentinel| sentinel.is_running()).map(named);
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }
}

fn is_master(server: &RedisServer) -> bool {
    let role = server.try_command(&["ROLE"]);
    matches!(role, Ok(Reply::List(role)) if role.first() == Some(&Reply::Text("master".to_owned())))
}

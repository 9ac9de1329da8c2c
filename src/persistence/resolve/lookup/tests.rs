use std::thread;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

use super::*;
use crate::config::{Config, Environment, FileText, Persistence};
use crate::pool::condition::Health;
use crate::session::key::{ServerId, SessionId};
use crate::session::token::TokenError;
use crate::telemetry::metrics::Metrics;

pub(in crate::persistence) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const IDLE: Duration = Duration::from_secs(60);
const ABSOLUTE: Duration = Duration::from_secs(600);

/// A pool of the servers a, b, c and d, its table, and nothing else of a proxy.
pub(in crate::persistence) struct World {
    pub(in crate::persistence) pool: Pool,
    pub(in crate::persistence) policy: Persistence,
    pub(in crate::persistence) table: Table,
    data: SessionData,
    targets: Vec<Arc<Target>>,
    tombstone: Arc<Target>,
    limits: Limits,
}

struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &std::path::Path) -> Result<FileText, String> {
        Err("there are no files here".into())
    }
}

impl World {
    /// `persistence`: what its configuration says besides the limits.
    pub(in crate::persistence) fn new(persistence: &str) -> Self {
        let servers = ["a", "b", "c", "d"].map(|name| format!("{{ name: {name}, address: 127.0.0.1:9000 }}")).join(",");
        let text = format!(
            "version: 1\nlisteners: [{{ address: 127.0.0.1:8080 }}]\npools: {{ shop: {{ servers: [{servers}], \
             health_check: {{ type: tcp }}, persistence: {{ {persistence} }} }} }}\n"
        );
        let config = Config::parse("test.yaml", &text, &Nothing).unwrap_or_else(|wrong| panic!("{wrong}")).config;
        let table = Table::new(1000, NOW, Box::new(|_, _| ()));
        table.set_limits("shop", IDLE, ABSOLUTE);
        let pool = Pool::build(&config.pools[0], None, None, &Metrics::new().unwrap());
        for server in &pool.servers {
            server.live.set_health(Health::Up);
        }
        Self {
            targets: pool.servers.iter().map(|server| table.target("shop", &server.name)).collect(),
            tombstone: table.target("shop", ""),
            limits: Limits { idle: IDLE, absolute: ABSOLUTE },
            policy: config.pools[0].persistence.clone().unwrap(),
            pool,
            table,
            data: SessionData::new(1 << 20, NOW, Box::new(|_| ())),
        }
    }

    pub(in crate::persistence) fn pool_sessions(&self) -> PoolSessions<'_> {
        PoolSessions {
            table: &self.table,
            pool: &self.pool,
            targets: &self.targets,
            tombstone: &self.tombstone,
            limits: &self.limits,
            data: &self.data,
            shared: None,
            hands_over: false,
            looks_only: false,
        }
    }

    pub(in crate::persistence) fn server(&self, name: &str) -> ServerIndex {
        self.pool.find(ServerId::of(name)).unwrap()
    }

    pub(in crate::persistence) fn set(&self, name: &str, health: Health) {
        self.pool.server_named(name).unwrap().live.set_health(health);
    }

    fn seen(&self, claim: &SessionClaim) -> Recognition {
        recognize(claim, &self.pool_sessions(), NOW)
    }

    /// Where the table says that a key is now.
    fn place_of(&self, key: SessionKey) -> Option<String> {
        match self.table.find(&key, NOW) {
            TableLookup::Live(known) => self.table.target_at(known.target).map(|place| place.server().to_string()),
            _ => None,
        }
    }

    fn sessions(&self, name: &str) -> u64 {
        self.table.target("shop", name).sessions()
    }
}

/// What the table knows of the key that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    AtB,
    Idle,
    Old,
    /// Bound to a server that the configuration no longer has.
    AtGone,
    Over,
}

const STATES: [State; 6] = [State::Absent, State::AtB, State::Idle, State::Old, State::AtGone, State::Over];

impl State {
    fn put(self, world: &World, key: SessionKey) {
        let table = &world.table;
        let put = |server: &str, created: UnixMillis, seen: UnixMillis| {
            table.restore(key, &table.target("shop", server), 0, created, seen);
        };
        let now = NOW.minus(Duration::from_secs(1));
        match self {
            Self::Absent => {}
            Self::AtB => put("b", now, now),
            Self::Idle => put("b", NOW.minus(IDLE * 2), NOW.minus(IDLE + Duration::from_secs(1))),
            Self::Old => put("b", NOW.minus(ABSOLUTE + Duration::from_secs(1)), now),
            Self::AtGone => put("gone", now, now),
            Self::Over => {
                table.insert_tombstone(key, &world.tombstone, Table::FINAL_EPOCH, (now, now), EndReason::Ended);
            }
        }
    }
}

const KEY: SessionKey = SessionKey(7 << 64 | 7);
const FORMER: SessionKey = SessionKey(8 << 64 | 8);

fn id() -> ExternalId {
    ExternalId { key: KEY, former: SmallVec::new() }
}

fn rotated() -> ExternalId {
    ExternalId { key: KEY, former: smallvec![FORMER] }
}

fn token(server: &str) -> Token {
    let seen = NOW.minus(Duration::from_secs(1));
    let session = SessionId::from_random([1; 16]);
    Token { session, server: ServerId::of(server), epoch: 0, created: seen, issued: seen }
}

fn presented_token(server: &str) -> SessionClaim {
    SessionClaim::Token { token: token(server), sealed_by_first: true }
}

/// Where the tests place a client without a session.
const NONE: &str = "none";
/// A server that the configuration no longer has.
const GONE: &str = "gone";

/// Lookup, the session's server, and what is unbound.
fn told(world: &World, claim: &SessionClaim) -> (Lookup, String, Option<UnboundKey>) {
    let Recognition { lookup, session, unbound } = world.seen(claim);
    let server =
        |session: ResolvedSession| session.home.map_or(GONE.into(), |home| world.pool.servers[home].name.to_string());
    (lookup, session.map_or(NONE.into(), server), unbound)
}

#[test]
fn a_claim_without_a_name_finds_no_session_whatever_the_table_knows() {
    let world = World::new("");
    State::AtB.put(&world, KEY);
    for (claim, lookup) in [
        (SessionClaim::Nothing, Lookup::None),
        (SessionClaim::OtherPool, Lookup::Unknown),
        (SessionClaim::Forged(TokenError::Seal), Lookup::Forged),
    ] {
        assert_eq!(told(&world, &claim), (lookup, NONE.into(), None), "{claim:?}");
    }
    assert_eq!(told(&world, &SessionClaim::Unrouted(KEY)), (Lookup::Unknown, NONE.into(), Some(UnboundKey::Id(KEY))));
}

#[test]
fn an_id_and_an_address_are_what_the_table_knows_of_them() {
    for state in STATES {
        let expected = match state {
            State::Absent => (Lookup::Unknown, NONE),
            State::AtB => (Lookup::Hit, "b"),
            State::Idle => (Lookup::ExpiredIdle, NONE),
            State::Old => (Lookup::ExpiredAbsolute, NONE),
            State::AtGone => (Lookup::UnknownServer, GONE),
            State::Over => (Lookup::Ended, NONE),
        };
        let unbound = |kind: fn(SessionKey) -> UnboundKey| (expected.1 == NONE).then(|| kind(KEY));
        for (claim, kind, named) in [
            (SessionClaim::Ids(smallvec![id()]), UnboundKey::Id as fn(SessionKey) -> UnboundKey, IdentifiedBy::Id),
            (SessionClaim::Ids(smallvec![rotated()]), UnboundKey::Id, IdentifiedBy::Id),
            (SessionClaim::Address(id()), UnboundKey::Address, IdentifiedBy::Address),
        ] {
            let world = World::new("");
            state.put(&world, KEY);
            let entries = world.table.len();
            let (lookup, home, left) = told(&world, &claim);
            assert_eq!(((lookup, home.as_str()), left), (expected, unbound(kind)), "{state:?} {claim:?}");
            let again = world.seen(&claim).session;
            assert!(again.iter().all(|session| (session.key, session.identified_by) == (KEY, named)));
            assert!(world.table.len() <= entries, "asking adopts nothing");
        }
    }
}

#[test]
fn a_mark_is_believed_unless_its_session_was_ended() {
    for state in STATES {
        let world = World::new("");
        state.put(&world, KEY);
        let expected = match state {
            State::Over => (Lookup::Ended, NONE.to_owned(), Some(UnboundKey::Id(KEY))),
            _ => (Lookup::Hit, "c".to_owned(), None),
        };
        let mark = SessionClaim::Routed { key: KEY, server: ServerId::of("c") };
        assert_eq!(told(&world, &mark), expected, "{state:?}");
    }
}

#[test]
fn a_token_is_put_together_with_what_the_table_knows() {
    let key = SessionKey::from(token("a").session);
    for state in STATES {
        let world = World::new("");
        state.put(&world, key);
        let expected = match state {
            // At the same epoch the token wins; what has expired in the table is as good as absent.
            State::AtB | State::AtGone => (Lookup::Hit, "a".to_owned(), None),
            State::Absent | State::Idle | State::Old => (Lookup::Restored, "a".to_owned(), None),
            State::Over => (Lookup::Ended, NONE.to_owned(), None),
        };
        assert_eq!(told(&world, &presented_token("a")), expected, "{state:?}");
        let place = if state == State::Over { "" } else { "a" };
        assert_eq!(world.place_of(key).as_deref(), Some(place), "{state:?}: and that stands in the table");
    }
    let world = World::new("");
    assert_eq!(told(&world, &presented_token("gone")), (Lookup::UnknownServer, GONE.into(), None));
    assert_eq!(world.table.len(), 0, "there is no place for it");
}

#[test]
fn of_several_ids_the_first_that_lives_counts_else_the_first() {
    let other = SessionKey(9 << 64 | 9);
    let ids = || SessionClaim::Ids(smallvec![ExternalId { key: other, former: SmallVec::new() }, id()]);
    let world = World::new("");
    assert_eq!(told(&world, &ids()), (Lookup::Unknown, NONE.into(), Some(UnboundKey::Id(other))));
    State::AtB.put(&world, KEY);
    assert_eq!(told(&world, &ids()), (Lookup::Hit, "b".to_owned(), None));
}

#[test]
fn a_session_bound_under_a_former_key_goes_on_under_the_key_of_today() {
    for claim in [SessionClaim::Ids(smallvec![rotated()]), SessionClaim::Address(rotated())] {
        let world = World::new("");
        State::AtB.put(&world, FORMER);
        for _ in 0..2 {
            assert_eq!(told(&world, &claim), (Lookup::Hit, "b".to_owned(), None));
        }
        assert_eq!((world.place_of(KEY).as_deref(), world.place_of(FORMER)), (Some("b"), None));
        assert_eq!((world.table.len(), world.sessions("b")), (1, 1), "it is one session all the time");
    }
}

#[test]
fn a_record_of_today_beats_one_under_a_former_key() {
    let world = World::new("");
    State::AtB.put(&world, FORMER);
    world.table.rebind(KEY, 0, &world.table.target("shop", "c"), NOW, NOW);
    assert_eq!(told(&world, &SessionClaim::Ids(smallvec![rotated()])), (Lookup::Hit, "c".to_owned(), None));
}

#[test]
fn parallel_requests_after_a_rotation_all_find_their_session() {
    let world = World::new("");
    let claim = |n: u128| {
        let (key, former) = (SessionKey(n << 64 | n), SessionKey(n << 65 | n << 1 | 1));
        (former, SessionClaim::Ids(smallvec![ExternalId { key, former: smallvec![former] }]))
    };
    for n in 1..400 {
        let (former, claim) = claim(n);
        State::AtB.put(&world, former);
        thread::scope(|scope| {
            let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| world.seen(&claim).lookup)).collect();
            for asked in asked {
                assert_eq!(asked.join().unwrap(), Lookup::Hit, "session {n}");
            }
        });
    }
    assert_eq!(world.sessions("b"), 399, "each is there once");
}

#[test]
fn the_first_claim_binds_an_address_and_the_others_follow() {
    let world = World::new("");
    let (b, c) = (world.server("b"), world.server("c"));
    assert!(world.pool_sessions().claim(KEY, b, NOW).is_none(), "the first");
    let theirs = world.pool_sessions().claim(KEY, c, NOW).unwrap();
    assert_eq!((theirs.home, theirs.identified_by, theirs.binding.epoch), (Some(b), IdentifiedBy::Address, 0));
    assert_eq!((world.sessions("b"), world.sessions("c")), (1, 0));
}

#[test]
fn of_several_that_settle_one_moves_the_session_and_the_others_learn_where() {
    for claim in [SessionClaim::Ids(smallvec![id()]), SessionClaim::Address(id()), presented_token("b")] {
        let world = World::new("");
        State::AtB.put(&world, KEY);
        let (c, d) = (world.server("c"), world.server("d"));
        let mut first = world.seen(&claim).session.unwrap();
        let mut second = first.clone();
        assert!(first.settle(c, &world.pool_sessions(), NOW));
        assert!(!second.settle(d, &world.pool_sessions(), NOW));
        for session in [&first, &second] {
            let binding = &session.binding;
            assert_eq!((binding.server, binding.epoch, session.home), (ServerId::of("c"), 1, Some(c)));
        }
        assert_eq!(world.place_of(first.key).as_deref(), Some("c"));
    }
}

#[test]
fn what_a_client_shows_again_stays_ended_and_the_rest_is_forgotten() {
    for (claim, after) in [
        (SessionClaim::Ids(smallvec![id()]), Lookup::Unknown),
        (SessionClaim::Address(id()), Lookup::Unknown),
        (SessionClaim::Routed { key: KEY, server: ServerId::of("b") }, Lookup::Ended),
        (presented_token("b"), Lookup::Ended),
    ] {
        let world = World::new("");
        State::AtB.put(&world, KEY);
        world.seen(&claim).session.unwrap().end(&world.pool_sessions(), NOW);
        for _ in 0..2 {
            assert_eq!(world.seen(&claim).lookup, after, "{claim:?}");
        }
        let kept = usize::from(after == Lookup::Ended);
        let others = usize::from(matches!(claim, SessionClaim::Token { .. }));
        assert_eq!(world.table.len(), kept + others, "{claim:?}");
        assert_eq!(world.sessions("b"), others as u64, "the session is no longer counted");
    }
}

#[test]
fn only_a_session_with_a_token_is_given_one() {
    let world = World::new("");
    State::AtB.put(&world, KEY);
    for claim in [
        SessionClaim::Ids(smallvec![id()]),
        SessionClaim::Address(id()),
        SessionClaim::Routed { key: KEY, server: ServerId::of("b") },
    ] {
        let mut session = world.seen(&claim).session.unwrap();
        session.settle(world.server("c"), &world.pool_sessions(), NOW);
        assert_eq!(session.token_to_give(&world.limits, NOW), None);
        assert_eq!(session.token_now(NOW), None);
    }
    let mut session = world.seen(&presented_token("b")).session.unwrap();
    assert_eq!(session.token_to_give(&world.limits, NOW), None, "it has its token");
    session.settle(world.server("c"), &world.pool_sessions(), NOW);
    let (given, why) = session.token_to_give(&world.limits, NOW).unwrap();
    assert_eq!((given.server, given.epoch, why), (ServerId::of("c"), 1, Reissue::Moved));
}

//! What a request costs between its headers and the choice of a server: asking a source, the table, and the rules. One
//! bench for each source, and one for a client that is new.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up should stop")]
#![allow(clippy::indexing_slicing, clippy::unreachable, reason = "as in tests")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use homing::app::build::{BuildContext, build};
use homing::app::runtime::Runtime;
use homing::config::{Config, ProcessEnvironment};
use homing::message::{Fields, RequestView};
use homing::persistence::PoolRuntime;
use homing::persistence::resolve::{PoolSessions, recognize};
use homing::persistence::select::{History, Placement, choose};
use homing::routing::{RouteInput, RouteTarget, Router};
use homing::session::binding::{Binding, Lookup};
use homing::session::key::SessionId;
use homing::session::source::{SessionClaim, Source, SourceInput};
use homing::session::token::UnixMillis;
use homing::session::token::keyring::Keyring;
use homing::store::local::data::SessionData;
use homing::store::local::table::Table;
use homing::telemetry::metrics::Metrics;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A pool for each source, with servers that nothing checks.
const SOURCES: [(&str, &str); 7] = [
    ("cookie", "cookie: {}"),
    ("query", "query: {}"),
    ("header", "header: { name: X-Session }"),
    ("learn-cookie", "learn: { cookie: JSESSIONID }"),
    ("learn-header", "learn: { header: Mcp-Session-Id }"),
    ("route", "route: { cookie: JSESSIONID }"),
    ("client_ip", "client_ip: {}"),
];

fn built(table: &Table) -> Runtime {
    let pool = |(name, source): &(&str, &str)| {
        let servers: String = ["a", "b", "c", "d"].iter().zip(1..).fold(String::new(), |servers, (name, port)| {
            servers + &format!("      - {{ name: {name}, address: '127.0.0.1:{port}' }}\n")
        });
        format!("  {name}:\n    servers:\n{servers}    persistence: {{ sources: [{{ {source} }}] }}\n")
    };
    let route =
        |(name, _): &(&str, &str)| format!("  - {{ name: {name}, match: {{ path_prefix: /{name} }}, pool: {name} }}\n");
    let yaml = format!(
        "version: 1\nlisteners: [{{ address: '127.0.0.1:0' }}]\nroutes:\n{}pools:\n{}",
        SOURCES.iter().map(route).collect::<String>(),
        SOURCES.iter().map(pool).collect::<String>()
    );
    let config = Config::parse("bench", &yaml, &ProcessEnvironment).unwrap().config;
    let (metrics, generated_keys) = (Metrics::new().unwrap(), Keyring::random([7; 32]).unwrap());
    let acme = Arc::default();
    build(
        config,
        &BuildContext { table, metrics: &metrics, generated_keys: &generated_keys, acme: &acme, previous: None },
    )
    .unwrap()
}

/// What a client of each source sends, among what browsers send anyway.
struct Client {
    headers: HeaderMap,
    target: String,
}

/// Tokens of two nonces are two tokens, of one session.
fn client(plan: &PoolRuntime, nonce: u16) -> Client {
    let persistence = plan.persistence.as_ref().unwrap();
    let id = SessionId::from_random([1; 16]);
    let token = Binding::new(plan.pool.servers[0].id, NOW).token(id, NOW);
    let mut random = [1; 24];
    random[..2].copy_from_slice(&nonce.to_be_bytes());
    let token = persistence.codec.seal(&token, random);
    let cookies = format!("theme=dark; lang=en; SESSIONID={}; JSESSIONID=0AB3C4D5E6F70819.a", token.as_str());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("cookie", cookies.as_str()),
        ("x-session", token.as_str()),
        ("mcp-session-id", "1868a90c-a19e-4b3c-9e9b-2f0b6f7d1c2e"),
        ("user-agent", "Mozilla/5.0"),
        ("accept", "text/html"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    Client { headers, target: format!("/cart?page=2&sessionId={}", token.as_str()) }
}

fn pool_sessions<'a>(plan: &'a PoolRuntime, table: &'a Table, data: &'a SessionData) -> PoolSessions<'a> {
    let persistence = plan.persistence.as_ref().unwrap();
    PoolSessions {
        table,
        pool: &plan.pool,
        targets: &persistence.targets,
        tombstone: &persistence.tombstone,
        limits: &persistence.limits,
        data,
        shared: None,
        hands_over: false,
        looks_only: false,
    }
}

/// Binds what only a server or a first request can bind.
fn bind(claim: &SessionClaim, pool_sessions: &PoolSessions<'_>) {
    match claim {
        SessionClaim::Ids(ids) => drop(pool_sessions.table.assign(ids[0].key, &pool_sessions.targets[0], NOW)),
        SessionClaim::Address(id) => drop(pool_sessions.table.claim(id.key, &pool_sessions.targets[0], NOW)),
        _ => {}
    }
}

fn returning(bench: &mut Criterion) {
    let table = Arc::new(Table::new(1_000_000, NOW, Box::new(|_, _| {})));
    let data = SessionData::new(1 << 20, NOW, Box::new(|_| {}));
    let snapshot = built(&table);
    for ((name, _), plan) in SOURCES.iter().zip(snapshot.pools.iter()) {
        let persistence = plan.persistence.as_ref().unwrap();
        let (one, pool_sessions) = (client(plan, 0), pool_sessions(plan, &table, &data));
        let source: &Source = &persistence.sources[0];
        bind(&source.claim(&asked(&one), &persistence.codec), &pool_sessions);
        let answer = |client: &Client| {
            let claim = source.claim(black_box(&asked(client)), &persistence.codec);
            let found = recognize(&claim, &pool_sessions, NOW);
            let choice = choose(
                &plan.pool,
                Some(&persistence.policy),
                found.session.as_ref(),
                &History::default(),
                Placement::Balanced(&[]),
                NOW,
            );
            (found.lookup, choice)
        };
        answer(&one);
        assert_eq!(answer(&one).0, Lookup::Hit, "{name} must find its session");
        bench.bench_function(&format!("a returning request, headers to server: {name}"), |bench| {
            bench.iter(|| answer(&one));
        });
        if *name == "cookie" {
            // Many times more tokens than a thread remembers.
            let many: Vec<Client> = (1..20_000).map(|nonce| client(plan, nonce)).collect();
            let mut next = many.iter().cycle();
            bench.bench_function("a returning request, headers to server: cookie not seen lately", |bench| {
                bench.iter(|| next.next().map(&answer));
            });
        }
    }
}

fn asked(client: &Client) -> SourceInput<'_> {
    input(&client.headers, &client.target, Some([192, 0, 2, 1].into()))
}

fn input<'a>(headers: &'a HeaderMap, target: &'a str, client: Option<IpAddr>) -> SourceInput<'a> {
    let request = RequestView::http1(&Method::GET, target.as_bytes(), Version::HTTP_11, Fields::Map(headers));
    SourceInput { request, client }
}

fn new(bench: &mut Criterion) {
    let table = Arc::new(Table::new(1_000_000, NOW, Box::new(|_, _| {})));
    let snapshot = built(&table);
    let plan = snapshot.pools.get(0).unwrap();
    let persistence = plan.persistence.as_ref().unwrap();
    bench.bench_function("a new request, headers to server", |bench| {
        let empty = HeaderMap::new();
        let asked = input(&empty, "/", None);
        bench.iter(|| {
            let claim = persistence.sources[0].claim(black_box(&asked), &persistence.codec);
            black_box(claim);
            choose(&plan.pool, Some(&persistence.policy), None, &History::default(), Placement::Balanced(&[]), NOW)
        });
    });
}

const ROUTES: &str = "
version: 1
listeners: [{ address: 127.0.0.1:8080 }]
routes:
  - { name: admin, match: { hosts: [admin.example.org], path_prefix: /admin }, pool: v1 }
  - { name: beta, match: { hosts: [\"*.shop.example.org\"], headers: { x-beta: \"1\" } }, pool: v2 }
  - { name: shop, match: { hosts: [\"*.shop.example.org\"] }, split: [{ pool: v1, weight: 95 }, { pool: v2, weight: 5 }] }
  - { name: all, pool: v1 }
pools:
  v1: { servers: [{ name: a, address: 127.0.0.1:9001 }] }
  v2: { servers: [{ name: a, address: 127.0.0.1:9002 }] }
";

fn route_input<'r>(host: &'r str, headers: &'r HeaderMap) -> RouteInput<'r> {
    RouteInput { host: host.as_bytes(), path: black_box("/cart/4711"), fields: Fields::Map(headers), secure: false }
}

fn routes(bench: &mut Criterion) {
    let headers = HeaderMap::new();
    let one = Router::build(&[], &["web"]);
    bench.bench_function("route, one pool", |bench| {
        bench.iter(|| one.find(route_input(black_box("shop.example.org"), &headers)));
    });
    let config = Config::parse("bench", ROUTES, &ProcessEnvironment).unwrap().config;
    let several = Router::build(&config.routes, &["v1", "v2"]);
    bench.bench_function("route by wildcard and header, split", |bench| {
        let mut point = 0_u64;
        bench.iter(|| {
            point = point.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let found = several.find(route_input(black_box("de.shop.example.org"), &headers));
            match found.map(|plan| &plan.target) {
                Some(RouteTarget::Split(split)) => split.pick(point),
                _ => unreachable!("a split"),
            }
        });
    });
}

criterion_group!(benches, returning, new, routes);
criterion_main!(benches);

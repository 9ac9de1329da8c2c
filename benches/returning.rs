//! What Homing itself does for the request of a returning client: from its headers to the server that it goes to. No
//! network. Run with `cargo bench --bench returning`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::unreachable, missing_docs, reason = "bench code")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use homing::config::{Config, ProcessEnvironment};
use homing::failover::choice::{History, choose};
use homing::failover::returning::recognise;
use homing::routing::{Router, Target};
use homing::session::binding::Binding;
use homing::session::key::SessionId;
use homing::session::source::Presented;
use homing::session::token::UnixMillis;
use homing::session::token::keyring::Keyring;
use homing::snapshot::build::{Materials, build};
use homing::snapshot::{PoolPlan, Snapshot};
use homing::store::memory::Table;
use homing::telemetry::metrics::Metrics;
use http::{HeaderMap, HeaderValue, header};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

const YAML: &str = "
version: 1
listeners: [{ address: 127.0.0.1:8080 }]
pools:
  web:
    servers:
      - { name: a, address: 127.0.0.1:9001 }
      - { name: b, address: 127.0.0.1:9002 }
      - { name: c, address: 127.0.0.1:9003 }
    persistence: {}
";

fn built(table: &Table) -> Snapshot {
    let config = Config::parse("bench", YAML, &ProcessEnvironment).unwrap().config;
    let (metrics, made_keys) = (Metrics::new().unwrap(), Keyring::random([7; 32]).unwrap());
    build(config, &Materials { table, metrics: &metrics, made_keys: &made_keys, former: None }).unwrap()
}

/// The headers of a client whose session is at home at `a`.
fn headers(plan: &PoolPlan, session: u8) -> HeaderMap {
    let persistence = plan.persistence.as_ref().unwrap();
    let id = SessionId::from_random([session; 16]);
    let token = Binding::new(plan.pool.servers[0].id, NOW).token(id, NOW);
    let sealed = persistence.codec.seal(&token, [session; 24]);
    let mut headers = HeaderMap::new();
    let cookies = format!("theme=dark; lang=en; SESSIONID={}; cart=4711", sealed.as_str());
    headers.insert(header::COOKIE, HeaderValue::try_from(cookies).unwrap());
    headers
}

fn returning(bench: &mut Criterion) {
    let table = Arc::new(Table::new(1_000_000, NOW, Box::new(|_, _| {})));
    let snapshot = built(&table);
    let plan = &snapshot.pools[0];
    let persistence = plan.persistence.as_ref().unwrap();
    let homes = homing::failover::returning::Homes {
        table: &table,
        pool: &plan.pool,
        places: &persistence.places,
        limits: &persistence.limits,
    };
    let headers = headers(plan, 1);
    let policy = Some(&persistence.policy);
    bench.bench_function("a returning request, headers to server", |bench| {
        bench.iter(|| {
            let presented = persistence.sources[0].presented(black_box(&headers), &persistence.codec);
            let Presented::Token { token, sealed_by_first } = presented else { unreachable!("a token") };
            let (_, session) = recognise(&token, sealed_by_first, &homes, NOW);
            choose(&plan.pool, policy, session.as_ref(), &History::default(), &[])
        });
    });
    bench.bench_function("a new request, headers to server", |bench| {
        let empty = HeaderMap::new();
        bench.iter(|| {
            let presented = persistence.sources[0].presented(black_box(&empty), &persistence.codec);
            black_box(presented);
            choose(&plan.pool, policy, None, &History::default(), &[])
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

fn routes(bench: &mut Criterion) {
    let headers = HeaderMap::new();
    let one = Router::build(&[], &["web"]);
    bench.bench_function("route, one pool", |bench| {
        bench.iter(|| one.find(black_box("shop.example.org"), black_box("/cart/4711"), &headers, false));
    });
    let config = Config::parse("bench", ROUTES, &ProcessEnvironment).unwrap().config;
    let several = Router::build(&config.routes, &["v1", "v2"]);
    bench.bench_function("route by wildcard and header, split", |bench| {
        let mut point = 0_u64;
        bench.iter(|| {
            point = point.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let found = several.find(black_box("de.shop.example.org"), black_box("/cart/4711"), &headers, false);
            match found.map(|plan| &plan.target) {
                Some(Target::Split(split)) => split.pick(point),
                _ => unreachable!("a split"),
            }
        });
    });
}

criterion_group!(benches, returning, routes);
criterion_main!(benches);

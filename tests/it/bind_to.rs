//! Sessions that belong to a client's certificate or user: what becomes of them under another one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::admin_api::change;
use crate::world::app::answers::saying;
use crate::world::client::Response;
use crate::world::h2c::H2Request;
use crate::world::stores::{Kind, RedisServer};
use crate::world::tls::{Authority, Client, Signed};
use crate::world::{Browser, Conf, Proxy, World};

const HOST: &str = "shop.example.org";
const LOOKUPS: &str = "homing_session_lookups_total";

fn lookups(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(LOOKUPS, &[("result", result)])
}

/// How a client says that it is this user.
fn basic(user: &str) -> (&'static str, String) {
    ("Authorization", format!("Basic {}", STANDARD.encode(format!("{user}:secret"))))
}

fn remote(user: &str) -> (&'static str, String) {
    ("X-Remote-User", user.to_owned())
}

fn get(browser: &Browser, target: &str, (name, value): &(&'static str, String)) -> Response {
    browser.request("GET", target).header(name, value).send().expect(200)
}

#[test]
fn a_session_is_honoured_for_the_user_that_began_it_and_for_no_other() {
    for (bind_to, named) in [("user", basic as fn(&str) -> _), ("header:X-Remote-User", remote)] {
        for fast_path in ["auto", "off"] {
            let conf = Conf::servers("a b c").persistence(&format!("bind_to: \"{bind_to}\""));
            let world = World::start(conf.top(&format!("proxy: {{ fast_path: {fast_path} }}")));
            let alice = world.browser();
            let home = get(&alice, "/echo", &named("alice")).server();
            let token = alice.token().expect("a token");
            for _ in 0..4 {
                assert_eq!(get(&alice, "/echo", &named("alice")).server(), home, "{bind_to}");
            }
            assert_eq!(alice.token().as_ref(), Some(&token));
            assert!(lookups(&world, "other_client") < 1.0);
            for (presented, what) in [(Some(named("mallory")), "another user"), (None, "no user")] {
                let thief = alice.copy_at(&world.address);
                let before = lookups(&world, "other_client");
                match presented {
                    Some(user) => drop(get(&thief, "/stolen", &user)),
                    None => drop(thief.get("/stolen")),
                }
                assert!(lookups(&world, "other_client") > before, "{bind_to}: {what}");
                assert_ne!(thief.token().as_ref(), Some(&token), "{what}: the client begins a session of its own");
            }
            let line = world.access_line("/stolen");
            assert_eq!((&line["lookup"], &line["outcome"]), (&json!("other_client"), &json!("new")));
            assert_eq!(get(&alice, "/echo", &named("alice")).server(), home, "the session goes on for its own client");
            assert_eq!(alice.token(), Some(token));
        }
    }
}

#[test]
fn with_two_credentials_a_client_is_nobody() {
    let world = World::start(Conf::servers("a b").persistence("bind_to: user"));
    let alice = world.browser();
    let (name, value) = basic("alice");
    get(&alice, "/echo", &basic("alice"));
    let (_, mallory) = basic("mallory");
    alice.request("GET", "/echo").header(name, &value).header(name, &mallory).send();
    assert!(lookups(&world, "other_client") > 0.0);
}

#[test]
fn a_forwarded_user_counts_only_from_a_trusted_proxy() {
    let user = |name: &str| ("X-Forwarded-User", name.to_owned());
    let conf = || Conf::servers("a b").persistence("bind_to: \"header:X-Forwarded-User\"");
    let world = World::start(conf());
    let alice = world.browser();
    let home = get(&alice, "/echo", &user("alice")).server();
    assert_eq!(get(&alice, "/echo", &user("mallory")).server(), home, "no client can say who it is");
    assert!(lookups(&world, "other_client") < 1.0);
    let world = World::start(conf().listener("trusted_proxies: [127.0.0.0/8]"));
    let alice = world.browser();
    get(&alice, "/echo", &user("alice"));
    get(&alice, "/echo", &user("alice"));
    assert!(lookups(&world, "other_client") < 1.0);
    get(&alice.copy_at(&world.address), "/echo", &user("mallory"));
    assert!(lookups(&world, "other_client") > 0.0);
}

/// A listener with client certificates, and two clients of it.
struct Mutual {
    authority: Authority,
    alice: Signed,
    bob: Signed,
    world: World,
}

fn mutual(conf: Conf) -> Mutual {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = "tls: { certificates: [{ cert: a.pem, key: a.key }], client_ca: clients.pem, client_auth: optional }";
    let start = World::builder(conf.listener(tls).persistence("bind_to: client_certificate")).before(|environment| {
        authority.issue(environment.directory(), "a", &[HOST]);
        clients.write(environment.directory(), "clients");
    });
    Mutual { alice: clients.sign(&["alice"]), bob: clients.sign(&["bob"]), world: start.start(), authority }
}

/// With these cookies, over HTTP/1.1.
fn request(client: &Client<'_>, world: &World, path: &str, cookies: &str) -> Response {
    let mut wire = client.connect(&world.address, HOST);
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\nCookie: {cookies}\r\n\r\n"));
    wire.receive("GET").expect(200)
}

fn token_of(response: &Response) -> String {
    let cookie = response.set_cookie("SESSIONID").expect("a token");
    cookie.split(';').next().expect("a pair").to_owned()
}

fn fingerprint(certificate: &Signed) -> String {
    let digest = digest(&SHA256, &certificate.certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn a_session_belongs_to_the_certificate_under_which_it_began() {
    let Mutual { authority, alice, bob, world } = mutual(Conf::servers("a b c"));
    let (as_alice, as_bob) = (Client::new(&authority).showing(&alice), Client::new(&authority).showing(&bob));
    let first = request(&as_alice, &world, "/echo", "a=1");
    let pair = token_of(&first);
    for _ in 0..3 {
        let again = request(&as_alice, &world, "/echo", &pair);
        assert_eq!((again.server(), again.set_cookie("SESSIONID")), (first.server(), None));
        let over_h2 = H2Request { authority: HOST, ..H2Request::get("/echo") }.header("cookie", &pair);
        let over_h2 = as_alice.h2(&world.address, HOST, over_h2).expect("HTTP/2").expect(200);
        assert_eq!(over_h2.server(), first.server());
    }
    for (client, what) in [(&as_bob, "another certificate"), (&Client::new(&authority), "no certificate")] {
        let before = lookups(&world, "other_client");
        let taken = request(client, &world, "/echo", &pair);
        assert_ne!(token_of(&taken), pair, "{what}");
        let over_h2 = H2Request { authority: HOST, ..H2Request::get("/echo") }.header("cookie", &pair);
        let over_h2 = client.h2(&world.address, HOST, over_h2).expect("HTTP/2").expect(200);
        assert_ne!(token_of(&over_h2), pair, "{what}, over HTTP/2");
        assert!(lookups(&world, "other_client") > before + 1.0, "{what}");
    }
    let anonymous = request(&Client::new(&authority), &world, "/echo", "a=1");
    let taken = request(&as_alice, &world, "/echo", &token_of(&anonymous));
    taken.set_cookie("SESSIONID").expect("a session that began without a certificate is not one of a certificate");
    assert_eq!(request(&as_alice, &world, "/echo", &pair).server(), first.server());
}

#[test]
fn an_operator_is_told_whose_session_it_is_not() {
    let Mutual { authority, alice, bob, world } = mutual(Conf::servers("a b c"));
    let first = request(&Client::new(&authority).showing(&alice), &world, "/echo", "a=1");
    let pair = token_of(&first);
    let explain = |certificate: Option<&Signed>| {
        let asked = json!({ "pool": "web", "cookie": pair, "certificate": certificate.map(fingerprint) });
        change(&world, "POST", "/api/v1/explain", &asked).expect(200).json()
    };
    let (own, other, unnamed) = (explain(Some(&alice)), explain(Some(&bob)), explain(None));
    assert_eq!((&own["lookup"], &own["server"]), (&json!("restored"), &json!(first.server())));
    assert_eq!((&other["lookup"], &other["server"]), (&json!("other_client"), &Value::Null));
    assert!(other["steps"].to_string().contains("belongs to another client"), "{other}");
    assert_eq!(unnamed["server"], json!(first.server()), "a token is its own client's");
    assert!(unnamed["steps"].to_string().contains("bind_to"), "{unnamed}");
    let offline = |more: &[&str]| {
        let (_, token) = pair.split_once('=').expect("a pair");
        let mut command = crate::world::proxy::command();
        command.arg("explain").arg("--config").arg(&world.config).arg(token).args(more);
        let output = command.output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(offline(&[]).contains("honoured from one client only"), "{}", offline(&[]));
    assert!(offline(&["--certificate", &fingerprint(&alice)]).contains("the named client's own"));
    assert!(offline(&["--certificate", &fingerprint(&bob)]).contains("not honoured"));
}

#[test]
fn an_applications_id_is_unknown_under_another_user_at_every_proxy() {
    let store = RedisServer::start(Kind::Redis);
    let conf = Conf::servers("a b c").persistence("sources: [learn: { cookie: SID }], bind_to: user");
    let mut world = World::start(conf.store(&store.entry()));
    let second = world.another_proxy("-2");
    let alice = world.browser();
    get(&alice, &saying(200, &["Set-Cookie: SID=x; Path=/"]), &basic("alice"));
    let home = get(&alice, "/echo", &basic("alice")).server();
    assert!(lookups(&world, "hit") > 0.0);
    let elsewhere = alice.copy_at(&second.address);
    for _ in 0..3 {
        assert_eq!(get(&elsewhere, "/echo", &basic("alice")).server(), home);
    }
    assert!(lookups(&second, "hit") > 2.0, "the store knows it");
    for proxy in [&*world, &second] {
        let thief = alice.copy_at(&proxy.address);
        let before = (lookups(proxy, "hit"), lookups(proxy, "unknown"));
        get(&thief, "/echo", &basic("mallory"));
        thief.get("/echo").expect(200);
        let after = (lookups(proxy, "hit"), lookups(proxy, "unknown"));
        assert!(after.0 <= before.0 && after.1 > before.1 + 1.0, "{before:?} {after:?}");
    }
    assert_eq!(get(&alice, "/echo", &basic("alice")).server(), home);
}

//! TLS sessions that are resumed: where, until when, and where never.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::world::conf::{KEY_1, KEY_2};
use crate::world::net::Address;
use crate::world::tls::{Authority, Client, Handshake, Resuming, Signed};
use crate::world::{Conf, PATIENCE, Response, World, eventually};

const HOST: &str = "shop.example.org";
const REQUEST: &str = "GET /echo HTTP/1.1\r\nHost: shop.example.org\r\n\r\n";
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

fn conf(more: &str) -> Conf {
    Conf::servers("a b").listener(&format!("tls: {{ certificates: [{{ cert: a.pem, key: a.key }}]{more} }}"))
}

const MUTUAL: &str = ", client_ca: clients.pem";

/// The authority of the listener, and that of its clients.
struct Authorities {
    authority: Authority,
    clients: Authority,
}

impl Authorities {
    fn new() -> Self {
        Self { authority: Authority::new(), clients: Authority::new() }
    }

    fn world(&self, conf: impl std::fmt::Display) -> World {
        let start = World::builder(conf).before(|environment| {
            self.authority.issue(environment.directory(), "a", &[HOST]);
            self.clients.write(environment.directory(), "clients");
        });
        start.start()
    }

    fn client(&self) -> Resuming {
        Client::new(&self.authority).resuming()
    }

    fn showing(&self, certificate: &Signed) -> Resuming {
        Client::new(&self.authority).showing(certificate).resuming()
    }
}

/// A request over a new connection. The client has the tickets once it has the response.
fn try_visit(client: &Resuming, address: &Address) -> io::Result<(bool, Response)> {
    let mut wire = client.try_connect(address, HOST)?;
    wire.try_send(REQUEST)?;
    let response = wire.try_receive("GET")?.expect(200);
    Ok((wire.is_resumed(), response))
}

#[track_caller]
fn is_resumed(client: &Resuming, address: &Address) -> bool {
    try_visit(client, address).unwrap_or_else(|e| panic!("no response: {e}")).0
}

#[test]
fn a_tls_session_is_resumed_after_a_reload_after_a_restart_and_at_another_proxy() {
    let environment = Authorities::new();
    let mut world = environment.world(conf(""));
    let clients = VERSIONS.map(|versions| Client::new(&environment.authority).versions(versions).resuming());
    let all = |address: &Address| clients.each_ref().map(|client| is_resumed(client, address));
    assert_eq!(all(&world.address), [false; 2], "TLS 1.2 and 1.3: nothing to resume yet");
    assert_eq!(all(&world.address), [true; 2]);
    world.reload(conf("").listener("max_body_size: 1MiB"));
    assert_eq!(all(&world.address), [true; 2], "after a reload");
    world.restart_proxy();
    assert_eq!(all(&world.address), [true; 2], "after a restart");
    let other = world.another_proxy("-2");
    assert_eq!(all(&other.address), [true; 2], "at another proxy");
}

#[test]
fn without_keys_a_tls_session_ends_with_the_process() {
    let environment = Authorities::new();
    let mut world = environment.world(conf("").keys(&[]));
    let client = environment.client();
    assert!(!is_resumed(&client, &world.address));
    assert!(is_resumed(&client, &world.address));
    world.restart_proxy();
    assert!(!is_resumed(&client, &world.address));
}

#[test]
fn a_tls_session_is_resumed_while_its_key_is_rotated_and_not_after_it_was_removed() {
    let environment = Authorities::new();
    let mut world = environment.world(conf("").keys(&[KEY_1]));
    let (regular, absent) = (environment.client(), environment.client());
    assert!(!is_resumed(&regular, &world.address) && !is_resumed(&absent, &world.address));
    world.reload(conf("").keys(&[KEY_2, KEY_1]));
    assert!(is_resumed(&regular, &world.address), "the old key opens");
    world.reload(conf("").keys(&[KEY_2]));
    assert!(is_resumed(&regular, &world.address), "it was given a ticket of the new key");
    assert!(!is_resumed(&absent, &world.address), "the old key is gone");
    assert!(is_resumed(&absent, &world.address));
}

/// A second listener, at another port.
fn and_listener(conf: &Conf, tls: &str) -> String {
    let listener = format!("\n  - {{ address: \"{{{{proxy2}}}}\", tls: {{ {tls} }} }}\nadmin:");
    conf.to_string().replace("\nadmin:", &listener)
}

#[test]
fn a_ticket_of_one_listener_is_no_ticket_at_another() {
    let environment = Authorities::new();
    let conf = and_listener(&conf(""), "certificates: [{ cert: b.pem, key: b.key }]");
    let start = World::builder(conf).before(|at| {
        environment.authority.issue(at.directory(), "a", &[HOST]);
        environment.authority.issue(at.directory(), "b", &[HOST]);
    });
    let mut world = start.start();
    let (first, second) = (world.address.clone(), world.environment.address("proxy2"));
    let client = environment.client();
    assert!(!is_resumed(&client, &first));
    assert!(!is_resumed(&client, &second), "another certificate for the same host");
    assert!(is_resumed(&client, &second));
    assert!(!is_resumed(&client, &first));
}

#[test]
fn a_ticket_from_a_listener_without_client_certificates_does_not_open_one_with() {
    let environment = Authorities::new();
    let conf = and_listener(&conf(""), &format!("certificates: [{{ cert: a.pem, key: a.key }}]{MUTUAL}"));
    let mut world = environment.world(conf);
    let (open, closed) = (world.address.clone(), world.environment.address("proxy2"));
    for versions in VERSIONS {
        let client = Client::new(&environment.authority).versions(versions).resuming();
        assert!(!is_resumed(&client, &open));
        let refused = try_visit(&client, &closed);
        assert!(refused.is_err(), "{versions:?}: {refused:?}");
    }
    let certificate = environment.clients.sign(&["client"]);
    let client = environment.showing(&certificate);
    assert!(!is_resumed(&client, &open));
    assert!(!is_resumed(&client, &closed));
}

#[test]
fn servers_are_told_the_certificate_of_a_resumed_session() {
    let environment = Authorities::new();
    let world = environment.world(conf(MUTUAL));
    let certificate = environment.clients.sign(&["client"]);
    for versions in VERSIONS {
        let client = Client::new(&environment.authority).showing(&certificate).versions(versions).resuming();
        let (resumed, first) = try_visit(&client, &world.address).expect("a response");
        let (again, second) = try_visit(&client, &world.address).expect("a response");
        assert!(!resumed && again, "{versions:?}");
        let told = |response: &Response| response.received("x-client-cert-fingerprint");
        assert_eq!(told(&first).len(), 1);
        assert_eq!(told(&first), told(&second));
    }
}

#[test]
fn no_tls_session_is_resumed_after_the_clients_authorities_have_changed() {
    let environment = Authorities::new();
    let mut world = environment.world(conf(MUTUAL));
    let certificate = environment.clients.sign(&["client"]);
    let client = environment.showing(&certificate);
    assert!(!is_resumed(&client, &world.address));
    assert!(is_resumed(&client, &world.address));
    let file = world.directory().join("clients.pem");
    let before = fs::read_to_string(&file).expect("the authority");
    Authority::new().write(world.directory(), "clients");
    let another = fs::read_to_string(&file).expect("another authority");
    fs::write(&file, format!("{before}{another}")).expect("both");
    world.reload(conf(MUTUAL).listener("max_body_size: 1MiB"));
    assert!(!is_resumed(&client, &world.address), "one authority more");
    assert!(is_resumed(&client, &world.address));
    fs::write(&file, another).expect("only the other");
    world.reload(conf(MUTUAL));
    let refused = try_visit(&client, &world.address);
    assert!(refused.is_err(), "no authority vouches for it any more: {refused:?}");
}

#[test]
fn a_client_that_came_without_a_certificate_does_not_resume_where_one_is_required_now() {
    let environment = Authorities::new();
    let mut world = environment.world(conf(&format!("{MUTUAL}, client_auth: optional")));
    let client = environment.client();
    assert!(!is_resumed(&client, &world.address));
    assert!(is_resumed(&client, &world.address));
    world.reload(conf(MUTUAL));
    let refused = try_visit(&client, &world.address);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_session_is_not_resumed_once_its_certificate_has_expired() {
    let environment = Authorities::new();
    let world = environment.world(conf(MUTUAL));
    let expiry = SystemTime::now() + Duration::from_secs(6);
    let certificate = environment.clients.sign_with(&["client"], |params| params.not_after = expiry.into());
    let client = environment.showing(&certificate);
    assert!(!is_resumed(&client, &world.address));
    assert!(is_resumed(&client, &world.address), "it is valid still");
    eventually(PATIENCE, "the certificate expires", || try_visit(&client, &world.address).is_err());
    assert!(SystemTime::now() >= expiry);
}

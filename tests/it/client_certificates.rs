//! Certificates of clients: who must present one, and what servers are told of it.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{DistinguishedName, DnType};
use ring::digest::{SHA256, digest};

use crate::fast_path_ways::AUTO;
use crate::world::client::Response;
use crate::world::h2c::H2Request;
use crate::world::tls::{Authority, Client, Signed};
use crate::world::{Conf, World};

const HOST: &str = "shop.example.org";
const SUBJECT: &str = "x-client-cert-subject";
const FINGERPRINT: &str = "x-client-cert-fingerprint";
const CERTIFICATE: &str = "client-cert";

/// The listener's authority, that of its clients, and the world.
struct Mutual {
    authority: Authority,
    clients: Authority,
    world: World,
}

fn conf(client_auth: &str) -> Conf {
    let tls = format!("tls: {{ certificates: [{{ cert: a.pem, key: a.key }}], client_ca: clients.pem{client_auth} }}");
    Conf::servers("a b").listener(&tls)
}

fn mutual(conf: Conf) -> Mutual {
    let (authority, clients) = (Authority::new(), Authority::new());
    let world = World::builder(conf)
        .before(|environment| {
            authority.issue(environment.directory(), "a", &[HOST]);
            clients.write(environment.directory(), "clients");
        })
        .start();
    Mutual { authority, clients, world }
}

fn named(clients: &Authority, name: &str) -> Signed {
    clients.sign_with(&["client"], |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Bank, Inc");
        params.distinguished_name.push(DnType::CommonName, name);
    })
}

fn fingerprint(certificate: &Signed) -> String {
    let digest = digest(&SHA256, &certificate.certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn get(client: &Client<'_>, world: &World, more: &str) -> Response {
    let mut wire = client.connect(&world.address, HOST);
    wire.send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n"));
    wire.receive("GET").expect(200)
}

/// With TLS 1.3 the client's handshake is done before its certificate was looked at.
fn try_get(client: &Client<'_>, world: &World) -> io::Result<Response> {
    let mut wire = client.try_connect(&world.address, HOST)?;
    wire.try_send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    wire.try_receive("GET")
}

#[track_caller]
fn assert_told(response: &Response, certificate: &Signed, name: &str) {
    assert_eq!(response.received(SUBJECT), [format!("CN={name},O=Bank\\, Inc")]);
    assert_eq!(response.received(FINGERPRINT), [fingerprint(certificate)]);
    assert_eq!(response.received(CERTIFICATE), [format!(":{}:", STANDARD.encode(&certificate.certificate))]);
}

#[track_caller]
fn assert_told_nothing(response: &Response) {
    for name in [SUBJECT, FINGERPRINT, CERTIFICATE, "client-cert-chain", "client_cert", "x_client_cert_subject"] {
        assert_eq!(response.received(name), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn servers_are_told_which_certificate_a_client_has_presented() {
    let Mutual { authority, clients, world } = mutual(conf("").top(AUTO));
    let (alice, bob) = (named(&clients, "alice"), named(&clients, "bob"));
    let fast = || world.metric("homing_requests_by_path_total", &[("path", "fast")]);
    for (certificate, name) in [(&alice, "alice"), (&bob, "bob")] {
        let client = Client::new(&authority).showing(certificate);
        let before = fast();
        assert_told(&get(&client, &world, ""), certificate, name);
        assert!(fast() > before, "the fast path tells servers too");
        let before = fast();
        let mut chunked = client.connect(&world.address, HOST);
        chunked.send(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"));
        assert_told(&chunked.receive("POST").expect(200), certificate, name);
        assert!(fast() <= before, "this one took the full path");
        let request = H2Request { authority: HOST, ..H2Request::get("/echo") };
        let response = client.h2(&world.address, HOST, request).expect("HTTP/2").expect(200);
        assert_told(&response, certificate, name);
    }
}

const FORGED: &str = "Client-Cert: :AAAA:\r\nclient-cert-chain: :AAAA:\r\nX-Client-Cert-Subject: CN=admin\r\n\
                      X-Client-Cert-Fingerprint: 00\r\nCLIENT_CERT: :AAAA:\r\nX_Client_Cert_Subject: CN=admin\r\n";

#[test]
fn no_client_can_send_a_certificate_in_a_header() {
    let Mutual { authority, clients, world } = mutual(conf(", client_auth: optional"));
    let anonymous = Client::new(&authority);
    assert_told_nothing(&get(&anonymous, &world, FORGED));
    let mut request = H2Request { authority: HOST, ..H2Request::get("/echo") };
    for name in [SUBJECT, FINGERPRINT, CERTIFICATE, "client-cert-chain", "client_cert", "x_client_cert_subject"] {
        request = request.header(name, "forged");
    }
    assert_told_nothing(&anonymous.h2(&world.address, HOST, request).expect("HTTP/2").expect(200));
    let alice = named(&clients, "alice");
    let certified = Client::new(&authority).showing(&alice);
    let nominated = format!("{FORGED}Connection: {SUBJECT}, {CERTIFICATE}, {FINGERPRINT}\r\n");
    for more in [FORGED, &nominated] {
        let response = get(&certified, &world, more);
        assert_told(&response, &alice, "alice");
        assert_eq!(response.received("client_cert"), Vec::<String>::new());
        assert_eq!(response.received("client-cert-chain"), Vec::<String>::new());
    }
}

#[test]
fn a_listener_that_asks_for_no_certificate_takes_the_headers_off_as_well() {
    let world = World::start(Conf::servers("a").listener("trusted_proxies: [127.0.0.0/8]"));
    let mut wire = world.wire();
    wire.send(format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\n{FORGED}\r\n"));
    assert_told_nothing(&wire.receive("GET").expect(200));
}

#[test]
fn where_a_certificate_is_optional_a_client_comes_without_one_but_not_with_a_wrong_one() {
    let Mutual { authority, clients, mut world } = mutual(conf(", client_auth: optional"));
    let (alice, stranger) = (named(&clients, "alice"), named(&authority, "alice"));
    assert_told_nothing(&get(&Client::new(&authority), &world, ""));
    assert_told(&get(&Client::new(&authority).showing(&alice), &world, ""), &alice, "alice");
    let refused = try_get(&Client::new(&authority).showing(&stranger), &world);
    assert!(refused.is_err(), "{refused:?}");
    world.reload(conf(", client_auth: required"));
    let refused = try_get(&Client::new(&authority), &world);
    assert!(refused.is_err(), "a reload makes it required: {refused:?}");
    assert_told(&get(&Client::new(&authority).showing(&alice), &world, ""), &alice, "alice");
}

//! TLS with clients as they are: curl in its ways to speak, and clients that verify only one kind of key.

use std::process::Command;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
};
use rustls::version::TLS12;
use serde_json::Value;

use crate::world::net::Address;
use crate::world::tls::{Authority, Client, Handshake};
use crate::world::{Conf, PATIENCE, Signal, World, eventually};

const HOST: &str = "shop.example.org";

/// What curl says of a request: the version of HTTP, and the server's JSON.
fn curl(world: &World, scheme: &str, arguments: &[&str]) -> Result<(String, Value), String> {
    let Address::Tcp(address) = world.address else { panic!("curl connects by TCP") };
    let port = address.port();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "30", "--noproxy", "*"])
        .args(["--write-out", "\n%{http_version}", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
        .args(arguments)
        .arg(format!("{scheme}://{HOST}:{port}/echo"))
        .current_dir(world.directory())
        .output()
        .expect("curl is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    let (body, version) =
        text(&output.stdout).rsplit_once('\n').map(|(b, v)| (b.to_owned(), v.to_owned())).expect("both");
    Ok((version, serde_json::from_str(&body).expect("the server's JSON")))
}

fn received(response: &Value, name: &str) -> bool {
    let headers = response["headers"].as_array().expect("the headers that arrived");
    headers.iter().any(|pair| pair[0].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)))
}

#[test]
fn curl_comes_by_every_version_of_tls_and_http_with_a_certificate_and_without() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = "tls: { certificates: [{ cert: a.pem, key: a.key }], client_ca: clients.pem, client_auth: optional }";
    let start = World::builder(Conf::servers("a b").listener(tls)).before(|environment| {
        authority.issue(environment.directory(), "a", &[HOST]);
        authority.write(environment.directory(), "ca");
        clients.write(environment.directory(), "clients");
        clients.issue(environment.directory(), "client", &["client"]);
    });
    let world = start.start();
    let certificate = ["--cert", "client.pem", "--key", "client.key"];
    let mut combinations = 0;
    for tls in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        for (http, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            for own in [&[][..], &certificate] {
                let arguments = [&["--cacert", "ca.pem", http][..], &tls, own].concat();
                let (spoken, response) =
                    curl(&world, "https", &arguments).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
                assert_eq!(spoken, version, "{arguments:?}");
                assert!(received(&response, "x-forwarded-proto"));
                assert_eq!(received(&response, "client-cert"), !own.is_empty(), "{arguments:?}");
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 8);
    let refused = curl(&world, "https", &["--cacert", "clients.pem"]).expect_err("curl does not trust it");
    assert!(["(35)", "(60)"].iter().any(|verified| refused.contains(verified)), "{refused}");
    curl(&world, "https", &["--cacert", "ca.pem", "--cert", "a.pem", "--key", "a.key"])
        .expect_err("another authority's");
}

#[test]
fn curl_speaks_http2_without_tls_by_prior_knowledge() {
    let world = World::start(Conf::servers("a b"));
    for (http, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http2", "1.1")] {
        let (spoken, _) = curl(&world, "http", &[http]).unwrap_or_else(|e| panic!("{http}: {e}"));
        assert_eq!(spoken, version, "{http}: an upgrade to h2c is not taken up");
    }
}

#[test]
fn of_two_certificates_for_a_host_each_client_gets_the_first_that_it_can_verify() {
    let (versions, for_rsa) = ([&TLS12], [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]);
    let for_ecdsa = [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256];
    let conf = |order: [&str; 2]| {
        let certificates = order.map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}")).join(", ");
        Conf::servers("a").listener(&format!("tls: {{ certificates: [{certificates}] }}"))
    };
    let authority = Authority::new();
    let (rsa, ecdsa) = (authority.sign_rsa(&[HOST]), authority.sign(&[HOST]));
    let start = World::builder(conf(["ecdsa", "rsa"])).before(|environment| {
        rsa.write(environment.directory(), "rsa");
        ecdsa.write(environment.directory(), "ecdsa");
    });
    let mut world = start.start();
    let shown = |world: &World, suites: Option<&[SupportedCipherSuite]>| {
        let client = Client::new(&authority);
        let client = match suites {
            Some(suites) => client.versions(&versions).suites(suites),
            None => client,
        };
        client.connect(&world.address, HOST).certificate()
    };
    for (order, first) in [(["ecdsa", "rsa"], &ecdsa), (["rsa", "ecdsa"], &rsa)] {
        world.reload(conf(order).listener(&format!("max_body_size: {}KiB", 1 + order[0].len())));
        assert_eq!(shown(&world, Some(&for_rsa)), rsa.certificate, "{order:?}");
        assert_eq!(shown(&world, Some(&for_ecdsa)), ecdsa.certificate, "{order:?}");
        assert_eq!(shown(&world, None), first.certificate, "{order:?}: both fit");
    }
    let renewed = authority.sign(&[HOST]);
    renewed.write(world.directory(), "ecdsa");
    world.signal(Signal::SIGHUP);
    eventually(PATIENCE, "one of the two is renewed", || shown(&world, Some(&for_ecdsa)) == renewed.certificate);
    assert_eq!(shown(&world, Some(&for_rsa)), rsa.certificate, "the other one stays");
}

//! Forwarded headers: what servers learn about the client.

use crate::world::{Conf, World};

#[test]
fn servers_get_the_clients_address_scheme_and_host() {
    let world = World::start(Conf::servers("a"));
    let answer = world.browser().request("GET", "/echo").host("shop.example:8080").send();
    assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(answer.received("x-forwarded-proto"), ["http"]);
    assert_eq!(answer.received("x-forwarded-host"), ["shop.example:8080"]);
    assert_eq!(answer.received("host"), ["shop.example:8080"], "Host passes as it came");
}

#[test]
fn a_strangers_forwarded_headers_are_not_believed() {
    let world = World::start(Conf::servers("a"));
    let answer = world
        .browser()
        .request("GET", "/echo")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("X-Forwarded-For", "203.0.113.8")
        .header("x-forwarded-proto", "https")
        .header("X-Forwarded-Host", "bank.example")
        .header("Forwarded", "for=203.0.113.9")
        .header("X-Real-IP", "203.0.113.10")
        .header("X-Forwarded-Port", "443")
        .header("X-Forwarded-User", "root")
        .send();
    assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!((answer.received("x-forwarded-port").len(), answer.received("x-forwarded-user").len()), (0, 0));
    assert_eq!(answer.received("x-forwarded-proto"), ["http"]);
    assert_eq!(answer.received("x-forwarded-host"), ["example.test"]);
    assert_eq!(answer.received("forwarded"), Vec::<String>::new());
    assert!(answer.received("x-real-ip").iter().all(|ip| ip == "127.0.0.1"), "{:?}", answer.received("x-real-ip"));
    assert_eq!(world.access_line("/echo")["client_ip"], "127.0.0.1");
}

/// CGI, WSGI and Rack make one name of `-` and `_`.
#[test]
fn a_stranger_cannot_say_it_in_names_that_applications_take_for_ours() {
    let world = World::start(Conf::servers("a"));
    let theirs = [
        "X_Forwarded_For",
        "X-Forwarded_Proto",
        "x_forwarded_host",
        "X_Real_IP",
        "X_Request_Id",
        "Homing_Session_Moved",
    ];
    let browser = world.browser();
    let ask = theirs.iter().fold(browser.request("GET", "/echo"), |ask, name| ask.header(name, "203.0.113.7"));
    let answer = ask.header("X_Own", "kept").header("Forwarded_By", "kept").send();
    for name in theirs {
        assert_eq!(answer.received(&name.to_lowercase()), Vec::<String>::new(), "{name}");
    }
    assert_eq!((answer.received("x_own").len(), answer.received("forwarded_by").len()), (1, 1));
    assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn a_trusted_proxys_word_is_kept_and_added_to() {
    let world = World::start(Conf::servers("a").listener("trusted_proxies: [127.0.0.1/32, 198.51.100.0/24]"));
    let answer = world
        .browser()
        .request("GET", "/echo")
        .header("X-Forwarded-For", "10.9.9.9, 203.0.113.7, 198.51.100.3")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "shop.example")
        .header("X-Forwarded-Port", "443")
        .send();
    assert_eq!(answer.received("x-forwarded-port"), ["443"]);
    assert_eq!(answer.received("x-forwarded-for").join(", "), "10.9.9.9, 203.0.113.7, 198.51.100.3, 127.0.0.1");
    assert_eq!(answer.received("x-forwarded-proto"), ["https"]);
    assert_eq!(answer.received("x-forwarded-host"), ["shop.example"]);
    assert_eq!(world.access_line("/echo")["client_ip"], "203.0.113.7", "the rightmost hop that is not trusted");
}

#[test]
fn a_trusted_proxy_may_say_it_in_forwarded() {
    let world = World::start(Conf::servers("a").listener("trusted_proxies: [127.0.0.1/32, 198.51.100.0/24]"));
    let forwarded = "for=10.9.9.9;proto=http, for=\"203.0.113.7:4711\";proto=https;host=shop.example, for=198.51.100.3";
    let answer = world.browser().request("GET", "/echo").header("Forwarded", forwarded).send();
    assert_eq!(answer.received("x-forwarded-for"), ["203.0.113.7, 198.51.100.3, 127.0.0.1"]);
    assert_eq!(answer.received("x-forwarded-proto"), ["https"]);
    assert_eq!(answer.received("x-forwarded-host"), ["shop.example"]);
    assert_eq!(answer.received("forwarded"), Vec::<String>::new(), "servers are told once, in one way");
    assert!(answer.set_cookie("SESSIONID").expect("a token").contains("; Secure"));
    assert_eq!(world.access_line("/echo")["client_ip"], "203.0.113.7");
}

#[test]
fn forwarded_headers_cannot_be_taken_off_by_naming_them_in_connection() {
    let world = World::start(Conf::servers("a"));
    let answer = world
        .browser()
        .request("GET", "/echo")
        .header("Connection", "keep-alive, X-Forwarded-For, X-Request-Id")
        .send();
    if answer.status == 200 {
        assert_eq!(answer.received("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(answer.received("x-request-id").len(), 1);
    } else {
        assert_eq!(answer.status, 400, "or the request is refused");
    }
}

#[test]
fn every_request_has_an_id_that_the_access_log_knows() {
    let world = World::start(Conf::servers("a"));
    let ids: Vec<String> =
        ["/one", "/two"].map(|path| world.browser().get(path).received("x-request-id").join(",")).to_vec();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() >= 8), "one id each: {ids:?}");
    assert_eq!(world.access_line("/one")["request_id"], ids[0]);
    assert_eq!(world.access_line("/two")["request_id"], ids[1]);
}

#[test]
fn a_trusted_proxys_request_id_is_kept() {
    let world = World::start(Conf::servers("a").listener("trusted_proxies: [127.0.0.1/32]"));
    let answer = world.browser().request("GET", "/echo").header("X-Request-Id", "edge-0001-abcdef").send();
    assert_eq!(answer.received("x-request-id"), ["edge-0001-abcdef"]);
    assert_eq!(world.access_line("/echo")["request_id"], "edge-0001-abcdef");
}

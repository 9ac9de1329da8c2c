//! Error pages: what the proxy responds itself, in the format that the client asks for.

use serde_json::Value;

use crate::world::h2c::{H2Request, h2};
use crate::world::{Browser, Conf, Response, SESSION_COOKIE, World};

const HTML: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
const GONE: &str = "The server of your session is not available. Your next request starts a new session.";

/// A client whose server died, in a pool with `refuse`. It keeps sending its token, although that was cleared.
fn refused(status: &str) -> (World, Stubborn) {
    let conf = Conf::servers("a b").persistence("on_server_down: refuse").persistence(status);
    let world = World::start(conf);
    let alice = world.browser();
    world.app(&alice.server()).kill();
    alice.disconnect();
    let token = alice.token().expect("a token");
    (world, Stubborn { alice, token })
}

struct Stubborn {
    alice: Browser,
    token: String,
}

impl Stubborn {
    fn ask(&self, method: &str, accept: Option<&str>) -> Response {
        self.alice.put_cookie(SESSION_COOKIE, &self.token);
        let request = self.alice.request(method, "/page");
        match accept {
            Some(accept) => request.header("Accept", accept).send(),
            None => request.send(),
        }
    }
}

fn ask(stubborn: &Stubborn, accept: &str) -> Response {
    stubborn.ask("GET", Some(accept))
}

fn kind(answer: &Response) -> &str {
    answer.header("content-type").expect("a content type")
}

fn length(answer: &Response) -> usize {
    answer.header("content-length").and_then(|length| length.parse().ok()).expect("a length")
}

#[test]
fn a_browser_gets_a_page_a_program_a_problem_and_a_terminal_text() {
    let (_world, alice) = refused("refuse_status: 503");
    let page = ask(&alice, HTML).expect(503);
    assert_eq!(kind(&page), "text/html; charset=utf-8");
    let text = page.text();
    assert!(text.starts_with("<!doctype html>") && text.contains("<title>503 Service Unavailable</title>"), "{text}");
    assert!(text.contains(GONE), "{text}");

    for accept in ["application/json", "application/problem+json", "application/json, text/plain, */*"] {
        let problem = ask(&alice, accept).expect(503);
        assert_eq!(kind(&problem), "application/problem+json", "{accept}");
        let json = problem.json();
        assert_eq!((&json["type"], &json["status"]), (&Value::from("about:blank"), &Value::from(503)), "{json}");
        assert_eq!(
            (&json["title"], &json["detail"]),
            (&Value::from("Service Unavailable"), &Value::from(GONE)),
            "{json}"
        );
    }

    for accept in ["*/*", "text/plain", "image/png", "text/htm", "nonsense"] {
        let plain = ask(&alice, accept).expect(503);
        assert_eq!(kind(&plain), "text/plain; charset=utf-8", "{accept}");
        assert!(plain.text().starts_with(&format!("503 Service Unavailable\n{GONE}\n")), "{}", plain.text());
    }
    let silent = alice.ask("GET", None).expect(503);
    assert_eq!(kind(&silent), "text/plain; charset=utf-8");
    assert_eq!(silent.header("cache-control"), Some("no-store"));
    assert_eq!(silent.header("x-content-type-options"), Some("nosniff"));
    assert!(silent.header("retry-after").is_some());
}

#[test]
fn any_status_that_refuses_has_a_title() {
    for (status, title) in [("404", "404 Not Found"), ("499", "499 Client Error"), ("599", "599 Server Error")] {
        let (_world, alice) = refused(&format!("refuse_status: {status}"));
        let text = ask(&alice, "*/*").expect(status.parse().expect("a status")).text();
        assert!(text.starts_with(&format!("{title}\n{GONE}\n")), "{text}");
    }
}

#[test]
fn a_head_request_gets_only_the_headers() {
    let (_world, alice) = refused("refuse_status: 503");
    for accept in [HTML, "application/json", "*/*"] {
        let got = ask(&alice, accept).expect(503);
        let head = alice.ask("HEAD", Some(accept)).expect(503);
        assert_eq!(head.body.len(), 0);
        assert_eq!(kind(&head), kind(&got));
        assert_eq!(length(&got), got.body.len());
        assert_eq!(length(&head), length(&got), "{:?}", head.head);
    }
}

#[test]
fn every_error_page_says_what_happened() {
    let yaml = "
version: 1
listeners: [{ address: \"{{proxy}}\", max_body_size: 1KiB, max_header_size: 2KiB }]
admin: { address: \"{{admin}}\" }
routes: [{ name: shop, match: { path_prefix: /shop }, pool: web }, { name: dead, match: { path_prefix: /dead }, pool: dead }]
pools:
  web: { servers: [{ name: a, address: \"{{a}}\" }] }
  dead: { servers: [{ name: b, address: \"{{b}}\" }] }
";
    let world = World::builder(yaml).down("b").start();
    let send = |method: &str, target: &str, size: usize, header: &str| {
        let browser = world.browser();
        let request = browser.request(method, target).fresh().header("Accept", "application/json");
        request.header("X-Fill", header).body(vec![b'x'; size]).send()
    };
    let long = "y".repeat(3000);
    for (answer, status, says) in [
        (send("GET", "/nowhere", 0, ""), 404, "No route matches this request."),
        (send("TRACE", "/shop", 0, ""), 405, "This method is not allowed."),
        (send("POST", "/shop", 2000, ""), 413, "The request body is too large."),
        (send("GET", "/shop", 0, &long), 431, "The request headers are too large."),
        (send("GET", "/dead", 0, ""), 503, "No server is available. Try again in a moment."),
    ] {
        let json = answer.expect(status).json();
        assert_eq!((&json["status"], &json["detail"]), (&Value::from(status), &Value::from(says)), "{json}");
    }
    let answer = world.browser().request("GET", "/nowhere").header("Accept", HTML).send().expect(404);
    assert!(answer.text().contains("<h1>Not Found</h1>"), "{}", answer.text());
}

#[test]
fn an_error_page_shows_the_request_id_as_text_only() {
    let conf = Conf::servers("a").listener("trusted_proxies: [127.0.0.1/32]").pool("retries: { attempts: 0 }");
    let world = World::start(conf);
    let ask = |accept: &str| {
        let browser = world.browser();
        let request = browser.request("GET", "/garbage").header("Accept", accept);
        request.header("X-Request-Id", "<b>\"1\\2\"</b>").send().expect(502)
    };
    let page = ask(HTML).text();
    assert!(page.contains("Request id: &lt;b&gt;&quot;1\\2&quot;&lt;/b&gt;"), "{page}");
    assert_eq!(ask("application/json").json()["request_id"], "<b>\"1\\2\"</b>");
    assert!(ask("*/*").text().ends_with("\nRequest id: <b>\"1\\2\"</b>\n"));
}

#[test]
fn a_request_without_a_response_has_an_id_and_moves_no_session() {
    let world = World::start(Conf::servers("a b"));
    let alice = world.browser();
    alice.get("/echo");
    for app in world.apps() {
        app.kill();
    }
    let answer = alice.request("GET", "/lost").header("Accept", "application/json").send().expect(503);
    let line = world.access_line("/lost");
    assert_eq!(line["request_id"], answer.json()["request_id"], "{line}");
    assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 36), "{line}");
    assert_eq!((&line["outcome"], &line["reason"]), (&Value::Null, &"connect_failure".into()), "{line}");
}

#[test]
fn error_responses_of_applications_are_left_alone() {
    let world = World::start(Conf::servers("a"));
    for code in [404, 500, 503] {
        let answer = world.browser().request("GET", &format!("/status?code={code}")).header("Accept", HTML).send();
        let answer = answer.expect(code);
        assert_eq!((kind(&answer), answer.text().as_str()), ("text/plain", "a"), "{:?}", answer.head);
    }
}

#[test]
fn over_http2_it_is_the_same() {
    let conf = Conf::servers("a").persistence("on_server_down: refuse").listener("max_body_size: 10B");
    let world = World::start(conf);
    let answer = h2(&world.address, H2Request::post("/x", vec![b'x'; 100]).header("accept", HTML)).expect(413);
    assert!(answer.text().contains("The request body is too large."), "{}", answer.text());
    assert_eq!(length(&answer), answer.body.len());
    let answer = h2(&world.address, H2Request::post("/x", vec![b'x'; 100]).header("accept", "application/json"));
    assert_eq!(answer.expect(413).json()["title"], "Payload Too Large");
}

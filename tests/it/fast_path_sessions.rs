//! Sessions in every carrier: the fast path and the full one make no difference.

use crate::fast_path_exchanges::{Exchange, OK, exchange};
use crate::fast_path_ways::compare_ways;
use crate::world::Conf;

const OUTCOMES: &str = "homing_session_outcomes_total";

/// Responses to requests of sessions.
const ANSWERS: &[&str] = &[
    OK,
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nSet-Cookie: SID=again; Path=/\r\n\r\n",
    "HTTP/1.1 302 Found\r\nLocation: /b?c=d\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SID=own; Path=/; HttpOnly\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: SID=own\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SID=\"quoted, ~ value\"; Path=/\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SID=own; Path=/elsewhere\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SID=; Path=/; Max-Age=0\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SESSIONID=mine; Path=/\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-Session: mine\r\nx-session: other\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=5\r\nContent-Type: text/html\r\nContent-Length: 16\r\n\r\n<a href=\"/b\"></a>",
    "HTTP/1.1 103 Early Hints\r\nSet-Cookie: SID=early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 500 Internal Server Error\r\nSet-Cookie: SID=own\r\nContent-Length: 2\r\n\r\nno",
];

/// A way to carry a session: the target, and the fields.
type Carried = (&'static str, &'static str);

/// Requests with each of them, answered in every way.
fn exchanges(carried: &[Carried]) -> Vec<Exchange> {
    let mut all = Vec::new();
    for (target, fields) in carried {
        for answer in ANSWERS {
            all.push(exchange(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"), answer));
        }
        let head = "HTTP/1.1 200 OK\r\nSet-Cookie: SID=own; Path=/\r\nContent-Length: 2\r\n\r\n";
        all.push(exchange(&format!("HEAD {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"), head));
        let post = format!("POST {target} HTTP/1.1\r\nHost: a.example\r\n{fields}Content-Length: 5\r\n\r\nhello");
        all.push(exchange(&post, OK));
    }
    all
}

/// Plays them. `sessions`: so many requests of known sessions are among them at least.
#[track_caller]
fn expect_equal(persistence: &str, carried: &[Carried], sessions: f64) {
    for more in ["", "connection: { preserve_header_case: true }"] {
        let conf = Conf::servers("a").server("a", "route: app1").pool(more).persistence(persistence);
        let all = exchanges(carried);
        let fast = compare_ways(&conf, None, &all);
        let served = fast.fast();
        assert!(served > 0.9 * all.len() as f64, "{served} of {} took the fast path", all.len());
        let kept = fast.world.metric(OUTCOMES, &[("outcome", "kept")]);
        assert!(kept >= sessions, "{kept} requests of known sessions");
    }
}

#[test]
fn sessions_in_the_applications_cookie_see_no_difference() {
    let prefix = [
        ("/a", ""),
        ("/a?b=c", "Cookie: a=1; SID={token}~own\r\n"),
        ("/a", "Cookie: SID={token}~own; SID={token}~; b=2\r\n"),
        ("/a", "Cookie: SID=abc\r\nCookie: x=y\r\n"),
        ("/a", "Cookie: SID~homing={token}; SID=large\r\n"),
        ("/a", "Cookie: SID=AQgarbage~own\r\n"),
    ];
    expect_equal("cookie: { name: SID, mode: prefix }", &prefix, 40.0);
    let rewrite = [
        ("/a", ""),
        ("/a?b=c", "Cookie: a=1; SID={token}\r\n"),
        ("/a", "Cookie: SID=\"{token}\"; SID={token}; b=2\r\n"),
        ("/a", "Cookie: SID=abc\r\nCookie: x=y\r\n"),
        ("/a", "Cookie: SID~homing={token}; SID=large\r\n"),
    ];
    expect_equal("cookie: { name: SID, mode: rewrite }", &rewrite, 40.0);
    expect_equal("cookie: { name: SID, mode: rewrite, hide_from_server: false }", &rewrite, 40.0);
}

#[test]
fn sessions_in_a_header_see_no_difference() {
    let header = [
        ("/a", ""),
        ("/a?b=c", "X-Session: {token}\r\n"),
        ("/a", "x-session:  {token} \r\nX-SESSION: other\r\nCookie: a=1\r\nCookie: b=2\r\n"),
        ("/a", "X-Session: garbage\r\n"),
        ("/a", "X-Session:\r\nCookie: SESSIONID={token}\r\n"),
    ];
    expect_equal("sources: [{ header: { name: X-Session } }], issue: header", &header, 30.0);
    expect_equal("sources: [{ cookie: {} }, { header: { name: X-Session } }]", &header, 30.0);
}

#[test]
fn sessions_in_the_url_see_no_difference_unless_links_are_rewritten() {
    let url = [
        ("/a", ""),
        ("/a?sid={token}", ""),
        ("/a?x=1&sid={token}&y=2", "Referer: http://a.example/b?sid={token}&c=d\r\n"),
        ("/a;sid={token}/b?sid=no", "Referer: /b;sid={token}\r\nreferer: /other\r\n"),
        ("/;sid={token}", "Cookie: SESSIONID={token}; a=1\r\n"),
        ("/a?sid=garbage&sid={token}", ""),
    ];
    expect_equal("sources: [{ query: { name: sid } }, { cookie: {} }]", &url, 40.0);
}

#[test]
fn sessions_with_ids_of_the_application_see_no_difference() {
    let route = [
        ("/a", ""),
        ("/a;jsessionid=0AB3.app1?b=c", ""),
        ("/a?jsessionid=0AB3.app1", "Cookie: a=1\r\n"),
        ("/a", "Cookie: JSESSIONID=0AB3.app1; JSESSIONID=other.nowhere\r\n"),
        ("/a", "Cookie: JSESSIONID=0AB3.nowhere\r\nCookie: a=1\r\n"),
    ];
    let source = "{ route: { cookie: JSESSIONID, query: jsessionid } }";
    expect_equal(&format!("sources: [{source}]"), &route, 40.0);
    expect_equal(&format!("sources: [{source}, {{ cookie: {{}} }}], issue: cookie"), &route, 40.0);
    let learned = [
        ("/a", ""),
        ("/a", "Cookie: SID=own\r\n"),
        ("/a?b=c", "X-Session: mine\r\n"),
        ("/a?sid=own", "Cookie: SID=unknown\r\n"),
        ("/a", "X-Session: unknown\r\nCookie: SID=own; SID=again\r\n"),
    ];
    expect_equal("sources: [{ learn: { cookie: SID, header: X-Session, query: sid } }]", &learned, 40.0);
}

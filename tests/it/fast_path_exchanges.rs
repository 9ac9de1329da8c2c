//! Exchanges that are played through the fast path and through the full one.

/// How the server answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// Written in two pieces, cut here.
    pub(crate) cut: Option<usize>,
    /// The connection is closed behind it.
    pub(crate) closes: bool,
}

/// One exchange.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    /// The request is sent in two pieces, cut here.
    pub(crate) cut: Option<usize>,
    pub(crate) answer: Answer,
}

pub(crate) fn exchange(request: &str, answer: &str) -> Exchange {
    let answer = Answer { bytes: answer.as_bytes().to_vec(), ..Answer::default() };
    Exchange { request: request.as_bytes().to_vec(), cut: None, answer }
}

/// Behind it the server closes.
fn closing(request: &str, answer: &str) -> Exchange {
    let mut exchange = exchange(request, answer);
    exchange.answer.closes = true;
    exchange
}

pub(crate) const GET: &str = "GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(crate) fn get_with(fields: &str) -> String {
    format!("GET /a?b=c HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

/// First lines of requests.
const LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "HEAD / HTTP/1.1",
    "OPTIONS /x HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "DELETE /x?y HTTP/1.1",
    "POST /x HTTP/1.1",
    "TRACE / HTTP/1.1",
    "CONNECT a.example:80 HTTP/1.1",
    "GET /a;b=1/%20%2e./../c?d=e&f=%00 HTTP/1.1",
    "GET //double/slash HTTP/1.1",
    "GET /a{b}|c^\"d HTTP/1.1",
    "GET /caf\u{e9} HTTP/1.1",
    "GET /a b HTTP/1.1",
    "GET /a#b HTTP/1.1",
    "GET http://a.example/abs?x HTTP/1.1",
    "GET http://other.example/abs HTTP/1.1",
    "GET / HTTP/1.0",
    "GET / HTTP/1.2",
    "GET / HTTP/2.0",
    "get / HTTP/1.1",
    "PROPFIND / HTTP/1.1",
];

/// Fields of requests.
const FIELDS: &[&str] = &[
    "",
    "Connection: close\r\n",
    "Connection: Keep-Alive\r\n",
    "Connection: keep-alive, X-A\r\nX-A: 1\r\n",
    "Connection: x-forwarded-for\r\n",
    "Connection: close\r\nConnection: keep-alive\r\n",
    "Keep-Alive: timeout=5\r\n",
    "Proxy-Connection: keep-alive\r\n",
    "Proxy-Authorization: Basic eA==\r\n",
    "Authorization: Basic eA==\r\n",
    "Authorization: NTLM eA==\r\n",
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "TE: trailers\r\n",
    "Trailer: X-A\r\n",
    "Expect: 100-continue\r\n",
    "Expect: something\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 00\r\n",
    "Content-Length: +0\r\n",
    "Content-Length: 0\r\nContent-Length: 0\r\n",
    "Content-Length: 0, 0\r\n",
    "Content-Length:\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "Cookie: a=1; b=2\r\n",
    "Cookie: a=1\r\nCookie: b=2\r\n",
    "Cookie: SESSIONID=garbage; a=1\r\n",
    "Cookie: SESSIONID=garbage\r\n",
    "Cookie: a=1; SESSIONID=x; SESSIONID=y; b=2\r\n",
    "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
    "X-Forwarded-User: root\r\nx-real-ip: 1.2.3.4\r\n",
    "X_Forwarded_For: 1.2.3.4\r\nX_A: 1\r\n",
    "Forwarded: for=1.2.3.4\r\n",
    "X-Request-Id: mine\r\n",
    "Homing-Session-Data: x\r\nHoming-Session-Moved: x\r\n",
    "Host: b.example\r\n",
    "X-A: 1\r\nx-a: 2\r\nX-B:  padded \t\r\nX-Empty:\r\n",
    "X-A: caf\u{e9}\r\n",
    "X-A : 1\r\n",
    " X-A: 1\r\n",
    "X-A: 1\r\n folded\r\n",
    "X-A\r\n",
    ": 1\r\n",
    "X-A: a\rb\r\n",
    "X-A: 1\n",
    "X-A: \u{1}\r\n",
    "Range: bytes=0-1\r\nIf-None-Match: \"x\"\r\nAccept-Encoding: gzip\r\n",
];

/// Answers behind which the server keeps its connection.
const WHOLE: &[&str] = &[
    OK,
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 Very Well\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 599 Odd\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 02\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 00000000000000000000002\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\nContent-Length: 5, 6\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-In\r\nX-In: 1\r\nKeep-Alive: timeout=9\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nConnection: close, Content-Length\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nProxy-Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 103 A\r\n\r\nHTTP/1.1 103 B\r\nX-A: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2; Path=/\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: SID=7; Path=/\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=5\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nCDN-Cache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nHoming-Session-Data: secret\r\nHoming-Session-Moved: x\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nX-Space : a\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
];

/// Answers behind which it closes it.
const ENDED: &[&str] = &[
    "",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK\r\nContent-Le",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokXX",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nXX\r\n",
    "HTTP/1.1 200 OK\r\n\r\nto the end",
    "HTTP/1.1 200 OK\r\n\r\n",
    "HTTP/1.0 200 OK\r\n\r\nto the end",
    "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end",
    "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore",
    "HTTP/1.1 103 Early Hints\r\n\r\n",
    "HTTP/1.1 99 Odd\r\n\r\n",
    "HTTP/1.1 1000 Odd\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "garbage\r\n\r\n",
    "HTTP/1.1 200 OK\r\nbroken\r\n\r\n",
];

/// Requests that the server answers with "ok".
pub(crate) fn requests() -> Vec<Exchange> {
    let mut all: Vec<_> = LINES.iter().map(|line| format!("{line}\r\nHost: a.example\r\n\r\n")).collect();
    all.extend(FIELDS.iter().map(|fields| get_with(fields)));
    let post = "Host: a.example\r\nContent-Type: text/plain\r\n";
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "PROPFIND"] {
        all.push(format!("{method} /x HTTP/1.1\r\n{post}Content-Length: 5\r\n\r\nhello"));
    }
    all.push(format!("POST /x HTTP/1.1\r\n{post}Content-Length: 15000\r\n\r\n{}", "x".repeat(15_000)));
    all.push(format!("POST /x HTTP/1.1\r\n{post}Content-Length: 20000\r\n\r\n{}", "x".repeat(20_000)));
    all.push(format!("POST /x HTTP/1.1\r\n{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"));
    all.push(format!("POST /x HTTP/1.1\r\n{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    all.push("GET / HTTP/1.1\r\n\r\n".to_owned());
    all.push("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned());
    all.push("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned());
    all.push("GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n".to_owned());
    all.push("\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned());
    all.push("GET / HTTP/1.1\nHost: a.example\n\n".to_owned());
    all.push(get_with(&"X-Many: 1\r\n".repeat(80)));
    all.push(get_with(&"X-Many: 1\r\n".repeat(300)));
    all.push(get_with(&format!("X-Long: {}\r\n", "x".repeat(20_000))));
    all.push(get_with(&format!("X-Long: {}\r\n", "x".repeat(80_000))));
    all.iter().map(|request| exchange(request, if request.starts_with("HEAD") { HEAD_OK } else { OK })).collect()
}

const HEAD_OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";

/// Answers to a plain request.
pub(crate) fn answers() -> Vec<Exchange> {
    let mut all: Vec<_> = WHOLE.iter().map(|answer| exchange(GET, answer)).collect();
    all.extend(ENDED.iter().map(|answer| closing(GET, answer)));
    let head = GET.replace("GET", "HEAD");
    for answer in [HEAD_OK, "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
        all.push(exchange(&head, answer));
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X-Many: 1\r\n".repeat(100));
    all.push(exchange(GET, &many));
    let too_many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X-Many: 1\r\n".repeat(300));
    all.push(closing(GET, &too_many));
    let large = "x".repeat(300_000);
    all.push(exchange(GET, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{large}", large.len())));
    all.push(exchange(
        GET,
        &format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n", large.len()),
    ));
    all.push(closing(GET, &format!("HTTP/1.1 200 OK\r\n\r\n{large}")));
    all
}

//! The sample servers over real sockets, as the proxy and a hostile client meet them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;

const FREE: [u16; 3] = [0, 0, 0];

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a running server accepts");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    stream
}

/// Sends bytes, says that nothing more will come, and returns all that is answered.
fn talk(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("a running server reads");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    talk(address, format!("GET {path} HTTP/1.1\r\nHost: demo\r\n{headers}\r\n").as_bytes())
}

fn post(address: SocketAddr, path: &str, headers: &str) -> String {
    talk(address, format!("POST {path} HTTP/1.1\r\nHost: demo\r\n{headers}\r\n").as_bytes())
}

fn addresses(demo: &Demo) -> [SocketAddr; 3] {
    let servers: Vec<SocketAddr> = demo.servers().into_iter().map(|(_, address)| address).collect();
    servers.try_into().expect("three servers")
}

fn cart_cookie(answer: &str) -> String {
    let line = answer.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).expect("a cart has a cookie");
    format!("Cookie: {}\r\n", line.split(';').next().expect("a pair"))
}

#[test]
fn a_cart_stays_in_the_memory_of_the_server_that_made_it() {
    let demo = start(FREE).expect("starts");
    let [amber, birch, _] = addresses(&demo);
    let answer = post(amber, "/cart?item=tea", "");
    assert!(answer.contains(r#""cart":{"tea":1}"#), "{answer}");
    let cookie = cart_cookie(&answer);
    let answer = post(amber, "/cart", &format!("{cookie}Content-Length: 10\r\n\r\nitem=honey"));
    assert!(answer.contains(r#""cart":{"honey":1,"tea":1}"#), "{answer}");
    assert!(!answer.contains("Set-Cookie"), "a known cart keeps its cookie: {answer}");
    assert!(get(amber, "/cart", &cookie).contains(r#""cart":{"honey":1,"tea":1}"#));
    let elsewhere = get(birch, "/cart", &cookie);
    assert!(elsewhere.contains(r#""cart":{},"cart_lost":true"#), "{elsewhere}");
    let removed = talk(amber, format!("DELETE /cart?item=tea HTTP/1.1\r\nHost: a\r\n{cookie}\r\n").as_bytes());
    assert!(removed.contains(r#""cart":{"honey":1}"#), "{removed}");
}

#[test]
fn an_id_that_the_server_does_not_know_is_not_adopted() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let answer = post(amber, "/cart?item=tea", "Cookie: CARTID=chosen-by-a-stranger\r\n");
    assert!(!cart_cookie(&answer).contains("chosen-by-a-stranger"), "{answer}");
}

#[test]
fn a_connection_carries_many_requests_and_head_has_no_body() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let mut stream = connect(amber);
    for _ in 0..3 {
        stream
            .write_all(b"HEAD /whoami HTTP/1.1\r\nHost: a\r\n\r\nGET /whoami HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("kept alive");
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\namber\n") {
            let mut some = [0; 512];
            let count = stream.read(&mut some).expect("an answer");
            assert_ne!(count, 0, "closed after {answer}");
            answer.push_str(&String::from_utf8_lossy(&some[..count]));
        }
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
        assert_eq!(answer.matches("Content-Length: 6").count(), 2, "HEAD tells the length too: {answer}");
        assert_eq!(answer.matches("\r\n\r\namber\n").count(), 1, "HEAD has no body: {answer}");
    }
}

#[test]
fn a_connection_is_closed_when_the_client_asks() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    for request in ["GET /whoami HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "GET /whoami HTTP/1.0\r\n\r\n"] {
        let mut stream = connect(amber);
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer and its end, without our closing first");
        assert!(answer.contains("Connection: close") && answer.ends_with("amber\n"), "{answer}");
    }
}

#[test]
fn bodies_come_chunked_and_after_100_continue() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let chunked = "POST /cart HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nitem=\r\n3\r\ntea\r\n0\r\nTrailer: x\r\n\r\n";
    assert!(talk(amber, chunked.as_bytes()).contains(r#"{"tea":1}"#));

    let mut stream = connect(amber);
    stream
        .write_all(
            b"POST /cart HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        )
        .expect("sent");
    let mut go = [0; 25];
    stream.read_exact(&mut go).expect("a word to go on");
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"item=tea").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.contains(r#"{"tea":1}"#), "{answer}");
}

#[test]
fn hostile_input_is_refused_and_the_server_lives() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    let chunked =
        format!("POST /cart HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11170\r\n{}", "z".repeat(70_000));
    let many_bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let cases: [(&[u8], &str); 13] = [
        (b"nonsense\r\n\r\n", "400"),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", "400"),
        (b"GET / HTTP/1.1\r\n\r\n", "400"),
        // Pingora encodes what may not stand in a target.
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        (b"\xff\xfe\r\n\r\n", "400"),
        (b"POST /cart HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", "413"),
        (b"POST /cart HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "400"),
        (chunked.as_bytes(), "413"),
        (b"POST /cart HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "400"),
        (b"POST /cart HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "400"),
        (b"PUT /demo/servers/amber/stop HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "405"),
        (long.as_bytes(), "431"),
    ];
    for (bytes, status) in cases {
        let answer = talk(amber, bytes);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{:?} gave {answer:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    for bytes in [&b""[..], b"\r\n\r\n\r\n", b"GET", &many_bytes] {
        let _ = talk(amber, bytes);
    }
    assert!(get(amber, "/whoami", "").ends_with("amber\n"), "it still serves");
}

#[test]
fn a_stopped_server_refuses_resets_and_forgets() {
    let demo = start(FREE).expect("starts");
    let [amber, birch, _] = addresses(&demo);
    let cookie = cart_cookie(&post(birch, "/cart?item=tea", ""));
    let mut open = connect(birch);
    open.write_all(b"GET /whoami HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut answer = [0; 512];
    let mut read = 0;
    while !answer[..read].ends_with(b"birch\n") {
        let count = open.read(&mut answer[read..]).expect("an answer");
        assert_ne!(count, 0, "closed too early");
        read += count;
    }

    assert!(post(amber, "/demo/servers/birch/stop", "").ends_with("birch is stopped\n"));
    let refused = TcpStream::connect(birch).expect_err("the listener is closed");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let reset = open.read(&mut answer).expect_err("an open connection is reset, not closed in order");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let state = get(amber, "/demo/state", "");
    assert!(state.contains(r#""carts":0,"colour":"#) && state.contains(r#""up":false"#), "{state}");

    assert!(post(amber, "/demo/servers/birch/start", "").contains("birch runs on"));
    assert!(get(birch, "/cart", &cookie).contains(r#""cart":{},"cart_lost":true"#), "its memory is gone");
}

#[test]
fn a_server_that_is_told_to_stop_itself_answers_first() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let answer = post(amber, "/demo/servers/amber/stop", "");
    assert!(answer.contains("Connection: close") && answer.ends_with("amber stops\n"), "{answer}");
    let mut patience = 500;
    while TcpStream::connect(amber).is_ok() {
        patience -= 1;
        assert_ne!(patience, 0, "it does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_terminal_stops_and_starts_by_number_and_name() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    assert!(demo.command("1\n").contains("amber is stopped"));
    assert!(TcpStream::connect(amber).is_err());
    assert!(demo.command(" Amber ").contains("amber runs again"));
    assert!(get(amber, "/whoami", "").ends_with("amber\n"));
    for line in ["", "4", "0", "-1", "99999999999999999999999", "\u{0}", "stop"] {
        assert!(demo.command(line).contains("1  amber  runs"), "{line:?} shows the servers and changes nothing");
    }
}

#[test]
fn orders_from_another_site_are_refused() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let answer = post(amber, "/demo/servers/birch/stop", "Sec-Fetch-Site: cross-site\r\n");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(post(amber, "/demo/servers/oak/stop", "").starts_with("HTTP/1.1 404 "));
}

#[test]
fn the_page_tells_a_move_and_only_a_true_one() {
    let demo = start(FREE).expect("starts");
    let [amber, ..] = addresses(&demo);
    let page = get(amber, "/", "Homing-Session-Moved: from=birch; reason=connect_failure; epoch=2\r\n");
    assert!(page.contains(r#"announced = {"epoch":2,"from":"birch","reason":"connect_failure"};"#), "{page}");
    for forged in ["from=</script>; reason=down", "from=birch; reason=<b>", "", "from=birch"] {
        let page = get(amber, "/", &format!("Homing-Session-Moved: {forged}\r\n"));
        assert!(page.contains("announced = null;"), "{forged}");
    }
}

#[test]
fn a_taken_port_is_replaced_and_the_banner_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let demo = start([port, 0, 0]).expect("starts elsewhere");
    let [amber, ..] = addresses(&demo);
    assert_ne!(amber.port(), port);
    let banner = demo.banner("127.0.0.1:18080", DEFAULT_ADMIN);
    assert!(banner.contains(&format!("127.0.0.1:{port} is taken, so amber listens on {amber}")), "{banner}");
    assert!(banner.contains("127.0.0.1:18080 instead of 127.0.0.1:8080"), "{banner}");
    assert!(banner.contains(r#"awk '$6 == "SESSIONID" { print $7 }' jar"#), "{banner}");
    let preferred = format!("127.0.0.1:{port}");
    assert_ne!(free_address(&preferred).expect("a free one"), preferred);
}

#[test]
fn the_file_is_private_and_goes_with_the_demo() {
    let demo = start(FREE).expect("starts");
    let path = demo.config_file(DEFAULT_LISTEN, DEFAULT_ADMIN).expect("written").to_owned();
    let text = fs::read_to_string(&path).expect("readable");
    for (name, address) in demo.servers() {
        assert!(text.contains(&format!("- {{ name: {name}, address: \"{address}\" }}")), "{text}");
    }
    let secret = path.with_file_name("key");
    assert!(text.contains(&format!("secret: \"${{file:{}}}\"", secret.display())), "{text}");
    #[cfg(unix)]
    for private in [&path, &secret] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(private).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", private.display());
    }
    drop(demo);
    assert!(!path.exists(), "it holds a secret and is removed");
    assert!(!path.parent().expect("a folder").exists(), "and so is its folder");
}

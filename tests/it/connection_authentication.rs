//! NTLM and Negotiate authenticate a connection. What one client has authenticated, no other client is served over.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::world::h2c::{H2Request, h2_in_turn};
use crate::world::http1::{Head, Reader};
use crate::world::net::Stream;
use crate::world::{Conf, Response, Wire, World};

/// A server whose users are those of its connections. It says in `X-Connection` which one a request came by.
struct Office {
    address: SocketAddr,
}

impl Office {
    fn open(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(Reader::new(Stream::Tcp(stream)), &format!("{name}{number}")));
            }
        });
        Self { address }
    }
}

#[derive(Default)]
struct Desk {
    challenged: bool,
    user: Option<String>,
}

fn serve(mut reader: Reader, connection: &str) -> io::Result<()> {
    let mut desk = Desk::default();
    while let Some(head) = reader.head()? {
        reader.body(&head, false, |_| {})?;
        let (status, challenge, text) = desk.answer(&head);
        let challenge = if challenge.is_empty() { String::new() } else { format!("{challenge}\r\n") };
        let body = match head.word(1).split('?').nth(1) {
            Some("empty") => "Content-Length: 0\r\n\r\n".to_owned(),
            Some("chunked") => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len()),
            _ => format!("Content-Length: {}\r\n\r\n{text}", text.len()),
        };
        let body = if head.word(0) == "HEAD" { "Content-Length: 9\r\n\r\n" } else { &body };
        write!(reader.stream, "HTTP/1.1 {status} Whatever\r\nX-Connection: {connection}\r\n{challenge}{body}")?;
    }
    Ok(())
}

impl Desk {
    fn answer(&mut self, head: &Head) -> (u16, String, String) {
        let refused = |challenge: &str| (401, format!("WWW-Authenticate: {challenge}"), "log in".to_owned());
        match head.header("authorization") {
            Some("NTLM type1" | "Negotiate type1") => {
                self.challenged = true;
                return refused("NTLM type2");
            }
            Some(credentials) if credentials.contains("type3-") && self.challenged => {
                self.user = credentials.split_once("type3-").map(|(_, user)| user.to_owned());
            }
            // A ticket logs in at once.
            Some(credentials) if credentials.starts_with("Negotiate ticket-") => {
                self.user = credentials.split_once("ticket-").map(|(_, user)| user.to_owned());
            }
            Some(credentials) if credentials.starts_with('N') => return refused("NTLM"),
            _ => {}
        }
        match (&self.user, head.word(1).split('?').next().unwrap_or_default()) {
            (_, "/open") => (200, String::new(), "open to all".to_owned()),
            (_, "/proxy") => (407, "Proxy-Authenticate: NTLM".to_owned(), "log in".to_owned()),
            (_, "/basic") => refused("Basic realm=\"NTLM\""),
            (_, "/kerberos") => refused("Basic realm=\"x\", Negotiate"),
            (Some(user), _) => (200, String::new(), format!("private page of {user}")),
            (None, _) => refused("NTLM"),
        }
    }
}

fn world_of(office: &Office) -> World {
    World::start(Conf::servers("a").address("a", &office.address.to_string()))
}

fn ask(wire: &mut Wire, target: &str, credentials: Option<&str>) -> Response {
    let line = credentials.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    wire.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n{line}\r\n"));
    wire.receive("GET")
}

fn connection(response: &Response) -> String {
    response.header("x-connection").expect("a response of the server").to_owned()
}

const LOGINS: [&[&str]; 3] =
    [&["NTLM type1", "NTLM type3-alice"], &["Negotiate type1", "Negotiate type3-alice"], &["Negotiate ticket-alice"]];

fn assert_is_alices(response: Response) -> String {
    let response = response.expect(200);
    assert_eq!(response.text(), "private page of alice");
    connection(&response)
}

#[test]
fn a_login_holds_for_its_client_and_for_no_other() {
    for login in LOGINS {
        let office = Office::open("a");
        let world = world_of(&office);
        let mut alice = world.wire();
        ask(&mut alice, "/", None).expect(401);
        let steps: Vec<_> = login.iter().map(|credentials| ask(&mut alice, "/", Some(credentials))).collect();
        let own: BTreeSet<_> = steps.iter().map(connection).collect();
        assert_eq!(own.len(), 1, "{login:?}: the handshake has one connection");
        let logged_in = assert_is_alices(steps.into_iter().next_back().unwrap());
        for _ in 0..3 {
            assert_eq!(assert_is_alices(ask(&mut alice, "/", None)), logged_in, "{login:?}: without credentials too");
        }
        let while_there = ask(&mut world.wire(), "/", None).expect(401);
        assert_ne!(connection(&while_there), logged_in);
        drop(alice);
        for _ in 0..10 {
            let response = ask(&mut world.wire(), "/", None).expect(401);
            assert_ne!(connection(&response), logged_in, "{login:?}");
        }
    }
}

/// Clients that know of such handshakes use HTTP/1.1 for them. Others must not get at each other's pages either.
#[test]
fn no_other_client_gets_the_page_over_http2() {
    let office = Office::open("a");
    let world = world_of(&office);
    let with = |value: &str| H2Request::get("/").header("authorization", value);
    for _ in 0..5 {
        let requests = vec![H2Request::get("/"), with("Negotiate ticket-alice"), H2Request::get("/")];
        let alice = h2_in_turn(&world.address, requests);
        assert_is_alices(alice[1].clone());
        for _ in 0..5 {
            h2_in_turn(&world.address, vec![H2Request::get("/")]).remove(0).expect(401);
            ask(&mut world.wire(), "/", None).expect(401);
        }
    }
}

#[test]
fn a_connection_that_a_challenge_came_by_is_not_used_for_others() {
    for target in ["/", "/?empty", "/?chunked", "/proxy", "/proxy?empty", "/kerberos", "/kerberos?chunked"] {
        let office = Office::open("a");
        let world = world_of(&office);
        let mut used = BTreeSet::new();
        for _ in 0..10 {
            let mut client = world.wire();
            let challenged = connection(&ask(&mut client, target, None));
            assert!(used.insert(challenged), "{target}: a client that came later got the same connection");
            let next = connection(&ask(&mut client, "/open", None));
            assert!(used.insert(next.clone()), "{target}: the client has a connection of its own");
            assert_eq!(connection(&ask(&mut client, "/open", None)), next, "{target}: and keeps it");
        }
    }
    let office = Office::open("a");
    let world = world_of(&office);
    let head = |wire: &mut Wire| {
        wire.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
        connection(&wire.receive("HEAD").expect(401))
    };
    assert_ne!(head(&mut world.wire()), head(&mut world.wire()), "in response to HEAD too");
}

#[test]
fn other_authentication_shares_connections_as_ever() {
    let office = Office::open("a");
    let world = world_of(&office);
    let credentials = [None, Some("Basic TlRMTQ=="), Some("Bearer NTLM"), Some("Digest username=\"NTLM\"")];
    let used: BTreeSet<_> = credentials
        .iter()
        .cycle()
        .take(12)
        .map(|value| connection(&ask(&mut world.wire(), "/basic", *value)))
        .collect();
    assert!(used.len() <= 2, "{used:?}");
}

#[test]
fn a_handshake_stays_at_one_server_without_a_session_too() {
    let (one, other) = (Office::open("a"), Office::open("b"));
    let conf = Conf::servers("a b").without_persistence();
    let conf = conf.address("a", &one.address.to_string()).address("b", &other.address.to_string());
    let world = World::start(conf);
    for _ in 0..4 {
        let mut alice = world.wire();
        ask(&mut alice, "/", None).expect(401);
        ask(&mut alice, "/", Some("NTLM type1")).expect(401);
        let logged_in = assert_is_alices(ask(&mut alice, "/", Some("NTLM type3-alice")));
        for _ in 0..4 {
            assert_eq!(assert_is_alices(ask(&mut alice, "/", None)), logged_in);
        }
    }
}

//! A certificate authority as the proxy meets it: Pebble, and before it a server that counts what is asked, and may refuse it.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::client::{Response, Wire, request_text};
use super::http1::{Head, Reader};
use super::net::{Address, PATIENCE, Stream};
use super::stores::Pebble;
use super::tls::{Authority, Client, Handshake as _};
use super::tls_server::{Manners, TlsServer};
use super::{Environment, eventually};

/// Where Pebble takes orders.
pub(crate) const ORDERS: &str = "/order-plz";
/// Where it makes accounts.
pub(crate) const ACCOUNTS: &str = "/sign-me-up";
/// The host that certificates are ordered for.
pub(crate) const HOST: &str = "shop.test";

/// The authority.
#[derive(Debug)]
pub(crate) struct CertificateAuthority {
    pub(crate) pebble: Pebble,
    front: TlsServer,
    filter: Arc<Filter>,
    signer: Authority,
    /// What clients of the proxy believe in.
    pub(crate) root: CertificateDer<'static>,
}

/// The server before Pebble, behind its TLS.
#[derive(Debug)]
struct Filter {
    pebble: SocketAddr,
    believes: CertificateDer<'static>,
    asked: Mutex<Vec<(String, String)>>,
    replaced: Mutex<Vec<String>>,
    /// By path: a Retry-After, with 429; `None`: 500.
    refusals: Mutex<BTreeMap<String, Option<String>>>,
    /// A window for the renewal of one certificate, in seconds from now, and the path that the certificate is asked for by.
    window: Mutex<Option<(i64, i64)>>,
    suggested: Mutex<Option<String>>,
}

impl CertificateAuthority {
    /// It looks at challenges at these addresses of the proxy; its certificates are valid for so many seconds.
    #[track_caller]
    pub(crate) fn start(plain: &Address, tls: &Address, seconds: u64, external: Option<(&str, &str)>) -> Self {
        let signer = Authority::new();
        let pebble = Pebble::start((plain.port(), tls.port()), seconds, &signer, external);
        let root = root(&signer, pebble.management);
        let front = TlsServer::open(&signer.sign(&["127.0.0.1", "localhost"]), Manners::default());
        let filter = Arc::new(Filter {
            pebble: pebble.address,
            believes: signer.certificate.clone(),
            asked: Mutex::default(),
            replaced: Mutex::default(),
            refusals: Mutex::default(),
            window: Mutex::default(),
            suggested: Mutex::default(),
        });
        front.forward(open(&filter));
        Self { pebble, front, filter, signer, root }
    }

    /// For the proxies of a test whose first one serves clients at `{{proxy}}` and challenges at `{{proxy2}}`.
    pub(crate) fn of(environment: &mut Environment, seconds: u64) -> Self {
        Self::requiring(environment, seconds, None)
    }

    /// The same, where accounts must be bound to an external one, a name and its key.
    pub(crate) fn requiring(environment: &mut Environment, seconds: u64, external: Option<(&str, &str)>) -> Self {
        let (plain, tls) = (environment.address("proxy2"), environment.address("proxy"));
        let authority = Self::start(&plain, &tls, seconds, external);
        authority.write(environment.directory());
        authority
    }

    /// Writes what the proxy needs to believe the directory.
    pub(crate) fn write(&self, directory: &Path) {
        self.signer.write(directory, "directory");
    }

    /// The section of a listener's `tls`.
    pub(crate) fn section(&self, more: &str) -> String {
        let directory = self.front.address;
        format!(
            "acme: {{ directory: \"https://{directory}/dir\", ca: directory.pem, hosts: [{HOST}], storage: \"{{{{dir}}}}/acme\"{more} }}"
        )
    }

    /// How often this was asked.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.filter.asked.lock().unwrap().iter().filter(|(_, asked)| asked == path).count()
    }

    /// Certificates that orders have named as those that they replace.
    pub(crate) fn replaced(&self) -> usize {
        self.filter.replaced.lock().unwrap().len()
    }

    /// Requests for a path get 429 with this Retry-After.
    pub(crate) fn limit(&self, path: &str, retry_after: &str) {
        self.filter.refusals.lock().unwrap().insert(path.to_owned(), Some(retry_after.to_owned()));
    }

    /// Requests for a path get 500.
    pub(crate) fn fail(&self, path: &str) {
        self.filter.refusals.lock().unwrap().insert(path.to_owned(), None);
    }

    /// No request is refused any more.
    pub(crate) fn heal(&self) {
        self.filter.refusals.lock().unwrap().clear();
    }

    /// The certificate that is asked for next should be renewed between these times, in seconds from now (RFC 9773, which Pebble
    /// 2.4 does not have).
    pub(crate) fn suggest(&self, from: i64, to: i64) {
        *self.filter.window.lock().unwrap() = Some((from, to));
    }

    /// Starts Pebble again, without its accounts, and with another root.
    pub(crate) fn restart(&mut self) {
        self.pebble.kill();
        self.pebble.run(&self.signer);
        self.root = root(&self.signer, self.pebble.management);
    }

    /// The certificate that is shown for the host, once one of this authority is.
    #[track_caller]
    pub(crate) fn shown(&self, address: &Address) -> CertificateDer<'static> {
        let mut shown = None;
        eventually(3 * PATIENCE, "a certificate of the authority is shown", || {
            shown = self.client().try_connect(address, HOST).ok().map(|wire| wire.certificate());
            shown.is_some()
        });
        shown.expect("just seen")
    }

    /// A client that believes in the authority.
    pub(crate) fn client(&self) -> Client<'_> {
        Client::believing(&self.root)
    }
}

/// The certificate that signs all others.
fn root(signer: &Authority, management: SocketAddr) -> CertificateDer<'static> {
    let mut wire = Client::new(signer).connect(&Address::Tcp(management), "localhost");
    wire.send("GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let pem = wire.receive("GET").expect(200).body;
    CertificateDer::from_pem_slice(&pem).expect("the authority's certificate")
}

fn open(filter: &Arc<Filter>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let filter = Arc::clone(filter);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let filter = Arc::clone(&filter);
            // A connection that breaks is the proxy's or the test's end.
            thread::spawn(move || drop(filter.serve(Stream::Tcp(stream))));
        }
    });
    address
}

impl Filter {
    fn serve(&self, stream: Stream) -> io::Result<()> {
        let mut reader = Reader::new(stream);
        while let Some(head) = reader.head()? {
            let mut body = Vec::new();
            reader.body(&head, false, |piece| body.extend_from_slice(piece))?;
            let (method, path) = (head.word(0).to_owned(), head.word(1).to_owned());
            self.asked.lock().unwrap().push((method.clone(), path.clone()));
            let response = self.answer(&head, &path, &body)?;
            reader.stream.write_all(&text(&response, &method))?;
        }
        Ok(())
    }

    fn answer(&self, head: &Head, path: &str, body: &[u8]) -> io::Result<Response> {
        if let Some(refusal) = self.refusals.lock().unwrap().get(path) {
            return Ok(refused(refusal.as_deref()));
        }
        if path.starts_with("/ari/") {
            return Ok(self.renewal(path));
        }
        let mut response = self.forward(head, path, body)?;
        let host = head.header("host").unwrap_or_default();
        if path == "/dir" && self.window.lock().unwrap().is_some() {
            edit(&mut response, |directory| directory["renewalInfo"] = json!(format!("https://{host}/ari")));
        }
        if path == ORDERS
            && let Some(replaces) = replaces(body)
        {
            edit(&mut response, |order| order["replaces"] = json!(replaces));
            self.replaced.lock().unwrap().push(replaces);
        }
        Ok(response)
    }

    fn forward(&self, head: &Head, path: &str, body: &[u8]) -> io::Result<Response> {
        let method = head.word(0);
        let mut wire = Client::believing(&self.believes).try_connect(&Address::Tcp(self.pebble), "localhost")?;
        wire.try_send(request_text(method, path, &head.headers, body))?;
        wire.try_receive(method)
    }

    fn renewal(&self, path: &str) -> Response {
        let is_suggested = self.suggested.lock().unwrap().get_or_insert_with(|| path.to_owned()) == path;
        let suggested = self.window.lock().unwrap().filter(|_| is_suggested);
        let (from, to) = suggested.unwrap_or((40_000, 50_000));
        let at = |seconds: i64| {
            let now = SystemTime::now();
            let far = Duration::from_secs(seconds.unsigned_abs());
            humantime::format_rfc3339_seconds(if seconds < 0 { now - far } else { now + far }).to_string()
        };
        let body = json!({ "suggestedWindow": { "start": at(from), "end": at(to) } }).to_string().into_bytes();
        let mut response = Response { status: 200, body, ..Response::default() };
        response.head.headers.push(("Retry-After".to_owned(), "60".to_owned()));
        response
    }
}

/// What an order replaces, by its signed body.
fn replaces(body: &[u8]) -> Option<String> {
    let signed: Value = serde_json::from_slice(body).ok()?;
    let payload = URL_SAFE_NO_PAD.decode(signed["payload"].as_str()?).ok()?;
    let order: Value = serde_json::from_slice(&payload).ok()?;
    order["replaces"].as_str().map(str::to_owned)
}

fn edit(response: &mut Response, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&response.body).expect("JSON of the authority");
    change(&mut value);
    response.body = value.to_string().into_bytes();
}

fn refused(retry_after: Option<&str>) -> Response {
    let kind = if retry_after.is_some() { "rateLimited" } else { "serverInternal" };
    let problem = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "said the test" });
    let status = if retry_after.is_some() { 429 } else { 500 };
    let mut response = Response { status, body: problem.to_string().into_bytes(), ..Response::default() };
    response.head.headers.extend(retry_after.map(|value| ("Retry-After".to_owned(), value.to_owned())));
    response
}

fn text(response: &Response, method: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} x\r\n", response.status);
    let framing = ["content-length", "transfer-encoding", "connection"];
    for (name, value) in &response.head.headers {
        if !framing.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    let body = if method == "HEAD" { &[][..] } else { &response.body };
    text.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

/// A request of a challenge.
pub(crate) fn ask(address: &Address, token: &str) -> Response {
    let mut wire = Wire::connect(address);
    wire.send(format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    wire.receive("GET")
}

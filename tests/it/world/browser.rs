//! A client as people have it: a cookie jar, connections that stay open, and the question "which server am I on?"

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::client::{Response, Wire, request_text};
use super::net::Address;

/// The name of the proxy's cookie when the configuration does not say another.
pub(crate) const SESSION_COOKIE: &str = "SESSIONID";

/// A cookie in the jar.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    name: String,
    value: String,
    path: String,
}

/// A browser. It may be shared by threads: each request has a connection to itself.
#[derive(Debug)]
pub(crate) struct Browser {
    address: Address,
    jar: Mutex<Vec<Cookie>>,
    idle: Mutex<Vec<Wire>>,
}

impl Browser {
    pub(crate) fn new(address: Address) -> Self {
        Self { address, jar: Mutex::default(), idle: Mutex::default() }
    }

    /// Another browser with the same cookies, which goes to that address.
    pub(crate) fn copy_at(&self, address: &Address) -> Self {
        let copy = Self::new(address.clone());
        lock(&copy.jar).clone_from(&lock(&self.jar));
        copy
    }

    pub(crate) fn get(&self, target: &str) -> Response {
        self.request("GET", target).send()
    }

    pub(crate) fn post(&self, target: &str, body: impl Into<Vec<u8>>) -> Response {
        self.request("POST", target).body(body).send()
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request<'_> {
        Request {
            browser: self,
            method: method.to_owned(),
            target: target.to_owned(),
            host: None,
            headers: Vec::new(),
            body: Vec::new(),
            fresh: false,
            with_cookies: true,
        }
    }

    /// Which server am I on?
    #[track_caller]
    pub(crate) fn server(&self) -> String {
        self.get("/echo").server()
    }

    /// The proxy's token in the jar.
    pub(crate) fn token(&self) -> Option<String> {
        self.cookie(SESSION_COOKIE)
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        lock(&self.jar).iter().find(|c| c.name == name).map(|c| c.value.clone())
    }

    pub(crate) fn put_cookie(&self, name: &str, value: &str) {
        self.keep(Cookie { name: name.to_owned(), value: value.to_owned(), path: "/".to_owned() });
    }

    /// Closes the connections that were kept open.
    pub(crate) fn disconnect(&self) {
        lock(&self.idle).clear();
    }

    fn keep(&self, cookie: Cookie) {
        let mut jar = lock(&self.jar);
        jar.retain(|c| c.name != cookie.name || c.path != cookie.path);
        jar.push(cookie);
    }

    fn take_cookies(&self, response: &Response) {
        for line in response.all("set-cookie") {
            let mut parts = line.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let mut cookie = Cookie { name: name.to_owned(), value: value.to_owned(), path: "/".to_owned() };
            let mut gone = false;
            for attribute in parts {
                match attribute.split_once('=') {
                    Some((n, path)) if n.eq_ignore_ascii_case("path") => path.clone_into(&mut cookie.path),
                    Some((n, age)) if n.eq_ignore_ascii_case("max-age") => gone = age == "0",
                    Some((n, _)) if n.eq_ignore_ascii_case("expires") => gone = has_expired(line),
                    _ => {}
                }
            }
            if gone {
                lock(&self.jar).retain(|c| c.name != cookie.name);
            } else if !cookie.name.is_empty() {
                self.keep(cookie);
            }
        }
    }

    fn cookie_line(&self, target: &str) -> Option<String> {
        let jar = lock(&self.jar);
        let fitting = jar.iter().filter(|c| target.starts_with(c.path.as_str()));
        let pairs: Vec<String> = fitting.map(|c| format!("{}={}", c.name, c.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn connection(&self, fresh: bool) -> io::Result<Wire> {
        if !fresh {
            let mut idle = lock(&self.idle);
            idle.retain(|wire| !wire.reader.stream.is_stale());
            if let Some(wire) = idle.pop() {
                return Ok(wire);
            }
        }
        Wire::try_connect(&self.address)
    }
}

/// A request being written.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    browser: &'a Browser,
    method: String,
    target: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fresh: bool,
    with_cookies: bool,
}

impl Request<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Over a connection of its own, closed afterwards.
    pub(crate) fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// The jar stays closed, for this request and its answer; a `Cookie` header may be given by hand.
    pub(crate) fn without_cookies(mut self) -> Self {
        self.with_cookies = false;
        self
    }

    #[track_caller]
    pub(crate) fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().unwrap_or_else(|e| panic!("{what} was not answered: {e}"))
    }

    pub(crate) fn try_send(self) -> io::Result<Response> {
        let mut wire = self.browser.connection(self.fresh)?;
        let mut headers = vec![("Host".to_owned(), self.host.clone().unwrap_or_else(|| "example.test".to_owned()))];
        if let Some(line) = self.browser.cookie_line(&self.target).filter(|_| self.with_cookies) {
            headers.push(("Cookie".to_owned(), line));
        }
        headers.extend(self.headers);
        if !self.body.is_empty() || self.method == "POST" || self.method == "PUT" {
            headers.push(("Content-Length".to_owned(), self.body.len().to_string()));
        }
        if self.fresh {
            headers.push(("Connection".to_owned(), "close".to_owned()));
        }
        wire.try_send(request_text(&self.method, &self.target, &headers, &self.body))?;
        let response = wire.try_receive(&self.method)?;
        if self.with_cookies {
            self.browser.take_cookies(&response);
        }
        let framed = response.header("content-length").is_some()
            || response.head.has_token("transfer-encoding", "chunked")
            || matches!(response.status, 204 | 304);
        if !self.fresh && framed && !response.head.has_token("connection", "close") {
            lock(&self.browser.idle).push(wire);
        }
        Ok(response)
    }
}

/// Whether a `Set-Cookie` line takes the cookie away by a date that is past.
fn has_expired(line: &str) -> bool {
    let expires = cookie::Cookie::parse(line).ok().and_then(|cookie| cookie.expires_datetime());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
    expires.is_some_and(|at| u64::try_from(at.unix_timestamp()).unwrap_or_default() <= now)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

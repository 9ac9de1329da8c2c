//! Clients of all kinds, a request after the other, while a test does something that none of them may notice.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::app::answers::saying;
use super::browser::Browser;
use super::net::Address;
use super::{PATIENCE, eventually};

/// Between two requests of a client.
const PACE: Duration = Duration::from_millis(3);

/// What became of the requests so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    stop: AtomicBool,
    requests: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// A client's next request; the text says what was wrong.
type Next<'a> = Box<dyn FnMut() -> Result<(), String> + Send + 'a>;

/// Does something under traffic, and asserts that no request failed and that each session stayed on its server.
#[track_caller]
pub(crate) fn under_traffic<T>(address: &Address, act: impl FnOnce(&Traffic) -> T) -> T {
    let traffic = Traffic::default();
    let done = thread::scope(|scope| {
        for client in clients(address) {
            let traffic = &traffic;
            scope.spawn(move || traffic.run(client));
        }
        let _stop = StopWhenDone(&traffic.stop);
        act(&traffic)
    });
    traffic.assert_none_failed();
    done
}

/// Stops the clients also when the test fails, which would wait for them otherwise.
struct StopWhenDone<'a>(&'a AtomicBool);

impl Drop for StopWhenDone<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Traffic {
    /// Waits for so many requests that began after this call.
    #[track_caller]
    pub(crate) fn await_requests(&self, more: usize) {
        let before = self.requests.load(Ordering::SeqCst);
        eventually(2 * PATIENCE, "more requests", || {
            self.assert_none_failed();
            self.requests.load(Ordering::SeqCst) >= before + more
        });
    }

    /// So many requests were served.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn run(&self, mut client: Next<'_>) {
        while !self.stop.load(Ordering::SeqCst) {
            match client() {
                Ok(()) => drop(self.requests.fetch_add(1, Ordering::SeqCst)),
                Err(why) => {
                    self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(why);
                    return;
                }
            }
            thread::sleep(PACE);
        }
    }

    #[track_caller]
    fn assert_none_failed(&self) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(failures.is_empty(), "after {} requests: {failures:#?}", self.requests());
    }
}

fn clients(address: &Address) -> Vec<Next<'_>> {
    vec![
        with_token(address, false),
        with_token(address, true),
        with_learned_id(address, "long-lived-1", false),
        with_learned_id(address, "long-lived-2", true),
        new_learned_ids(address),
        newcomers(address),
    ]
}

/// A session of the proxy's cookie, on connections that are kept, or each time on a new one.
fn with_token(address: &Address, fresh: bool) -> Next<'_> {
    let browser = Browser::new(address.clone());
    let mut home = None;
    Box::new(move || {
        let request = browser.request("GET", "/plain");
        let server = server(if fresh { request.fresh() } else { request }.try_send())?;
        expect_home(home.get_or_insert_with(|| server.clone()), &server, "by the proxy's cookie")
    })
}

/// A session of the application's cookie, which only the table knows.
fn with_learned_id<'a>(address: &Address, id: &'a str, fresh: bool) -> Next<'a> {
    let browser = Browser::new(address.clone());
    let mut home: Option<String> = None;
    Box::new(move || {
        let Some(home) = &home else {
            home = Some(begin(&browser, id)?);
            return Ok(());
        };
        let request = browser.request("GET", "/plain").without_cookies().header("Cookie", &format!("SID={id}"));
        let server = server(if fresh { request.fresh() } else { request }.try_send())?;
        expect_home(home, &server, id)
    })
}

/// Sessions that begin one after the other and find their server with the next request, on another connection.
fn new_learned_ids(address: &Address) -> Next<'_> {
    let mut number = 0;
    Box::new(move || {
        let (browser, id) = (Browser::new(address.clone()), format!("short-lived-{number}"));
        number += 1;
        let home = begin(&browser, &id)?;
        let again = browser.request("GET", "/plain").without_cookies().header("Cookie", &format!("SID={id}"));
        expect_home(&home, &server(again.fresh().try_send())?, &id)
    })
}

/// Clients that come once.
fn newcomers(address: &Address) -> Next<'_> {
    Box::new(move || server(Browser::new(address.clone()).request("GET", "/plain").fresh().try_send()).map(drop))
}

/// A session begins; returned is its server.
fn begin(browser: &Browser, id: &str) -> Result<String, String> {
    let began = Instant::now();
    let target = saying(200, &[&format!("Set-Cookie: SID={id}; Path=/")]);
    let response = browser.request("GET", &target).without_cookies().try_send();
    let response = response.map_err(|error| format!("{id} cannot begin, after {:?}: {error}", began.elapsed()))?;
    if response.status != 200 {
        return Err(format!("{id} cannot begin: {:?} {}", response.head, response.text()));
    }
    Ok(response.server())
}

fn server(sent: io::Result<super::client::Response>) -> Result<String, String> {
    let response = sent.map_err(|error| format!("no response: {error}"))?;
    if response.status == 200 { Ok(response.text()) } else { Err(format!("{:?} {}", response.head, response.text())) }
}

fn expect_home(home: &str, server: &str, what: &str) -> Result<(), String> {
    if home == server { Ok(()) } else { Err(format!("{what}: {server} instead of {home}")) }
}

//! The sample application: a shop that keeps carts in the memory of the server that serves it, as many real ones do.
//!
//! | request | reply |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /whoami` | the server's name |
//! | `GET /cart` | the cart, as JSON |
//! | `POST /cart`, `item=tea` as form or query | one more of it in the cart |
//! | `DELETE /cart?item=tea` | one less of it |
//! | `GET /healthz` | `ok` |
//! | `GET /demo/state` | what the page shows, as JSON |
//! | `POST /demo/servers/NAME/stop`, `…/start` | stops or starts a sample server |

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::carts::{Cart, Carts};
use super::fleet::{Fleet, SampleServer};
use super::message::{Reply, Request};

/// What the shop sells. Nothing else enters a cart, so no client's text is ever shown to another.
pub(super) const GOODS: [&str; 6] = ["tea", "bread", "honey", "apples", "cheese", "soap"];
/// The application's own cookie, which names a cart. Homing's cookie is another and never arrives here.
pub(super) const CART_COOKIE: &str = "CARTID";
/// After this time the last server stopped from the page starts again: the page has no server left to send a start to.
pub(super) const RESTART_LAST_SERVER_AFTER: Duration = Duration::from_secs(10);
/// Most of one good in a cart.
const MAX_COUNT: u32 = 99;
const PAGE: &str = include_str!("page.html");

/// What a request leads to.
pub(super) enum Outcome {
    Reply(Reply),
    /// Start or stop a server, then reply.
    Command(Command, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Start,
    Stop,
}

/// The shop on one running server.
#[derive(Clone)]
pub(super) struct Shop {
    pub(super) fleet: Arc<Fleet>,
    /// Of the server in the fleet.
    pub(super) index: usize,
    pub(super) carts: Arc<Carts>,
}

impl Shop {
    pub(super) fn server(&self) -> Option<&SampleServer> {
        self.fleet.servers.get(self.index)
    }

    pub(super) fn respond(&self, request: &Request<'_>) -> Outcome {
        let Some(server) = self.server() else {
            return Outcome::Reply(Reply::text(500, "no such server\n"));
        };
        let (path, method) = (request.head.uri.path(), &request.head.method);
        let is_read = [Method::GET, Method::HEAD].contains(method);
        let is_change = [Method::POST, Method::DELETE].contains(method);
        if matches!(path, "/" | "/index.html" | "/whoami" | "/cart") && (is_read || path == "/cart" && is_change) {
            server.count_request();
        }
        // Handed over with the first request after a move, whichever that is.
        let _ = self.known_cart(request);
        Outcome::Reply(match path {
            "/healthz" if is_read => Reply::text(200, "ok\n"),
            "/demo/state" if is_read => json_reply(&self.page_state(server, request)),
            "/" | "/index.html" if is_read => self.page(request),
            "/whoami" if is_read => Reply::text(200, format!("{}\n", server.name)),
            "/cart" if is_read => json_reply(&self.cart_state(server, request)),
            "/cart" if is_change => self.change_cart(server, request),
            "/" | "/index.html" | "/whoami" | "/cart" | "/healthz" | "/demo/state" => method_not_allowed(),
            _ => match path.strip_prefix("/demo/servers/").and_then(|rest| rest.split_once('/')) {
                Some((name, command)) if *method == Method::POST => match self.command(name, command, request) {
                    Ok((command, index)) => return Outcome::Command(command, index),
                    Err(refusal) => refusal,
                },
                Some(_) => method_not_allowed(),
                None => Reply::text(404, "not found; try /, /whoami or /cart\n"),
            },
        })
    }

    /// The page. The proxy announces a move with the first request after it, which may be the one for the page itself.
    fn page(&self, request: &Request<'_>) -> Reply {
        let moved = self.announced_move(request).to_string().replace('<', "\\u003c");
        let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
        Reply::new(200, "text/html; charset=utf-8", PAGE.replace("/*MOVED*/null", &moved))
            .with("Content-Security-Policy", policy)
            .with("X-Content-Type-Options", "nosniff")
    }

    /// What the page polls.
    fn page_state(&self, server: &SampleServer, request: &Request<'_>) -> Value {
        let servers = self.fleet.servers.iter().map(|one| {
            json!({
                "name": one.name,
                "colour": one.colour,
                "address": one.address.to_string(),
                "up": one.is_up(),
                "requests": one.request_count(),
                "carts": one.cart_count(),
            })
        });
        let servers: Vec<Value> = servers.collect();
        let mut state = self.cart_state(server, request);
        if let Some(fields) = state.as_object_mut() {
            fields.insert("servers".to_owned(), servers.into());
            fields.insert("goods".to_owned(), json!(GOODS));
            fields.insert("restart_last_server_after".to_owned(), RESTART_LAST_SERVER_AFTER.as_secs().into());
        }
        state
    }

    fn cart_state(&self, server: &SampleServer, request: &Request<'_>) -> Value {
        let cart = self.known_cart(request).map(|(_, cart)| cart);
        json!({
            "server": server.name,
            // The cookie names a cart that this server never had: it was in another server's memory.
            "cart_lost": request.cookie(CART_COOKIE).is_some() && cart.is_none(),
            "cart": cart.unwrap_or_default(),
            "moved": self.announced_move(request),
        })
    }

    /// `Homing-Session-Moved: from=birch; reason=down; epoch=2`. Any client could send it to a sample server directly, so
    /// only known servers and plain words are shown.
    fn announced_move(&self, request: &Request<'_>) -> Value {
        let Some(line) = request.header("homing-session-moved") else {
            return Value::Null;
        };
        let field = |name: &str| {
            line.split(';')
                .filter_map(|part| part.trim().split_once('='))
                .find_map(|(key, value)| (key == name).then_some(value))
        };
        let is_plain = |word: &&str| word.len() <= 32 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let from = field("from").and_then(|name| self.fleet.find(name)).map(|(_, server)| server.name);
        match (from, field("reason").filter(is_plain)) {
            (Some(from), Some(reason)) => {
                json!({ "from": from, "reason": reason, "epoch": field("epoch").and_then(|n| n.parse::<u32>().ok()) })
            }
            _ => Value::Null,
        }
    }

    /// The cart that the request's cookie names: in this server's memory, or handed over from the session's server before.
    fn known_cart(&self, request: &Request<'_>) -> Option<(String, Cart)> {
        let id = request.cookie(CART_COOKIE)?;
        if let Some(cart) = self.carts.find(id) {
            return Some((id.to_owned(), cart));
        }
        let handed_over = request.header("homing-session-data")?;
        let is_ours = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let cart = is_ours.then(|| from_text(handed_over))?;
        self.carts.keep(id, cart.clone());
        Some((id.to_owned(), cart))
    }

    fn change_cart(&self, server: &SampleServer, request: &Request<'_>) -> Reply {
        let good = request.parameter("item").and_then(|word| GOODS.into_iter().find(|good| *good == word));
        let Some(good) = good else {
            return Reply::text(400, format!("name an item: item=ONE OF {}\n", GOODS.join(", ")));
        };
        // An unknown id is not adopted: the server makes a new one, as a careful application does.
        let known = self.known_cart(request);
        let is_new = known.is_none();
        let (id, mut cart) = known.unwrap_or_else(|| (Uuid::new_v4().simple().to_string(), Cart::new()));
        let count = cart.get(good).copied().unwrap_or(0);
        let adds = request.head.method == Method::POST;
        match if adds { count.saturating_add(1).min(MAX_COUNT) } else { count.saturating_sub(1) } {
            0 => cart.remove(good),
            count => cart.insert(good, count),
        };
        self.carts.keep(&id, cart.clone());
        let reply = json_reply(&json!({
            "server": server.name,
            "cart_lost": false,
            "cart": cart,
            "moved": self.announced_move(request),
        }));
        // Kept by the proxy, for the next server of the session.
        let reply = reply.with("Homing-Session-Data", as_text(&cart));
        if is_new {
            reply.with("Set-Cookie", format!("{CART_COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax"))
        } else {
            reply
        }
    }

    /// A command to a server by name, or why it is refused.
    fn command(&self, name: &str, command: &str, request: &Request<'_>) -> Result<(Command, usize), Reply> {
        if request.header("sec-fetch-site") == Some("cross-site") {
            return Err(Reply::text(403, "commands from another site are refused\n"));
        }
        let (index, _) = self.fleet.find(name).ok_or_else(|| Reply::text(404, "no such server\n"))?;
        match command {
            "start" => Ok((Command::Start, index)),
            "stop" => Ok((Command::Stop, index)),
            _ => Err(Reply::text(404, "the commands are stop and start\n")),
        }
    }
}

/// `honey=1&tea=2`.
fn as_text(cart: &Cart) -> String {
    cart.iter().map(|(good, count)| format!("{good}={count}")).collect::<Vec<_>>().join("&")
}

/// The goods that the shop has; what else is written is left out.
fn from_text(text: &str) -> Cart {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    let known = pairs.filter_map(|(word, count)| {
        let good = GOODS.into_iter().find(|good| *good == word)?;
        Some((good, count.parse::<u32>().ok()?.clamp(1, MAX_COUNT)))
    });
    known.collect()
}

fn json_reply(value: &Value) -> Reply {
    Reply::new(200, "application/json", format!("{value}\n"))
}

fn method_not_allowed() -> Reply {
    Reply::text(405, "method not allowed\n")
}

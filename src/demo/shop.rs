//! The sample application: a shop that keeps carts in the memory of the server that serves it, as many real ones do.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /whoami` | the server's name |
//! | `GET /cart` | the cart, as JSON |
//! | `POST /cart`, `item=tea` as form or query | one more of it in the cart |
//! | `DELETE /cart?item=tea` | one less of it |
//! | `GET /healthz` | `ok` |
//! | `GET /demo/state` | what the page shows, as JSON |
//! | `POST /demo/servers/NAME/stop`, `…/start` | stops or starts a sample server |

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::fleet::{LAST_ONE_RETURNS_AFTER, Place, SampleServer};
use super::wire::{Reply, Request};

/// What the shop sells. Nothing else enters a cart, so nothing a client sends is ever shown to another.
pub(super) const GOODS: [&str; 6] = ["tea", "bread", "honey", "apples", "cheese", "soap"];
/// The application's own cookie, which names a cart. Homing's cookie is another and is not seen here.
pub(super) const CART_COOKIE: &str = "CARTID";
/// Carts that one server keeps; the oldest makes room for a new one.
const MAX_CARTS: usize = 10_000;
/// Most of one good in a cart.
const MAX_COUNT: u32 = 99;
const PAGE: &str = include_str!("page.html");

type Cart = BTreeMap<&'static str, u32>;

/// What one server remembers, until it stops.
#[derive(Default)]
pub(super) struct Memory {
    /// Touched by every request of the shop, for a moment, never across an await.
    carts: Mutex<Carts>,
}

#[derive(Default)]
struct Carts {
    by_id: HashMap<String, Cart>,
    oldest_first: VecDeque<String>,
}

impl Memory {
    pub(super) fn len(&self) -> usize {
        self.carts.lock().by_id.len()
    }

    fn find(&self, id: &str) -> Option<Cart> {
        self.carts.lock().by_id.get(id).cloned()
    }

    fn keep(&self, id: &str, cart: Cart) {
        let mut carts = self.carts.lock();
        if carts.by_id.insert(id.to_owned(), cart).is_some() {
            return;
        }
        carts.oldest_first.push_back(id.to_owned());
        if carts.oldest_first.len() > MAX_CARTS
            && let Some(oldest) = carts.oldest_first.pop_front()
        {
            carts.by_id.remove(&oldest);
        }
    }
}

/// Answers one request.
pub(super) async fn answer(place: &Place, request: &Request) -> Reply {
    let Some(server) = place.server() else {
        return Reply::text(500, "no such server\n");
    };
    let reading = matches!(request.head.method.as_str(), "GET" | "HEAD");
    let mut reply = match (request.head.path.as_str(), request.head.method.as_str()) {
        ("/healthz", _) if reading => Reply::text(200, "ok\n"),
        ("/demo/state", _) if reading => json_reply(&state(place, server, request)),
        ("/" | "/index.html", _) if reading => counted(place, page(place, request)),
        ("/whoami", _) if reading => counted(place, Reply::text(200, format!("{}\n", server.name))),
        ("/cart", _) if reading => counted(place, json_reply(&cart_state(place, server, request))),
        ("/cart", "POST" | "DELETE") => counted(place, change_cart(place, server, request)),
        ("/" | "/index.html" | "/whoami" | "/cart" | "/healthz" | "/demo/state", _) => {
            Reply::text(405, "this is not done here\n")
        }
        (path, method) => match path.strip_prefix("/demo/servers/").and_then(|rest| rest.split_once('/')) {
            Some((name, order)) if method == "POST" => obey(place, name, order, request).await,
            Some(_) => Reply::text(405, "orders are given by POST\n"),
            None => Reply::text(404, "nothing here; try /, /whoami or /cart\n"),
        },
    };
    reply.headers.push(("Served-By", server.name.to_owned()));
    reply.headers.push(("Cache-Control", "no-store".to_owned()));
    reply
}

fn counted(place: &Place, reply: Reply) -> Reply {
    place.count();
    reply
}

/// The page. The proxy announces a move with the first request after it, which may be the one for the page itself.
fn page(place: &Place, request: &Request) -> Reply {
    let moved = moved(place, request).to_string().replace('<', "\\u003c");
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                  img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    Reply {
        status: 200,
        content_type: "text/html; charset=utf-8",
        headers: vec![("Content-Security-Policy", policy.to_owned()), ("X-Content-Type-Options", "nosniff".to_owned())],
        body: PAGE.replace("/*MOVED*/null", &moved),
        ..Reply::default()
    }
}

fn json_reply(value: &Value) -> Reply {
    Reply { status: 200, content_type: "application/json", body: format!("{value}\n"), ..Reply::default() }
}

/// What the page polls.
fn state(place: &Place, server: &SampleServer, request: &Request) -> Value {
    let servers: Vec<Value> = place
        .fleet
        .servers
        .iter()
        .map(|one| {
            json!({
                "name": one.name,
                "colour": one.colour,
                "address": one.address.to_string(),
                "up": one.is_up(),
                "requests": one.requests.load(Ordering::Relaxed),
                "carts": one.carts(),
            })
        })
        .collect();
    let mut state = cart_state(place, server, request);
    if let Some(fields) = state.as_object_mut() {
        fields.insert("servers".to_owned(), servers.into());
        fields.insert("goods".to_owned(), json!(GOODS));
        fields.insert("last_one_returns_after".to_owned(), LAST_ONE_RETURNS_AFTER.as_secs().into());
    }
    state
}

fn cart_state(place: &Place, server: &SampleServer, request: &Request) -> Value {
    let named = request.cookie(CART_COOKIE);
    let cart = named.and_then(|id| place.memory.find(id));
    json!({
        "server": server.name,
        // The client comes with a cart that this server never had: it was in another server's memory.
        "cart_lost": named.is_some() && cart.is_none(),
        "cart": cart.unwrap_or_default(),
        "moved": moved(place, request),
    })
}

/// `Homing-Session-Moved: from=birch; reason=down; epoch=2`, as far as it makes sense; anybody could send it to a
/// sample server directly.
fn moved(place: &Place, request: &Request) -> Value {
    let Some(line) = request.header("homing-session-moved") else {
        return Value::Null;
    };
    let field = |name: &str| {
        line.split(';')
            .filter_map(|part| part.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    };
    let from = field("from").and_then(|name| place.fleet.find(name)).map(|(_, server)| server.name);
    let reason =
        field("reason").filter(|word| word.len() <= 32 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
    match (from, reason) {
        (Some(from), Some(reason)) => {
            json!({ "from": from, "reason": reason, "epoch": field("epoch").and_then(|n| n.parse::<u32>().ok()) })
        }
        _ => Value::Null,
    }
}

fn change_cart(place: &Place, server: &SampleServer, request: &Request) -> Reply {
    let good = request.parameter("item").and_then(|word| GOODS.into_iter().find(|good| *good == word));
    let Some(good) = good else {
        return Reply::text(400, format!("say what: item=ONE OF {}\n", GOODS.join(", ")));
    };
    // An id that this server does not know is not adopted: it makes a new one, as a careful application does.
    let known = request.cookie(CART_COOKIE).and_then(|id| place.memory.find(id).map(|cart| (id.to_owned(), cart)));
    let fresh = known.is_none();
    let (id, mut cart) = known.unwrap_or_else(|| (Uuid::new_v4().simple().to_string(), Cart::new()));
    let count = cart.get(good).copied().unwrap_or(0);
    match if request.head.method == "POST" { count.saturating_add(1).min(MAX_COUNT) } else { count.saturating_sub(1) } {
        0 => cart.remove(good),
        count => cart.insert(good, count),
    };
    place.memory.keep(&id, cart.clone());
    let mut reply = json_reply(&json!({
        "server": server.name,
        "cart_lost": false,
        "cart": cart,
        "moved": moved(place, request),
    }));
    if fresh {
        reply.headers.push(("Set-Cookie", format!("{CART_COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax")));
    }
    reply
}

async fn obey(place: &Place, name: &str, order: &str, request: &Request) -> Reply {
    if request.header("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Reply::text(403, "another site does not give orders here\n");
    }
    let Some((index, server)) = place.fleet.find(name) else {
        return Reply::text(404, "no such server\n");
    };
    match order {
        "start" => match place.fleet.start(index) {
            Ok(()) => Reply::text(200, format!("{name} runs on {}\n", server.address)),
            Err(error) => Reply::text(500, format!("{name} cannot start on {}: {error}\n", server.address)),
        },
        // The server that is to stop says so before it does.
        "stop" if index == place.index => Reply { then_stop: true, ..Reply::text(200, format!("{name} stops\n")) },
        "stop" => {
            place.fleet.stop(index).await;
            Reply::text(200, format!("{name} is stopped\n"))
        }
        _ => Reply::text(404, "an order is stop or start\n"),
    }
}

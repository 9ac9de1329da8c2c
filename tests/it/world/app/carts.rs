//! A small shop under `/kept-cart` that keeps log-ins and carts only in this server's memory. It sends both as session data
//! with every change, and restores session data from other servers.

use std::io;
use std::sync::atomic::Ordering;

use super::super::http1::Reader;
use super::answers::{Asked, Next, plain};
use super::{Shared, lock};

/// The header of `persistence.handoff`, both ways.
const DATA: &str = "Homing-Session-Data";

/// The cart of a logged-in user.
#[derive(Debug, Clone)]
pub(super) struct Cart {
    name: String,
    items: Vec<String>,
}

impl Cart {
    /// With the id of the session it belongs to, so that it is never taken up for another.
    fn write(&self, id: &str) -> String {
        format!("{id}|{}|{}", self.name, self.items.join(","))
    }

    fn read(text: &str, id: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let (theirs, name, items) = (parts.next()?, parts.next()?, parts.next()?);
        let items = items.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
        (theirs == id).then(|| Self { name: name.to_owned(), items })
    }
}

impl Shared {
    /// `/kept-cart/login?name=`, `/kept-cart/add?item=`, `/kept-cart/logout`, and `/kept-cart` to look.
    pub(super) fn cart(&self, reader: &mut Reader, asked: &Asked<'_>, path: &str) -> io::Result<Next> {
        let id = asked.cookie("CART");
        if path == "/kept-cart/login" {
            let name = asked.parameter("name").unwrap_or_default().to_owned();
            return self.log_in(reader, name);
        }
        let Some((id, mut cart)) = id.and_then(|id| Some((id.clone(), self.cart_of(&id, asked)?))) else {
            return plain(reader, 401, "text/plain", "not logged in", &[]);
        };
        if path == "/kept-cart/logout" {
            lock(&self.carts).remove(&id);
            return plain(reader, 200, "text/plain", "bye", &[&format!("{DATA}:"), "Set-Cookie: CART=; Max-Age=0"]);
        }
        let mut lines = Vec::new();
        if let Some(item) = asked.parameter("item").filter(|_| path == "/kept-cart/add") {
            cart.items.push(item.to_owned());
            lines.push(format!("{DATA}: {}", cart.write(&id)));
        }
        let text = format!("{} has {} on {}", cart.name, cart.items.join(","), self.name);
        lock(&self.carts).insert(id, cart);
        plain(reader, 200, "text/plain", &text, &lines.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn log_in(&self, reader: &mut Reader, name: String) -> io::Result<Next> {
        let id = format!("{}-{}-{}", self.name, self.life.load(Ordering::SeqCst), lock(&self.carts).len());
        let cart = Cart { name, items: Vec::new() };
        let data = format!("{DATA}: {}", cart.write(&id));
        lock(&self.carts).insert(id.clone(), cart);
        plain(reader, 200, "text/plain", "welcome", &[&format!("Set-Cookie: CART={id}; Path=/"), &data])
    }

    /// From memory, else from what was handed over for this very session.
    fn cart_of(&self, id: &str, asked: &Asked<'_>) -> Option<Cart> {
        let known = lock(&self.carts).get(id).cloned();
        known.or_else(|| Cart::read(asked.header(DATA)?, id))
    }
}

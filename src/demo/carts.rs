//! The carts in one sample server's memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use parking_lot::Mutex;

/// Carts that one server keeps; the oldest makes room for a new one.
const MAX_CARTS: usize = 10_000;

/// How many of which good.
pub(super) type Cart = BTreeMap<&'static str, u32>;

/// All carts of one server, by the id in the application's cookie.
#[derive(Default)]
pub(super) struct Carts {
    /// Locked by every request of the shop, for a moment, never across an await.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<String, Cart>,
    oldest_first: VecDeque<String>,
}

impl Carts {
    pub(super) fn len(&self) -> usize {
        self.inner.lock().by_id.len()
    }

    pub(super) fn find(&self, id: &str) -> Option<Cart> {
        self.inner.lock().by_id.get(id).cloned()
    }

    pub(super) fn keep(&self, id: &str, cart: Cart) {
        let mut carts = self.inner.lock();
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

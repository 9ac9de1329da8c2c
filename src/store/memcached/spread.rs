//! Which server keeps a name: rendezvous hashing (Thaler and Ravishankar 1998). Each server draws a number from its own
//! text in the configuration and the name, and the highest keeps it.
//!
//! So the order in the file means nothing, every proxy agrees, and a server that is added or taken away moves only the
//! names that it gains or loses. It is *all* configured servers that draw, lost ones too: were the names of a lost server
//! kept by another meanwhile, its return would bring old values back.

use ring::digest::{Context, SHA256};

use crate::store::engine::Name;

/// The servers' draws, prepared.
pub(super) struct Spread {
    /// For each server the hash that has read the server's text already.
    servers: Box<[Context]>,
}

impl Spread {
    /// By the servers' texts.
    pub(super) fn new<'a>(servers: impl IntoIterator<Item = &'a str>) -> Self {
        let prepared = servers.into_iter().map(|server| {
            let mut context = Context::new(&SHA256);
            context.update(server.as_bytes());
            // In no text of a server and in no name.
            context.update(b"\n");
            context
        });
        Self { servers: prepared.collect() }
    }

    /// The index of the server that keeps it. The data of a session is kept where its binding is: both are asked for
    /// together, and a lost server takes whole sessions with it, not halves of more.
    pub(super) fn server_of(&self, name: &Name) -> usize {
        if self.servers.len() < 2 {
            return 0;
        }
        let draws = self.servers.iter().enumerate().map(|(index, server)| (draw(server, name.session()), index));
        draws.max().map_or(0, |(_, index)| index)
    }

    /// The positions of the names that each server keeps, for those that keep any.
    pub(super) fn shares<'a>(&self, names: impl IntoIterator<Item = &'a Name>) -> Vec<(usize, Vec<usize>)> {
        let mut shares: Vec<(usize, Vec<usize>)> = Vec::new();
        for (position, name) in names.into_iter().enumerate() {
            let server = self.server_of(name);
            match shares.iter_mut().find(|(index, _)| *index == server) {
                Some((_, positions)) => positions.push(position),
                None => shares.push((server, vec![position])),
            }
        }
        shares
    }
}

fn draw(server: &Context, name: &str) -> u64 {
    let mut context = server.clone();
    context.update(name.as_bytes());
    context.finish().as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::key::SessionKey;
    use crate::store::engine::Kind;

    fn name(key: u128) -> Name {
        Name::new("shop", SessionKey(key), Kind::Binding)
    }

    fn spread(servers: &[String]) -> Spread {
        Spread::new(servers.iter().map(String::as_str))
    }

    #[test]
    fn every_version_puts_a_name_on_the_same_server() {
        let spread = Spread::new(["10.0.0.1:11211", "10.0.0.2:11211", "/run/memcached.sock"]);
        let servers: Vec<usize> = (0..12).map(|key| spread.server_of(&name(key))).collect();
        assert_eq!(servers, [2, 0, 2, 0, 0, 2, 2, 0, 1, 0, 2, 0]);
    }

    #[test]
    fn servers_keep_equal_parts() {
        let servers: Vec<String> = (0..3).map(|n| format!("cache-{n}:11211")).collect();
        let spread = spread(&servers);
        let mut counts = [0_i32; 3];
        (0..30_000).for_each(|key| counts[spread.server_of(&name(key))] += 1);
        // Five standard deviations of a binomial share.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 410), "{counts:?}");
    }

    proptest! {
        #[test]
        fn the_order_in_the_file_means_nothing(
            servers in prop::collection::hash_set("[a-z]{1,12}:[0-9]{1,5}", 1..6), key: u128,
        ) {
            let servers: Vec<String> = servers.into_iter().collect();
            let turned: Vec<String> = servers.iter().rev().cloned().collect();
            let (one, other) = (spread(&servers).server_of(&name(key)), spread(&turned).server_of(&name(key)));
            prop_assert_eq!(&servers[one], &turned[other]);
        }

        #[test]
        fn a_server_that_is_taken_away_moves_only_its_own_names(
            servers in prop::collection::hash_set("[a-z]{1,12}:[0-9]{1,5}", 2..6),
            gone: prop::sample::Index,
            key: u128,
        ) {
            let servers: Vec<String> = servers.into_iter().collect();
            let gone = servers[gone.index(servers.len())].clone();
            let fewer: Vec<String> = servers.iter().filter(|server| **server != gone).cloned().collect();
            let before = &servers[spread(&servers).server_of(&name(key))];
            prop_assert!(*before == gone || *before == fewer[spread(&fewer).server_of(&name(key))]);
        }

        #[test]
        fn the_data_of_a_session_is_where_its_binding_is(key: u128) {
            let spread = Spread::new(["a:1", "b:1", "c:1", "d:1", "e:1"]);
            let data = Name::new("shop", SessionKey(key), Kind::Data);
            prop_assert_eq!(spread.server_of(&name(key)), spread.server_of(&data));
        }

        #[test]
        fn every_name_is_in_one_share(keys: Vec<u128>) {
            let spread = Spread::new(["a:1", "b:1", "c:1"]);
            let names: Vec<Name> = keys.into_iter().map(name).collect();
            let shares = spread.shares(&names);
            for (server, positions) in &shares {
                prop_assert!(positions.iter().all(|position| spread.server_of(&names[*position]) == *server));
            }
            let mut all: Vec<usize> = shares.into_iter().flat_map(|(_, positions)| positions).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..names.len()).collect::<Vec<_>>());
        }
    }
}

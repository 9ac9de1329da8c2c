//! Rendezvous hashing (Thaler and Ravishankar 1998): the server for a name is the one with the highest hash of its
//! configured address and the name.
//!
//! The order in the file does not matter, every proxy agrees, and adding or removing a server moves only the names that it
//! gains or loses. *All* configured servers take part, lost ones too: if another server took over the names of a lost one,
//! its return would bring back old values.

use ring::digest::{Context, SHA256};

use crate::store::engine::Name;

/// The servers' hashes, prepared.
pub(super) struct Rendezvous {
    /// For each server, a hash of its address to continue with a name.
    servers: Box<[Context]>,
}

impl Rendezvous {
    /// By the servers' addresses.
    pub(super) fn new<'a>(servers: impl IntoIterator<Item = &'a str>) -> Self {
        let prepared = servers.into_iter().map(|server| {
            let mut context = Context::new(&SHA256);
            context.update(server.as_bytes());
            // Occurs in no address and in no name.
            context.update(b"\n");
            context
        });
        Self { servers: prepared.collect() }
    }

    /// The index of the server for a name. A session's data is on the server of its binding: both are read together, and a
    /// lost server loses whole sessions, not halves of more.
    pub(super) fn server_of(&self, name: &Name) -> usize {
        if self.servers.len() < 2 {
            return 0;
        }
        let weights = self.servers.iter().enumerate().map(|(index, server)| (weight(server, name.session()), index));
        weights.max().map_or(0, |(_, index)| index)
    }

    /// Positions of the names by server, without servers that have none.
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

fn weight(server: &Context, name: &str) -> u64 {
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

    fn rendezvous(servers: &[String]) -> Rendezvous {
        Rendezvous::new(servers.iter().map(String::as_str))
    }

    #[test]
    fn every_version_puts_a_name_on_the_same_server() {
        let rendezvous = Rendezvous::new(["10.0.0.1:11211", "10.0.0.2:11211", "/run/memcached.sock"]);
        let servers: Vec<usize> = (0..12).map(|key| rendezvous.server_of(&name(key))).collect();
        assert_eq!(servers, [2, 0, 2, 0, 0, 2, 2, 0, 1, 0, 2, 0]);
    }

    #[test]
    fn servers_keep_equal_parts() {
        let servers: Vec<String> = (0..3).map(|n| format!("cache-{n}:11211")).collect();
        let rendezvous = rendezvous(&servers);
        let mut counts = [0_i32; 3];
        (0..30_000).for_each(|key| counts[rendezvous.server_of(&name(key))] += 1);
        // Five standard deviations of a binomial share.
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 410), "{counts:?}");
    }

    proptest! {
        #[test]
        fn the_order_in_the_file_does_not_matter(
            servers in prop::collection::hash_set("[a-z]{1,12}:[0-9]{1,5}", 1..6), key: u128,
        ) {
            let servers: Vec<String> = servers.into_iter().collect();
            let turned: Vec<String> = servers.iter().rev().cloned().collect();
            let (one, other) = (rendezvous(&servers).server_of(&name(key)), rendezvous(&turned).server_of(&name(key)));
            prop_assert_eq!(&servers[one], &turned[other]);
        }

        #[test]
        fn a_removed_server_moves_only_its_own_names(
            servers in prop::collection::hash_set("[a-z]{1,12}:[0-9]{1,5}", 2..6),
            gone: prop::sample::Index,
            key: u128,
        ) {
            let servers: Vec<String> = servers.into_iter().collect();
            let gone = servers[gone.index(servers.len())].clone();
            let fewer: Vec<String> = servers.iter().filter(|server| **server != gone).cloned().collect();
            let before = &servers[rendezvous(&servers).server_of(&name(key))];
            prop_assert!(*before == gone || *before == fewer[rendezvous(&fewer).server_of(&name(key))]);
        }

        #[test]
        fn the_data_of_a_session_is_where_its_binding_is(key: u128) {
            let rendezvous = Rendezvous::new(["a:1", "b:1", "c:1", "d:1", "e:1"]);
            let data = Name::new("shop", SessionKey(key), Kind::Data);
            prop_assert_eq!(rendezvous.server_of(&name(key)), rendezvous.server_of(&data));
        }

        #[test]
        fn every_name_is_in_one_share(keys: Vec<u128>) {
            let rendezvous = Rendezvous::new(["a:1", "b:1", "c:1"]);
            let names: Vec<Name> = keys.into_iter().map(name).collect();
            let shares = rendezvous.shares(&names);
            for (server, positions) in &shares {
                prop_assert!(positions.iter().all(|position| rendezvous.server_of(&names[*position]) == *server));
            }
            let mut all: Vec<usize> = shares.into_iter().flat_map(|(_, positions)| positions).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..names.len()).collect::<Vec<_>>());
        }
    }
}

//! Real stores as processes: Redis and Valkey alone, as a cluster and under sentinels, memcached, members of Hazelcast
//! and nodes of Ignite; dnsmasq, a name server; and Pebble, a certificate authority. `scripts/test-stores` brings their programs. They keep nothing on disk, listen on free ports of
//! 127.0.0.1, can be killed, frozen and started again empty, and are gone when the test is.
//!
//! Each says by `entry()` what a configuration's `store` is to contain: `Conf::servers("a b").store(&redis.entry())`.

mod any;
mod cluster;
pub(crate) mod hazelcast;
mod ignite;
mod java;
mod memcached;
mod name_server;
mod pebble;
mod process;
mod redis;
mod resp;
mod sentinels;

pub(crate) use any::{Engine, Store};
pub(crate) use cluster::Cluster;
pub(crate) use hazelcast::HazelcastMember;
pub(crate) use ignite::{Extras, IgniteNode};
pub(crate) use java::JavaStore;
pub(crate) use memcached::MemcachedServer;
pub(crate) use name_server::NameServer;
pub(crate) use pebble::Pebble;
pub(crate) use redis::{Kind, RedisServer};
pub(crate) use resp::{Conversation, Reply};
pub(crate) use sentinels::Sentinels;

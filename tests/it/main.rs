//! Black-box tests: the real program as a process, real sockets, application servers and browsers of our own.
//!
//! Each file is a theme; each test proves one sentence of what the proxy promises.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::float_cmp,
    reason = "test code: a broken expectation is a panic, a test may wait, and counters are whole numbers"
)]

mod acme;
mod acme_failures;
mod acme_shared;
mod addresses;
mod admin_api;
mod admin_hostile;
mod alerts;
mod apps_grpc;
mod apps_links;
mod apps_links_rewritten;
mod apps_mcp;
mod apps_mcp_learned;
mod apps_socketio;
mod apps_socketio_learned;
mod apps_wsgi;
mod apps_wsgi_learned;
mod balancing;
mod bind_to;
mod circuit_breaker;
mod cli;
mod cli_admin;
mod client_certificates;
mod conf_files;
mod connection_authentication;
mod cookie_modes;
mod cookie_scope;
mod cookies;
mod demo;
mod dashboard;
mod descriptors;
mod early_responses;
mod discovery;
mod drains;
mod ended_streams;
mod engine_contract;
mod engines;
mod engines_hazelcast;
mod engines_ignite;
mod error_responses;
mod explain;
mod failover;
mod fast_path;
mod fast_path_exchanges;
mod fast_path_reasons;
mod fast_path_sessions;
mod fast_path_tls;
mod fast_path_ways;
mod forwarding;
mod h2_floods;
mod h2_servers;
mod h2spec;
mod handoff;
mod handoff_sessions;
mod handoff_snapshot;
mod harness;
mod harness_stores;
mod header_names;
mod health;
mod hostile;
mod hostile_corpus;
mod idle_connections;
mod learned;
mod learned_failover;
mod limits;
mod links;
mod listener_limits;
mod listener_rates;
mod new_session_hint;
mod observability;
mod open_streams;
mod operations;
mod operator_questions;
mod outage;
mod outage_store_decisions;
mod outage_store_fleet;
mod outage_store_memcached;
mod outage_store_metrics;
mod outage_store_redis;
mod outage_store_refuse;
mod outage_store_restarts;
mod outage_store_slow;
mod overrides;
mod pipelining;
mod proxy_protocol;
mod rebalance;
mod reload;
mod reload_servers;
mod removed_servers;
mod request_forms;
mod response_forms;
mod retries;
mod rolling_deploy;
mod route_ids;
mod routes_match;
mod routes_redirect;
mod routes_split;
mod routing;
mod server_limits;
mod serving;
mod sessions_complete;
mod shared_ends;
mod shared_handoff;
mod shared_hazelcast;
mod shared_ignite;
mod shared_moves;
mod shared_proxies;
mod shared_topologies;
mod shared_traffic;
mod second_opinion_hazelcast;
mod secrets_in_memory;
mod slow_bodies;
mod slow_clients;
mod slow_start;
mod snapshot;
mod socket_activation;
mod source_order;
mod split_sessions;
mod stickiness;
mod systemd_units;
mod tls;
mod tls_clients;
mod tls_resumption;
mod tls_to_servers;
mod tls_to_servers_protocols;
mod tls_to_servers_reload;
mod token_cache;
mod token_header;
mod tracing;
mod upgrade;
mod upgrade_broken;
mod upgrade_load;
mod world;

//! How a request names its session, and which server the session is bound to. Plain code: no I/O, no clock, no Pingora;
//! time and randomness are arguments.
//!
//! In the order in which a request meets them:
//!
//! 1. [`source`] reads the session's name from the request: a [`source::SessionClaim`].
//! 2. [`token`] is the sealed record that a client carries, valid on every proxy with the keys.
//! 3. [`binding`] merges a token with the table's record: the session's server, or that the session has expired.
//! 4. [`cookie`], [`url_params`] and [`html_rewrite`] read and write the places that carry a token.
//!
//! Outcomes are enums ([`binding::Lookup`], [`token::TokenError`], [`binding::Reissue`]) from which metrics take their labels.
//! Nothing here counts or logs.

pub mod binding;
pub mod client_identity;
pub mod cookie;
pub mod external_id;
pub mod html_rewrite;
pub mod key;
pub mod link;
pub mod source;
pub mod token;
pub mod url_params;

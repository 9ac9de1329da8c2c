//! Who a client is, and where it belongs. Plain code: no I/O, no clock, no Pingora; time and randomness are arguments.
//!
//! A request's way through here:
//!
//! 1. [`source`] asks the request who it is; the answer is a [`source::Presented`].
//! 2. [`token`] is what our own cookie carries: a sealed record that any proxy with the keys can honour.
//! 3. [`binding`] decides what a token and the table's record say together: where the session belongs, or that it is
//!    over.
//! 4. [`cookie`] reads and writes the header fields that carry it all.
//!
//! Outcomes have names ([`binding::Lookup`], [`token::Flaw`], [`binding::Reissue`]), and a name is what a metric's
//! label is made of. Nothing here counts or logs.

pub mod binding;
pub mod cookie;
pub mod external_id;
pub mod html_rewrite;
pub mod key;
pub mod link;
pub mod source;
pub mod token;
pub mod url_params;

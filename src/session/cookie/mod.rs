//! Cookies on the wire: [`read`] parses and edits `Cookie` fields, [`write`](mod@write) builds our `Set-Cookie`, and
//! [`upstream_set_cookie`] parses those that the application sends, [`jar`] judges them as a browser stores them.
//!
//! Parsing follows what browsers and servers do rather than the grammar of RFC 6265, and neither loops nor fails on bytes
//! that follow neither: HAProxy had two endless loops here (CVE-2019-14241, CVE-2022-0711).

pub mod date;
pub mod jar;
pub mod overflow;
pub mod prefix;
pub mod read;
pub mod scope;
pub mod upstream_set_cookie;
pub mod write;

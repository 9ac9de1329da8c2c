//! Cookies on the wire: [`read`] takes them out of `Cookie` fields, [`write`](mod@write) puts ours into
//! `Set-Cookie`, and [`upstream_set_cookie`] looks at those that the application sets.
//!
//! Reading follows what browsers and servers do rather than the grammar of RFC 6265, and never loops or fails on bytes
//! that follow neither: HAProxy had two endless loops here (CVE-2019-14241, CVE-2022-0711).

mod date;
pub mod prefix;
pub mod read;
pub mod upstream_set_cookie;
pub mod write;

//! Cookies on the wire: [`read`] takes ours out of `Cookie` fields, [`write`](mod@write) puts it into `Set-Cookie`.
//!
//! Reading follows what browsers and servers do rather than the grammar of RFC 6265, and never loops or fails on bytes
//! that follow neither: HAProxy had two endless loops here (CVE-2019-14241, CVE-2022-0711).

mod date;
pub mod read;
pub mod write;

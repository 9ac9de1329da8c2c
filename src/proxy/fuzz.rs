//! The fuzz subjects of this folder.

pub use super::connection::fuzz::{body, proxy_header};
pub use super::fast_path::framing_check::framing;
pub use super::fast_path::fuzz::{request_head, response};
pub use super::request::fuzz::forwarded;

//! A request as the shop reads it, and its reply, as plain data.

use bytes::Bytes;
use http::HeaderMap;
use pingora::http::RequestHeader;

/// A whole request.
pub(super) struct Request<'a> {
    pub(super) head: &'a RequestHeader,
    pub(super) body: &'a str,
}

impl Request<'_> {
    /// The first value of this header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        values(&self.head.headers, name).next()
    }

    /// The value of the first cookie of this name, over all Cookie headers.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        values(&self.head.headers, "cookie")
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// A parameter of the query or of a form in the body. The shop's values are plain words, so nothing is decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let query = self.head.uri.query().unwrap_or_default();
        let pairs = query.split('&').chain(self.body.trim_end().split('&'));
        pairs.filter_map(|pair| pair.split_once('=')).find_map(|(key, value)| (key == name).then_some(value))
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

/// What a sample server replies.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// The server stops once this reply is sent.
    pub(super) then_stop: bool,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("Content-Type", content_type.to_owned())];
        Self { status, headers, body: body.into(), then_stop: false }
    }

    /// A line of plain text.
    pub(super) fn text(status: u16, line: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", line)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_and_parameters_are_found() {
        let mut head = RequestHeader::build("GET", b"http://shop:1/cart?item=tea", None).unwrap();
        head.append_header("Cookie", "a=1; CARTID=x").unwrap();
        head.append_header("Cookie", "b=2").unwrap();
        let request = Request { head: &head, body: "item=bread\r\n" };
        assert_eq!(request.head.uri.path(), "/cart");
        assert_eq!(request.cookie("CARTID"), Some("x"));
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("c"), None);
        assert_eq!(request.parameter("item"), Some("tea"), "the query comes first");
        assert_eq!(request.parameter("size"), None);
    }
}

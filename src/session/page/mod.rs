//! HTML pages with the token in their links, rewritten while they pass.
//!
//! [`lol_html`](https://docs.rs/lol_html) finds the tags, and everything else goes through as it came, byte for byte.
//! [`decode`] undoes a page's compression first.

mod decode;
mod elements;

#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;

use http::StatusCode;
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{AsciiCompatibleEncoding, MemorySettings, OutputSink, element};
use parking_lot::Mutex;

use super::link::Base;
use elements::Elements;

pub use decode::Decoder;

/// Most memory for what has to be kept of one page: a tag that is longer goes through as it is, and so does the rest.
const MOST_MEMORY: usize = 1024 * 1024;

/// The elements that hold links.
const ELEMENTS: &str = "a, area, form, button, input, iframe, frame, meta, base";

/// One page on its way.
pub struct PageRewriter {
    /// `None` when the rest goes through as it is.
    rewriter: Option<HtmlRewriter<'static, Output>>,
    output: Output,
}

/// Where the rewriter writes to. Never contended: it writes only while it is written to.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Output {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().extend_from_slice(chunk);
    }
}

impl Output {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.0.lock())
    }
}

/// The encoding of a page.
#[derive(Debug, Clone, Copy)]
pub struct Encoding(AsciiCompatibleEncoding);

/// The encoding of an answer that is a page to be rewritten; `None` = it is none, or not one that can be.
#[must_use]
pub fn encoding_of(status: StatusCode, content_type: Option<&str>, is_part: bool) -> Option<Encoding> {
    let whole = !status.is_informational()
        && !is_part
        && !matches!(
            status,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
    let (media_type, parameters) = content_type?.split_once(';').unwrap_or((content_type?, ""));
    let media_type = media_type.trim();
    let is_page = ["text/html", "application/xhtml+xml"].iter().any(|html| media_type.eq_ignore_ascii_case(html));
    if !whole || !is_page {
        return None;
    }
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches(['"', '\'']))
    });
    let Some(charset) = charset else { return Some(Encoding(AsciiCompatibleEncoding::utf_8())) };
    let encoding = encoding_rs::Encoding::for_label(charset.as_bytes())?;
    AsciiCompatibleEncoding::new(encoding).map(Encoding)
}

impl PageRewriter {
    /// A page whose links to this site get the token as a parameter of this name.
    #[must_use]
    pub fn new(base: Base, encoding: Encoding, name: &str, token: &str) -> Self {
        let output = Output::default();
        let mut elements = Elements::new(base, name, token);
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MOST_MEMORY)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let settings = Settings::new_send()
            .append_element_content_handler(element!(ELEMENTS, move |element: &mut _| elements.visit(element)))
            .with_encoding(encoding.0)
            .with_adjust_charset_on_meta_tag(true)
            .with_memory_settings(memory)
            .with_graceful_bail_out_on_content_handler_error(true)
            .with_strict(false);
        Self { rewriter: Some(HtmlRewriter::new(settings, output.clone())), output }
    }

    /// The next bytes of the page; returns those that can go on.
    #[must_use]
    pub fn write(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(rewriter) = &mut self.rewriter else { return bytes.to_vec() };
        if rewriter.write(bytes).is_err() {
            // It has given back what it had kept, untouched.
            self.rewriter = None;
        }
        self.output.take()
    }

    /// The page is over; returns what was kept of it.
    #[must_use]
    pub fn end(&mut self) -> Vec<u8> {
        if let Some(rewriter) = self.rewriter.take() {
            // On an error it has given back what it had kept.
            let _ = rewriter.end();
        }
        self.output.take()
    }
}

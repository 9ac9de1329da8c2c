//! Puts the token into links, forms and frames of an HTML response while it streams through.
//!
//! Memory is bounded. A page that exceeds the limit (a tag of megabytes, tens of thousands of nested elements) is rewritten
//! up to that point and then passed on unchanged; no byte is lost or repeated.
//!
//! Known limits of a single pass: links before `<base href>` are resolved against the page's own URL, and a button whose
//! `formaction` leads to another site sends the hidden field of its form there. A button's `formmethod` is not read: the
//! token is placed for its form's own method. The content of `<noscript>` is text to the parser and is not rewritten.

mod attribute;
mod decode;
mod elements;
mod nesting;
mod page_type;
mod refresh;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use lol_html::errors::{RewritingError, SelectorError};
use lol_html::send::{ElementContentHandlers, HtmlRewriter, Settings};
use lol_html::{MemorySettings, OutputSink, Selector};
use parking_lot::Mutex;

pub use decode::{Decoder, is_known};
pub use page_type::{Charset, rewritable};

use super::link::Base;
use elements::Elements;

/// Memory limit of one page in bytes: the incomplete tag, and the open elements at some 64 bytes each. Elements without an
/// end tag (`<li>`, `<p>`) stay open until their parent ends, so a long list may have thousands.
const MEMORY: usize = 4 * 1024 * 1024;
/// Bytes that the rewriter gets at once: an incomplete tag is copied only up to the end of its piece.
const PIECE: usize = 64 * 1024;

/// Why a page's links cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The built-in selector does not parse, which would be a bug; nothing of the page has been read yet.
    #[error("the elements with links cannot be selected: {0}")]
    Selector(#[from] SelectorError),
    /// The rewriter failed without saying how much it had written: the response cannot be completed.
    #[error("a page's links cannot be rewritten: {0}")]
    Broken(RewritingError),
}

/// Rewrites one page. Takes the decoded body in parts and returns the parts to send.
pub struct PageRewriter {
    /// `None` after it has bailed out.
    rewriter: Option<HtmlRewriter<'static, Sink>>,
    out: Sink,
}

impl PageRewriter {
    /// `token` becomes the value of the parameter `name`. Neither may need percent-encoding.
    pub fn new(base: Base, charset: Charset, name: &str, token: &str) -> Result<Self, PageError> {
        let mut elements = Elements::new(base, name, token);
        let selector: Selector = elements::SELECTOR.parse()?;
        let handlers = ElementContentHandlers::default()
            .element(move |element: &mut lol_html::send::Element<'_, '_>| elements.visit(element));
        let settings = Settings::new_send()
            .append_element_content_handler((Cow::Owned(selector), handlers))
            .with_encoding(charset.encoding())
            .with_adjust_charset_on_meta_tag(!charset.is_declared())
            // Ambiguous markup is rewritten too, not refused.
            .with_strict(false)
            .with_graceful_bail_out_on_content_handler_error(true)
            .with_memory_settings(
                MemorySettings::new()
                    .with_max_allowed_memory_usage(MEMORY)
                    .with_graceful_bail_out_on_memory_limit_exceeded(true),
            );
        let out = Sink::default();
        Ok(Self { rewriter: Some(HtmlRewriter::new(settings, out.clone())), out })
    }

    /// Takes the next part of the page; returns what can be sent.
    pub fn write(&mut self, part: &[u8]) -> Result<Vec<u8>, PageError> {
        for piece in part.chunks(PIECE) {
            match &mut self.rewriter {
                Some(rewriter) => {
                    let outcome = rewriter.write(piece);
                    self.bail_out_on_limit(outcome)?;
                }
                None => self.out.0.lock().extend_from_slice(piece),
            }
        }
        Ok(self.out.take())
    }

    /// Ends the page; returns the rest to send.
    pub fn end(mut self) -> Result<Vec<u8>, PageError> {
        if let Some(rewriter) = self.rewriter.take() {
            let outcome = rewriter.end();
            self.bail_out_on_limit(outcome)?;
        }
        Ok(self.out.take())
    }

    /// Whether the page exceeded the memory limit and is passed on unchanged.
    pub fn has_bailed_out(&self) -> bool {
        self.rewriter.is_none()
    }

    /// Bails out on the two errors after which the rewriter has written all its input. After any error it must not be used
    /// again.
    fn bail_out_on_limit(&mut self, outcome: Result<(), RewritingError>) -> Result<(), PageError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(RewritingError::MemoryLimitExceeded(_) | RewritingError::ContentHandlerError(_)) => {
                self.rewriter = None;
                Ok(())
            }
            Err(other) => Err(PageError::Broken(other)),
        }
    }
}

/// The output buffer, shared with the rewriter, which owns its sink. Never contended: one caller uses both.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().extend_from_slice(chunk);
    }
}

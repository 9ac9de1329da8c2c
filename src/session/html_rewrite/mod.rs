//! The token in a page: links, forms and frames of an HTML answer, rewritten while it streams through.
//!
//! Memory is bounded. A page that does not fit (a tag of megabytes, tens of thousands of elements inside each other) is
//! rewritten up to there and goes on untouched: no byte is lost, none comes twice.
//!
//! Known limits of one pass: links before `<base href>` are read against the page's own address, and a button whose
//! `formaction` leads elsewhere takes the hidden field of its form along. A button's `formmethod` is not read: the token
//! is where its form's own method needs it. What is in `<noscript>` is text here, and stays.

mod answer;
mod attribute;
mod decode;
mod elements;
mod nesting;
mod refresh;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use lol_html::errors::{RewritingError, SelectorError};
use lol_html::send::{ElementContentHandlers, HtmlRewriter, Settings};
use lol_html::{MemorySettings, OutputSink, Selector};
use parking_lot::Mutex;

pub use answer::{Charset, rewritable};
pub use decode::{Decoder, is_known};

use super::link::Base;
use elements::Elements;

/// What one page may hold in memory, in bytes: the tag that is not complete yet, and the open elements, some 64 bytes
/// each. Elements whose end tag is left out (`<li>`, `<p>`) stay open until their parent's: a long list may have thousands.
const MEMORY: usize = 4 * 1024 * 1024;
/// What is given to the rewriter at once, in bytes: a tag's beginning is copied only to where its piece ends.
const PIECE: usize = 64 * 1024;

/// Why a page's links cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The selector is ours, so this is a fault of ours; nothing of the page has been read yet.
    #[error("the elements with links cannot be selected: {0}")]
    Selector(#[from] SelectorError),
    /// The rewriter failed in a way in which it does not say what it had written: the answer cannot be completed.
    #[error("a page's links cannot be rewritten: {0}")]
    Broken(RewritingError),
}

/// One page on its way through. Give it the decoded body, and send what it gives back.
pub struct PageRewriter {
    /// `None` once it has given up.
    rewriter: Option<HtmlRewriter<'static, Sink>>,
    out: Sink,
}

impl PageRewriter {
    /// `name` is the parameter's, `token` its value. Neither may need percent-encoding.
    pub fn new(base: Base, charset: Charset, name: &str, token: &str) -> Result<Self, PageError> {
        let mut elements = Elements::new(base, name, token);
        let selector: Selector = elements::SELECTOR.parse()?;
        let handlers = ElementContentHandlers::default()
            .element(move |element: &mut lol_html::send::Element<'_, '_>| elements.visit(element));
        let settings = Settings::new_send()
            .append_element_content_handler((Cow::Owned(selector), handlers))
            .with_encoding(charset.encoding())
            .with_adjust_charset_on_meta_tag(!charset.is_declared())
            // A page that only some browsers can read for sure is still a page.
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

    /// The next part of the page, and what of it can be sent.
    pub fn write(&mut self, part: &[u8]) -> Result<Vec<u8>, PageError> {
        for piece in part.chunks(PIECE) {
            match &mut self.rewriter {
                Some(rewriter) => {
                    let outcome = rewriter.write(piece);
                    self.settle(outcome)?;
                }
                None => self.out.0.lock().extend_from_slice(piece),
            }
        }
        Ok(self.out.take())
    }

    /// What is left to send when the page has ended.
    pub fn end(mut self) -> Result<Vec<u8>, PageError> {
        if let Some(rewriter) = self.rewriter.take() {
            let outcome = rewriter.end();
            self.settle(outcome)?;
        }
        Ok(self.out.take())
    }

    /// Whether the page did not fit into memory, and goes on as the server wrote it.
    pub fn has_given_up(&self) -> bool {
        self.rewriter.is_none()
    }

    /// In these two cases the rewriter has written all that it was given; after any error it must not be used again.
    fn settle(&mut self, outcome: Result<(), RewritingError>) -> Result<(), PageError> {
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

/// Where the rewriter, which owns its sink, leaves what can be sent. Never contended: both ends are one caller's.
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

//! Attribute values: the text that a page's author meant, and back into a page.

use std::borrow::Cow;

use htmlize::unescape_attribute;
use lol_html::send::Element;

/// The attribute's value with its character references resolved (HTML, "character reference state", as in attributes).
pub(super) fn text(element: &Element<'_, '_>, name: &str) -> Option<String> {
    element.get_attribute(name).map(|raw| match unescape_attribute(&raw) {
        Cow::Borrowed(_) => raw.clone(),
        Cow::Owned(text) => text,
    })
}

/// Puts `new` where `old` was. Bytes that are no text in the page's encoding read as U+FFFD and could not be written
/// back: such a value stays as it is.
pub(super) fn put(element: &mut Element<'_, '_>, name: &str, old: &str, new: &str) -> lol_html::HandlerResult {
    if !old.contains(char::REPLACEMENT_CHARACTER) {
        // The rewriter itself writes `"` as a reference, and what the page's encoding does not have.
        element.set_attribute(name, &new.replace('&', "&amp;"))?;
    }
    Ok(())
}

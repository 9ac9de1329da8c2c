//! Attribute values: character references decoded when read, encoded when written.

use std::borrow::Cow;

use htmlize::unescape_attribute;
use lol_html::send::Element;

/// The attribute's value with its character references decoded (HTML, "character reference state", in attributes).
pub(super) fn text(element: &Element<'_, '_>, name: &str) -> Option<String> {
    element.get_attribute(name).map(|raw| match unescape_attribute(&raw) {
        Cow::Borrowed(_) => raw.clone(),
        Cow::Owned(text) => text,
    })
}

/// Replaces the value `old` by `new`. Bytes that are invalid in the page's encoding read as U+FFFD and cannot be written
/// back, so such a value is left unchanged.
pub(super) fn put(element: &mut Element<'_, '_>, name: &str, old: &str, new: &str) -> lol_html::HandlerResult {
    if !old.contains(char::REPLACEMENT_CHARACTER) {
        // The rewriter itself encodes `"` and characters that the page's encoding does not have.
        element.set_attribute(name, &new.replace('&', "&amp;"))?;
    }
    Ok(())
}

//! Attribute values: character references decoded when read, encoded when written.

use std::borrow::Cow;

use htmlize::unescape_attribute;
use lol_html::html_content::Attribute;
use lol_html::send::Element;

/// The attribute's value with its character references decoded (HTML, "character reference state", in attributes).
pub(super) fn text(element: &Element<'_, '_>, name: &str) -> Option<String> {
    let raw = element.get_attribute(name)?;
    if !raw.is_ascii() && is_misread(element, name, &raw) {
        return Some(char::REPLACEMENT_CHARACTER.to_string());
    }
    Some(match unescape_attribute(&raw) {
        Cow::Borrowed(_) => raw.clone(),
        Cow::Owned(text) => text,
    })
}

/// Whether a value was not read in the page's encoding: `lol_html` reads one that begins with the bytes of a byte order mark as UTF-16
/// or UTF-8. Both show in the length, which no encoding of pages has for the same text.
fn is_misread(element: &Element<'_, '_>, name: &str, raw: &str) -> bool {
    let attribute = element.attributes().iter().find(|attribute| attribute.name() == name);
    let Some(location) = attribute.and_then(Attribute::value_source_location) else { return false };
    let length = location.bytes().len();
    let as_utf16 = 2 + 2 * raw.encode_utf16().count();
    raw.len() != length && (as_utf16 == length || 3 + raw.len() == length)
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

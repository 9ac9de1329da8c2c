//! Cookies of a request.
//!
//! A `Cookie` field is split at every `;`. A piece is `name=value`; spaces and tabs around either are ignored. A piece
//! without `=` is not our cookie. Names are compared exactly. HTTP/2 lets a client send its cookies in several fields
//! (RFC 9113, section 8.2.3), so all fields are read.

use std::ops::Range;

use http::HeaderValue;

use crate::message::CookieEdit;

/// The values of the cookies of this name, in order. Takes the `Cookie` fields of a request. Allocates nothing.
///
/// Double quotes around a value are removed: some clients and intermediaries add them.
pub fn values<'a, F>(fields: F, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, F>
where
    F: IntoIterator<Item = &'a [u8]>,
{
    written_values(fields, name).map(unquoted)
}

/// The same values as they were sent, with their double quotes.
pub fn written_values<'a, F>(fields: F, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, F>
where
    F: IntoIterator<Item = &'a [u8]>,
{
    let mut fields = fields.into_iter();
    let mut pieces = Pieces(None);
    // A `flat_map` does the same in twice the instructions.
    std::iter::from_fn(move || {
        loop {
            match pieces.find_map(|piece| written_value_of(piece, name)) {
                None => pieces = Pieces(Some(fields.next()?)),
                found => return found,
            }
        }
    })
}

/// A value without the double quotes around it.
pub fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', unquoted @ .., b'"'] => unquoted,
        _ => value,
    }
}

/// What becomes of a request's `Cookie` fields when a cookie is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CookieRewrite<'a> {
    /// No change: no cookie of this name, and at most one field.
    Unchanged,
    /// No cookie is left: the field is removed.
    Remove,
    /// The new field is a slice of the old one: our cookie was the first or the last.
    Slice(&'a [u8]),
    /// The new field.
    Replace(Vec<u8>),
}

impl From<CookieRewrite<'_>> for CookieEdit {
    fn from(rewrite: CookieRewrite<'_>) -> Self {
        // Made of what was a header's value before, so it is one.
        let value = match rewrite {
            CookieRewrite::Unchanged => return Self::Keep,
            CookieRewrite::Remove => None,
            CookieRewrite::Slice(cookies) => HeaderValue::from_bytes(cookies).ok(),
            CookieRewrite::Replace(cookies) => HeaderValue::from_maybe_shared(bytes::Bytes::from(cookies)).ok(),
        };
        value.map_or(Self::Remove, Self::Set)
    }
}

/// The request's cookies without those of this name, in one field.
///
/// All other bytes are unchanged, also spaces and empty pieces between cookies: some servers let a quoted value contain
/// `;`, and such cookies must survive. Several fields are joined with `; `, as RFC 9113 demands towards HTTP/1.1.
pub fn without<'a>(fields: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> CookieRewrite<'a> {
    edited(fields, |piece| if value_of(piece, name).is_some() { Edit::Drop } else { Edit::Keep })
}

/// The same, but only cookies whose value `matches` are removed, and all of the name `overflow`.
pub fn without_matching<'a>(
    fields: impl IntoIterator<Item = &'a [u8]>,
    name: &[u8],
    overflow: &[u8],
    matches: impl Fn(&[u8]) -> bool,
) -> CookieRewrite<'a> {
    edited(fields, |piece| {
        let drops = value_of(piece, name).is_some_and(&matches) || value_of(piece, overflow).is_some();
        if drops { Edit::Drop } else { Edit::Keep }
    })
}

/// The request's cookies, in one field as [`without`] makes it, with the first `prefix_len(value)` bytes removed from every
/// value of this name, and without those of the name `overflow`.
pub fn without_prefix<'a>(
    fields: impl IntoIterator<Item = &'a [u8]>,
    name: &[u8],
    overflow: &[u8],
    prefix_len: impl Fn(&[u8]) -> usize,
) -> CookieRewrite<'a> {
    edited(fields, |piece| {
        let Some(value) = value_of(piece, name) else {
            return if value_of(piece, overflow).is_some() { Edit::Drop } else { Edit::Keep };
        };
        match prefix_len(value) {
            0 => Edit::Keep,
            len => Edit::Cut { start: value_start(piece), len },
        }
    })
}

/// The request's cookies in one field, as [`without`] makes it. A single field is not parsed.
pub fn joined<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> CookieRewrite<'a> {
    let mut fields = fields.into_iter();
    match (fields.next(), fields.next()) {
        (Some(first), Some(second)) => edited([first, second].into_iter().chain(fields), |_| Edit::Keep),
        _ => CookieRewrite::Unchanged,
    }
}

/// The edit of one piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Keep,
    Drop,
    /// Some bytes are removed.
    Cut {
        start: usize,
        len: usize,
    },
}

fn edited<'a>(fields: impl IntoIterator<Item = &'a [u8]>, edit: impl Fn(&[u8]) -> Edit) -> CookieRewrite<'a> {
    let mut fields = fields.into_iter();
    let Some(first) = fields.next() else {
        return CookieRewrite::Unchanged;
    };
    let second = fields.next();
    if second.is_none() {
        match changes(first, &edit) {
            Changes::None => return CookieRewrite::Unchanged,
            Changes::OneDropped(piece) => return without_piece(first, &piece),
            Changes::More => {}
        }
    }
    joined_by_pieces([first].into_iter().chain(second).chain(fields), edit)
}

/// Several fields, or several changes in one.
fn joined_by_pieces<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    edit: impl Fn(&[u8]) -> Edit,
) -> CookieRewrite<'static> {
    let mut joined = Vec::new();
    for field in fields {
        joined.reserve(field.len() + 2);
        join_edited(&mut joined, field, &edit);
    }
    if joined.is_empty() { CookieRewrite::Remove } else { CookieRewrite::Replace(joined) }
}

/// The edits of all pieces of a field.
enum Changes {
    None,
    /// One is dropped, all others are kept.
    OneDropped(Range<usize>),
    More,
}

fn changes(field: &[u8], edit: impl Fn(&[u8]) -> Edit) -> Changes {
    let mut changes = Changes::None;
    let mut start = 0;
    for piece in pieces(field) {
        changes = match (edit(piece), changes) {
            (Edit::Keep, before) => before,
            (Edit::Drop, Changes::None) => Changes::OneDropped(start..start + piece.len()),
            _ => return Changes::More,
        };
        start += piece.len() + 1;
    }
    changes
}

/// A field without one of its pieces: the fast path for nearly every request, with one field and our cookie in it once.
/// Tests hold it to the result of [`joined_by_pieces`].
fn without_piece<'a>(field: &'a [u8], piece: &Range<usize>) -> CookieRewrite<'a> {
    let before = field.get(..piece.start).unwrap_or_default();
    let after = field.get(piece.end..).unwrap_or_default();
    let (before, after) = match (before, after) {
        ([], [b';', after @ ..]) => (&[][..], after),
        ([before @ .., b';'], after) => (before, after),
        both => both,
    };
    if !has_cookies(before) && !has_cookies(after) {
        return CookieRewrite::Remove;
    }
    match (before.trim_start_blanks(), after.trim_end_blanks()) {
        ([], part) => CookieRewrite::Slice(part.trim_start_blanks()),
        (part, []) => CookieRewrite::Slice(part.trim_end_blanks()),
        (before, after) => CookieRewrite::Replace([before, after].concat()),
    }
}

fn has_cookies(pieces: &[u8]) -> bool {
    pieces.iter().any(|byte| !matches!(byte, b';' | b' ' | b'\t'))
}

/// Appends what is left of one field, if any.
fn join_edited(joined: &mut Vec<u8>, field: &[u8], edit: impl Fn(&[u8]) -> Edit) {
    let before = joined.len();
    let mut cookies = false;
    let mut begun = false;
    for (piece, edit) in pieces(field).map(|piece| (piece, edit(piece))).filter(|(_, edit)| *edit != Edit::Drop) {
        let leading = if begun { 0 } else { piece.len() - piece.trim_start_blanks().len() };
        if begun {
            joined.push(b';');
        } else if before > 0 {
            joined.extend_from_slice(b"; ");
        }
        let (kept, rest) = match edit {
            Edit::Cut { start, len } => (leading..start, start + len..piece.len()),
            _ => (leading..piece.len(), piece.len()..piece.len()),
        };
        joined.extend_from_slice(piece.get(kept).unwrap_or_default());
        joined.extend_from_slice(piece.get(rest).unwrap_or_default());
        begun = true;
        cookies |= !piece.trim_start_blanks().is_empty();
    }
    if !cookies {
        joined.truncate(before);
    }
    joined.truncate(joined.trim_end_blanks().len());
}

/// The pieces between the `;` of a field.
fn pieces(field: &[u8]) -> Pieces<'_> {
    Pieces(Some(field))
}

/// The part of a field that is not yet split.
struct Pieces<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let field = self.0?;
        let (piece, after) = match memchr::memchr(b';', field).and_then(|at| field.split_at_checked(at)) {
            Some((piece, [_, after @ ..])) => (piece, Some(after)),
            _ => (field, None),
        };
        self.0 = after;
        Some(piece)
    }
}

/// The value, if the piece is a cookie of this name.
fn value_of<'a>(piece: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    written_value_of(piece, name).map(unquoted)
}

#[inline]
fn written_value_of<'a>(piece: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let piece = piece.trim_start_blanks();
    // Most other names begin with another byte, and a full comparison is a call.
    if piece.first() != name.first() {
        return None;
    }
    let after_name = piece.strip_prefix(name)?;
    let value = after_name.trim_start_blanks().strip_prefix(b"=")?;
    Some(value.trim_start_blanks().trim_end_blanks())
}

/// Where the value of a cookie begins in its piece, after blanks and a quote.
fn value_start(piece: &[u8]) -> usize {
    let equals = piece.iter().position(|byte| *byte == b'=').unwrap_or(piece.len());
    let behind = piece.iter().skip(equals + 1).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let start = equals + 1 + behind;
    if piece.get(start) == Some(&b'"') { start + 1 } else { start }
}

/// Blanks are the "optional white space" of RFC 9110: spaces and tabs.
trait Blanks {
    fn trim_start_blanks(&self) -> &Self;
    fn trim_end_blanks(&self) -> &Self;
}

impl Blanks for [u8] {
    fn trim_start_blanks(&self) -> &Self {
        let mut rest = self;
        while let [b' ' | b'\t', after @ ..] = rest {
            rest = after;
        }
        rest
    }

    fn trim_end_blanks(&self) -> &Self {
        let mut rest = self;
        while let [before @ .., b' ' | b'\t'] = rest {
            rest = before;
        }
        rest
    }
}

#[cfg(test)]
mod tests;

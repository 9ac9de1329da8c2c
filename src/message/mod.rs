//! HTTP messages as plain data: borrowed views of heads, and edits to them.
//!
//! Decisions read a [`RequestView`] or a [`ResponseView`] and return [`RequestEdits`] or [`ResponseEdits`]. Where a head
//! comes from and how an edit is carried out is for the adapter that holds it: today the one for Pingora's header maps in
//! `proxy::head`. So a decision is made once, and is tested without a connection.

mod edits;
mod fields;
mod own_response;
#[cfg(test)]
mod tests;
mod view;

pub use self::edits::{CookieEdit, EditValue, FieldValue, RequestEdits, ResponseEdits, SetFields, WrittenName};
pub use self::fields::{FieldPairs, FieldValues, Fields};
pub use self::own_response::OwnResponse;
pub use self::view::{RequestView, ResponseView};

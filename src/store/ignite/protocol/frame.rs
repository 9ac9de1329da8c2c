//! Frames out of a stream of bytes, however it is cut.

use bytes::{Buf, Bytes, BytesMut};

use super::Malformed;

/// The longest frame that is read. A response to the largest question (512 names, or one session's data) is far shorter.
pub(in crate::store::ignite) const MAX_LENGTH: usize = 16 * 1024 * 1024;
/// The length before each frame.
const HEAD: usize = 4;

/// Takes the first frame, without its length; `None` when it is not all here. Room is made by the caller as bytes come, never
/// for a length that was only announced.
///
/// # Errors
/// When the length is none that a message can have.
pub(in crate::store::ignite) fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(head) = buffer.first_chunk::<HEAD>() else { return Ok(None) };
    let length =
        usize::try_from(i32::from_le_bytes(*head)).map_err(|_negative| Malformed("a frame of negative length"))?;
    if length > MAX_LENGTH {
        return Err(Malformed("a frame of over 16 MiB"));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    buffer.advance(HEAD);
    Ok(Some(buffer.split_to(length).freeze()))
}

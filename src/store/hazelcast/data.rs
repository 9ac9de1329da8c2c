//! Keys and values as Hazelcast serializes texts, so that its own tools show them as strings, and the partition that a key
//! belongs to.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::store::engine::{Name, StoreError, Value};

/// The header before the bytes: an unset hash, the serializer of `java.lang.String`, and the length of the UTF-8 text in four
/// bytes; all in big endian.
const HEAD: usize = 12;
/// Type -11.
const OF_TEXT: [u8; 8] = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf5];
/// The hash is of what follows hash and type.
const HASHED_FROM: usize = 8;
/// Prefix of values that are not UTF-8. No other value has it: all begin with the format version.
const ENCODED: &[u8] = b"base64:";

/// A string.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(HEAD + bytes.len());
    data.extend_from_slice(&OF_TEXT);
    data.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    data.extend_from_slice(bytes);
    data
}

/// The text of a string, if it is one. Other clients may set the hash.
fn read_text(data: &[u8]) -> Option<&[u8]> {
    let (head, bytes) = data.split_first_chunk::<HEAD>()?;
    let (_hash, rest) = head.split_first_chunk::<4>()?;
    let (kind, length) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length.first_chunk()?);
    (OF_TEXT.ends_with(kind) && usize::try_from(length) == Ok(bytes.len())).then_some(bytes)
}

/// The key of a name.
pub(super) fn key(name: &Name) -> Vec<u8> {
    text(name.as_str().as_bytes())
}

/// The name of a key; `None` when it is foreign.
pub(super) fn name(key: &[u8]) -> Option<Name> {
    let name = Name::from_stored(std::str::from_utf8(read_text(key)?).ok()?);
    name.parts().is_some().then_some(name)
}

/// A value as a string.
pub(super) fn value(value: &Value) -> Vec<u8> {
    let bytes = value.text();
    if std::str::from_utf8(bytes).is_ok() {
        return text(bytes);
    }
    let mut encoded = ENCODED.to_vec();
    encoded.extend_from_slice(STANDARD_NO_PAD.encode(bytes).as_bytes());
    text(&encoded)
}

/// The value of a string.
pub(super) fn read_value(data: &[u8]) -> Result<Value, StoreError> {
    let decoded = read_text(data).and_then(|bytes| match bytes.strip_prefix(ENCODED) {
        Some(encoded) => STANDARD_NO_PAD.decode(encoded).ok().map(Cow::from),
        None => Some(Cow::from(bytes)),
    });
    decoded
        .and_then(|bytes| Value::parse(&bytes))
        .ok_or_else(|| StoreError::Unreadable("what is kept under one of our names is none of ours".to_owned()))
}

/// The partition of a key.
pub(super) fn partition(key: &[u8], count: i32) -> i32 {
    let hash = murmur3(key.get(HASHED_FROM..).unwrap_or_default());
    // The absolute value of the least number is none: that one is of partition 0.
    hash.checked_abs().and_then(|hash| hash.checked_rem(count)).unwrap_or(0)
}

/// `MurmurHash3` of 32 bits (Austin Appleby, in the public domain), with the seed that Hazelcast uses.
fn murmur3(bytes: &[u8]) -> i32 {
    let mix = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash: u32 = 0x0100_0193;
    let (blocks, tail) = bytes.as_chunks::<4>();
    for block in blocks {
        hash = (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = tail.iter().rev().fold(0_u32, |rest, byte| rest << 8 | u32::from(*byte));
    hash ^= mix(rest) ^ u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    (hash ^ hash >> 16).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::key::SessionKey;
    use crate::store::engine::Kind;

    #[test]
    fn keys_and_values_are_strings_of_java() {
        let data = text("key1".as_bytes());
        assert_eq!(data, b"\0\0\0\0\xff\xff\xff\xf5\0\0\0\x04key1", "as in the protocol's documentation");
        let binding = Value::new(2, b"b 1764000000000 edge-1");
        assert_eq!(read_text(&value(&binding)), Some(&b"1 2 b 1764000000000 edge-1"[..]));
        let bytes = Value::new(1, &[0xff, 0]);
        assert_eq!(
            read_text(&value(&bytes)),
            Some(&b"base64:MSAxIP8A"[..]),
            "the tools show no bytes that are no text"
        );
        for foreign in [&b""[..], b"\0\0\0\0\xff\xff\xff\xf5\0\0\0\x05key1", b"\0\0\0\0\xff\xff\xff\xf4\0\0\0\x04key1"]
        {
            assert!(read_value(foreign).is_err() && name(foreign).is_none(), "{foreign:?}");
        }
        assert!(name(&data).is_none() && read_value(&data).is_err(), "a string, and none of ours");
    }

    #[test]
    fn a_key_is_of_the_partition_that_the_members_say() {
        // As hazelcast-python-client 5.7.0 sent them to a cluster of 31 partitions.
        for (key, of) in [("k", 3), ("l", 27), ("zz", 18)] {
            assert_eq!(partition(&text(key.as_bytes()), 31), of, "{key}");
        }
        assert_eq!(partition(&text(b"k"), 0), 0, "the number of partitions is not known yet");
    }

    proptest! {
        #[test]
        fn what_is_kept_comes_back(pool in "[a-z]{1,9}", session: u128, epoch: u32, rest: Vec<u8>, count in 1..500) {
            let ours = Name::new(&pool, SessionKey(session), Kind::Data);
            prop_assert_eq!(name(&key(&ours)), Some(ours.clone()));
            prop_assert!((0..count).contains(&partition(&key(&ours), count)));
            let kept = Value::new(epoch, &rest);
            prop_assert_eq!(read_value(&value(&kept)), Ok(kept));
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes: Vec<u8>) {
            let _ = (read_value(&bytes), name(&bytes), partition(&bytes, 271));
            let mut text = text(&bytes);
            let _ = read_value(&text);
            text.extend_from_slice(&bytes);
            let _ = read_value(&text);
        }
    }
}

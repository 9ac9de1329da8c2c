//! The codec: the documentation's example, limits, round trips, and arbitrary bytes.

use proptest::prelude::*;

use super::*;

fn taken(bytes: &[u8]) -> Result<Option<Message>, Malformed> {
    Decoder::default().take(&mut BytesMut::from(bytes))
}

#[test]
fn the_example_of_the_documentation_is_written_to_the_byte() {
    // "Map Example" of the protocol's documentation: map.put("key1", 54) with a life of ten seconds.
    let mut request = Request::new(0x01_01_00, 0x111)
        .long(9_501_681)
        .long(10_000)
        .text("map")
        .blob(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf5, 0, 0, 0, 4, b'k', b'e', b'y', b'1'])
        .blob(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xf9, 0, 0, 0, 0x36])
        .finish();
    number(&mut request, 0x215);
    let expected = "26000000 00c0 00010100 1502000000000000 11010000 f1fb900000000000 1027000000000000 \
                    09000000 0000 6d6170 16000000 0000 00000000fffffff5000000046b657931 \
                    12000000 0020 00000000fffffff900000036";
    let hex: Vec<_> = request.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex.concat(), expected.replace(char::is_whitespace, ""));
}

#[test]
fn what_is_no_message_is_told_from_what_is_not_whole() {
    let whole = Request::new(0x01_02_00, 3).long(1).text("map").finish();
    for cut in 0..whole.len() {
        assert_eq!(taken(&whole[..cut]), Ok(None), "{cut} bytes");
    }
    let mut many = [whole.clone(), whole.clone()].concat();
    many.truncate(whole.len() + 7);
    let mut incoming = BytesMut::from(&many[..]);
    let mut decoder = Decoder::default();
    assert!(decoder.take(&mut incoming).unwrap().is_some_and(|message| message.kind() == 0x01_02_00));
    assert_eq!((decoder.take(&mut incoming), incoming.len()), (Ok(None), 7));
    assert!(!incoming.is_empty());
    let longer = u32::try_from(MAX_LENGTH + 1).unwrap().to_le_bytes();
    for (at, bytes) in [(0, &[5, 0, 0, 0][..]), (0, &longer), (0, &[0xff; 4]), (0, &[17, 0, 0, 0]), (4, &[0, 0x80])] {
        let mut broken = whole.clone();
        broken[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(taken(&broken).is_err(), "{bytes:?}");
    }
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut bytes = Request::new(0x01_02_00, 3).finish();
    bytes[..4].copy_from_slice(&u32::try_from(MAX_LENGTH).unwrap().to_le_bytes());
    let mut incoming = BytesMut::from(&bytes[..]);
    assert_eq!(Decoder::default().take(&mut incoming), Ok(None));
    assert!(incoming.capacity() < 1024, "{} bytes", incoming.capacity());
}

#[test]
fn a_structure_is_left_with_all_that_is_in_it() {
    let bytes = Request::new(1, 0).begin().begin().text("a").end().begin().end().text("b").end().text("c").finish();
    let message = taken(&bytes).unwrap().unwrap();
    let (_, mut frames) = message.open().unwrap();
    frames.begin().unwrap();
    let mut inside = frames;
    frames.leave().unwrap();
    assert_eq!(frames.text(), Ok("c"));
    assert!(frames.is_empty());
    inside.skip().unwrap();
    inside.skip().unwrap();
    assert_eq!((inside.ends(), inside.text(), inside.ends()), (Ok(false), Ok("b"), Ok(true)));
    assert!(frames.leave().is_err() && frames.text().is_err(), "there is nothing left");
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        kind: u32, correlation: i64, int: i32, uuid: u128, parts: Vec<Option<String>>, cut in 1..64_usize,
    ) {
        let uuid = Uuid::from_u128(uuid);
        // As an answer has it, a byte stands where a request's partition begins.
        let mut request = Request::new(kind, 0).int(int).boolean(true).uuid(uuid).long(-1).begin();
        for part in &parts {
            request = request.nullable(part.as_deref());
        }
        let mut bytes = request.end().finish();
        number(&mut bytes, correlation);
        let (mut decoder, mut incoming, mut message) = (Decoder::default(), BytesMut::new(), None);
        for piece in bytes.chunks(cut) {
            prop_assert_eq!(&message, &None);
            incoming.extend_from_slice(piece);
            message = decoder.take(&mut incoming).unwrap();
        }
        let message = message.unwrap();
        prop_assert!(incoming.is_empty() && !message.is_event());
        prop_assert_eq!((message.kind(), message.correlation()), (kind, correlation));
        let (mut fixed, mut frames) = message.open().unwrap();
        // The three other bytes of the partition.
        for _ in 0..3 {
            prop_assert_eq!(fixed.byte(), Ok(0));
        }
        prop_assert_eq!((fixed.int(), fixed.boolean(), fixed.uuid()), (Ok(int), Ok(true), Ok(Some(uuid))));
        prop_assert_eq!(fixed.long(), Ok(-1));
        prop_assert!(fixed.is_empty() && fixed.byte().is_err());
        frames.begin().unwrap();
        for part in &parts {
            prop_assert_eq!(frames.nullable().unwrap(), part.as_ref().map(String::as_bytes));
        }
        prop_assert_eq!((frames.ends(), frames.is_empty()), (Ok(true), true));
    }

    #[test]
    fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
        if let Ok(Some(message)) = taken(&bytes) {
            let _ = (message.kind(), message.correlation(), message.is_event());
            if let Ok((mut fixed, mut frames)) = message.open() {
                let _ = (fixed.uuid(), fixed.long(), frames.skip(), frames.leave(), frames.text());
            }
        }
    }
}

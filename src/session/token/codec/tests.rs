//! Nothing opens but what was sealed, for the pool it was sealed for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::session::key::{ServerId, SessionId};
use crate::session::token::UnixMillis;

const K1: (&str, &[u8]) = ("k1", b"the secret of key one");
const K2: (&str, &[u8]) = ("k2", b"the secret of key two");

fn codec(keys: &[(&str, &[u8])], pool: &str) -> PoolCodec {
    PoolCodec::new(&Keyring::new(keys.iter().copied()).unwrap(), pool)
}

fn shop() -> PoolCodec {
    codec(&[K1], "shop")
}

fn token() -> Token {
    Token {
        session: SessionId::from_random(*b"sixteen letters!"),
        server: ServerId::of("a"),
        epoch: 3,
        created: UnixMillis(1_790_000_000_123),
        issued: UnixMillis(1_790_000_600_456),
    }
}

/// `token()` sealed with `K1` for `shop` and the nonce `[9; 24]`, by a program that shares no code with this one.
/// Tokens like it are in the field.
const GOLDEN: &str = "AdFMAR-GrwkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCWGHP7udNU-6aEJKVrYl\
                      tzGd5KqDij440V0lExgCLtBLLf2vr57NxnB2Hq77LYWoU_DDjTN0pHQ";

#[test]
fn a_token_of_version_1_opens_for_ever() {
    let valid = OpenOutcome::Valid { token: token(), sealed_by_first: true, key: 0 };
    assert_eq!(shop().open(GOLDEN.as_bytes()), valid);
    assert_eq!(shop().seal(&token(), [9; 24]).as_str(), GOLDEN);
}

#[test]
fn a_token_has_115_characters_that_are_safe_everywhere() {
    let text = shop().seal(&token(), [0xff; 24]);
    assert_eq!((TokenText::LEN, text.as_str().len()), (115, 115));
    assert!(text.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
    assert_eq!(format!("{text:?}"), "TokenText(hidden)");
}

#[test]
fn any_flipped_bit_is_refused() {
    let raw = URL_SAFE_NO_PAD.decode(shop().seal(&token(), [9; 24]).as_bytes()).unwrap();
    let mut tried = 0;
    for bit in 0..raw.len() * 8 {
        let mut changed = raw.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => OpenOutcome::Forged(TokenError::Version),
            1..3 => OpenOutcome::Forged(TokenError::UnknownKey),
            3..7 => OpenOutcome::OtherPool,
            _ => OpenOutcome::Forged(TokenError::Seal),
        };
        assert_eq!(shop().open(URL_SAFE_NO_PAD.encode(changed).as_bytes()), expected, "bit {bit}");
        tried += 1;
    }
    assert_eq!(tried, 86 * 8);
}

#[test]
fn any_changed_character_is_refused() {
    let text = *shop().seal(&token(), [9; 24]).as_bytes();
    for place in 0..text.len() {
        for byte in (0..=255).filter(|byte| *byte != text[place]) {
            let mut changed = text;
            changed[place] = byte;
            assert!(!matches!(shop().open(&changed), OpenOutcome::Valid { .. }), "byte {byte} at {place}");
        }
    }
}

#[test]
fn a_token_has_one_text_only() {
    // 86 bytes leave two bits of the last character unused: four characters would decode to the same byte.
    let text = *shop().seal(&token(), [9; 24]).as_bytes();
    let (last, head) = text.split_last().unwrap();
    let mut twins = 0;
    for other in b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
        let opened = shop().open(&[head, &[*other]].concat());
        if other == last {
            assert!(matches!(opened, OpenOutcome::Valid { .. }));
        } else if opened == OpenOutcome::Forged(TokenError::Encoding) {
            twins += 1;
        }
    }
    assert_eq!(twins, 48);
}

#[test]
fn shorter_and_longer_texts_are_refused() {
    let text = *shop().seal(&token(), [9; 24]).as_bytes();
    for len in 0..text.len() {
        assert_eq!(shop().open(&text[..len]), OpenOutcome::Forged(TokenError::Length));
    }
    for tail in [&b"A"[..], b"=", b"==", b" ", b"\0", &text] {
        assert_eq!(shop().open(&[&text[..], tail].concat()), OpenOutcome::Forged(TokenError::Length));
    }
}

#[test]
fn a_token_of_another_pool_is_recognised_and_worth_nothing() {
    let text = codec(&[K1], "api").seal(&token(), [9; 24]);
    assert_eq!(shop().open(text.as_bytes()), OpenOutcome::OtherPool);

    // Claiming to be ours does not help it: the pool's name is sealed too.
    let mut raw = URL_SAFE_NO_PAD.decode(text.as_bytes()).unwrap();
    raw[3..7].copy_from_slice(&name_digest::<4>("pool", "shop"));
    assert_eq!(shop().open(URL_SAFE_NO_PAD.encode(raw).as_bytes()), OpenOutcome::Forged(TokenError::Seal));
}

#[test]
fn a_token_of_an_unknown_key_is_refused() {
    let text = codec(&[K2], "shop").seal(&token(), [9; 24]);
    assert_eq!(shop().open(text.as_bytes()), OpenOutcome::Forged(TokenError::UnknownKey));
    let other_secret = codec(&[("k1", K2.1)], "shop").seal(&token(), [9; 24]);
    assert_eq!(shop().open(other_secret.as_bytes()), OpenOutcome::Forged(TokenError::Seal));
}

#[test]
fn keys_rotate_without_losing_a_token() {
    let steps = [&[K1][..], &[K1, K2], &[K2, K1], &[K2]];
    let opened_by = |keys: &[(&str, &[u8])], text: &TokenText| codec(keys, "shop").open(text.as_bytes());
    for pair in steps.windows(2) {
        // Proxies are not reloaded at one moment: each must open what the other seals.
        for (ours, theirs) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let text = codec(ours, "shop").seal(&token(), [9; 24]);
            let first = ours[0].0 == theirs[0].0;
            let key = theirs.iter().position(|(id, _)| *id == ours[0].0).unwrap();
            let valid = OpenOutcome::Valid { token: token(), sealed_by_first: first, key };
            assert_eq!(opened_by(theirs, &text), valid, "{ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_key_that_is_gone_opens_nothing_though_this_thread_has_just_opened_it() {
    let text = shop().seal(&token(), [9; 24]);
    let opens = |keys: &[(&str, &[u8])]| {
        let codec = codec(keys, "shop");
        let (once, again) = (codec.reopen(text.as_bytes()), codec.reopen(text.as_bytes()));
        assert_eq!(once, again, "{keys:?}");
        once
    };
    let by = |key: usize| OpenOutcome::Valid { token: token(), sealed_by_first: key == 0, key };
    // As reloads follow each other on one thread.
    assert_eq!(opens(&[K1]), by(0));
    assert_eq!(opens(&[K2, K1]), by(1), "it must be sealed again, but not opened again");
    assert_eq!(opens(&[K2]), OpenOutcome::Forged(TokenError::UnknownKey));
    assert_eq!(opens(&[("k1", K2.1)]), OpenOutcome::Forged(TokenError::Seal), "another secret of the same id");
    assert_eq!(opens(&[K1]), by(0));
}

#[test]
fn a_token_opened_for_one_pool_is_worth_nothing_in_another_on_the_same_thread() {
    let (shop, api) = (shop(), codec(&[K1], "api"));
    let text = shop.seal(&token(), [9; 24]);
    for _ in 0..2 {
        assert!(matches!(shop.reopen(text.as_bytes()), OpenOutcome::Valid { .. }));
        assert_eq!(api.reopen(text.as_bytes()), OpenOutcome::OtherPool);
    }
}

#[test]
fn keys_that_share_a_tag_are_all_tried() {
    let tag = |id: &str| name_digest::<2>("key", id);
    let ids: Vec<String> = (0..).map(|n| format!("key-{n}")).take(2000).collect();
    let (a, b) = ids
        .iter()
        .enumerate()
        .find_map(|(n, a)| ids[n + 1..].iter().find(|b| tag(a) == tag(b)).map(|b| (a, b)))
        .expect("two of 2000 ids share one of 65536 tags");
    let text = codec(&[(b, K2.1)], "shop").seal(&token(), [9; 24]);
    let both = codec(&[(a, K1.1), (b, K2.1)], "shop");
    assert_eq!(both.open(text.as_bytes()), OpenOutcome::Valid { token: token(), sealed_by_first: false, key: 1 });
    let neither = codec(&[(a, K1.1), (b, b"a third secret, unused")], "shop");
    assert_eq!(neither.open(text.as_bytes()), OpenOutcome::Forged(TokenError::Seal));
}

#[test]
fn a_nonce_hides_that_two_tokens_are_alike() {
    let (a, b) = (shop().seal(&token(), [1; 24]), shop().seal(&token(), [2; 24]));
    let alike = a.as_bytes().iter().zip(b.as_bytes()).skip(42).filter(|(a, b)| a == b).count();
    assert!(alike < 16, "{alike} of 73 sealed characters are alike");
}

proptest! {
    #[test]
    fn what_was_sealed_opens_to_the_same(
        session: [u8; 16], server: u64, epoch: u32, nonce: [u8; 24], pool in "[a-zA-Z0-9_.-]{1,64}",
        created in 0_u64..1 << 48, age in 0_u64..1 << 40,
    ) {
        let token = Token {
            session: SessionId::from_bytes(session),
            server: ServerId(server),
            epoch,
            created: UnixMillis(created),
            issued: UnixMillis(created + age),
        };
        let codec = codec(&[K2, K1], &pool);
        let valid = OpenOutcome::Valid { token, sealed_by_first: true, key: 0 };
        prop_assert_eq!(codec.open(codec.seal(&token, nonce).as_bytes()), valid);
    }

    #[test]
    fn what_was_opened_before_opens_to_the_same(
        shown in proptest::collection::vec((0_u8..40, 0_usize..5, any::<bool>(), 0_usize..120), 1..60),
    ) {
        let codecs = [
            codec(&[K1], "shop"), codec(&[K2, K1], "shop"), codec(&[K2], "shop"), codec(&[K1], "api"), codec(&[K1], "shop"),
        ];
        for (session, opener, changed, place) in shown {
            let token = Token { session: SessionId::from_random([session; 16]), ..token() };
            let mut text = codecs[usize::from(session) % 2].seal(&token, [session; 24]).as_bytes().to_vec();
            if let Some(byte) = text.get_mut(place).filter(|_| changed) {
                *byte ^= 1;
            }
            prop_assert_eq!(codecs[opener].reopen(&text), codecs[opener].open(&text));
        }
    }

    #[test]
    fn times_that_do_not_fit_are_cut(created: u64, issued: u64) {
        let token = Token { created: UnixMillis(created), issued: UnixMillis(issued), ..token() };
        let OpenOutcome::Valid { token: opened, .. } = shop().open(shop().seal(&token, [9; 24]).as_bytes()) else {
            return Err(TestCaseError::fail("a sealed token opens"));
        };
        prop_assert_eq!(opened.created.0, created.min((1 << 48) - 1));
        let latest = opened.created.0 + (1 << 40) - 1;
        prop_assert_eq!(opened.issued.0, issued.clamp(opened.created.0, latest));
    }

    #[test]
    fn no_bytes_open_and_none_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let opened = shop().open(&bytes);
        prop_assert!(matches!(opened, OpenOutcome::Forged(_)));
        prop_assert_eq!(shop().reopen(&bytes), opened);
    }

    #[test]
    fn no_base64_opens(raw in proptest::collection::vec(any::<u8>(), 86), ours: bool, claims: bool) {
        let mut raw = raw;
        if ours {
            raw[0] = 1;
            raw[1..3].copy_from_slice(&name_digest::<2>("key", "k1"));
        }
        if claims {
            raw[3..7].copy_from_slice(&name_digest::<4>("pool", "shop"));
        }
        let valid = matches!(shop().open(URL_SAFE_NO_PAD.encode(raw).as_bytes()), OpenOutcome::Valid { .. });
        prop_assert!(!valid);
    }
}

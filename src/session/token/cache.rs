//! Tokens that this thread has opened lately. A browser shows the same token with every request, for as long as a quarter
//! of the idle time, and what it opened to it opens to again: finding it here takes a twentieth of what opening it takes.
//!
//! What holds when a token is found here:
//!
//! - **It was opened.** Nothing else is kept. Whoever has no key puts nothing here, whatever he sends.
//! - **It is that token, byte for byte.** The whole text is compared; no hash stands for it. A changed character finds
//!   nothing, and is opened, and refused, as ever.
//! - **Under these keys, for this pool.** Every codec has a number of its own, which is part of what is compared. A reload
//!   makes new codecs: what the former keys opened counts under the new ones no more, even when a key kept its id and
//!   got another secret.
//! - **Nothing that time or events change is kept**: only what the token says, and which key says so. Whether the session
//!   has expired, has ended, has moved, or needs another token is asked for each request.
//! - **Time tells nothing.** Texts are compared in the same time wherever they differ. That a text is here at all shows in
//!   less than a microsecond, but only to who shows all of it, and he has the token.
//! - **Nobody chooses who is pushed out.** The place hangs on numbers that this thread drew at random. To be pushed out
//!   costs one opening, which is what every request would cost without this.
//!
//! Tokens are bearer secrets, and are here as they are rather than as a keyed hash: the same memory holds the keys that
//! make any token, the ids of the sessions ([`SessionKey`](crate::session::key::SessionKey) can be turned back) and the
//! requests themselves, so a hash would hide nothing from who reads it. And a hash that equality may rest on (`SipHash`,
//! 128 bits) costs half of what is saved. Nothing here is printed.
//!
//! Memory: [`WAYS`] × [`SETS`] entries of 184 bytes, 184 KiB for each thread that has opened a token. Counted nowhere.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Token, TokenText};

/// So many places a text may stand in: with one, two browsers that meet there would push each other out all the time.
const WAYS: usize = 4;
/// A power of two.
const SETS: usize = 256;

type Text = [u8; TokenText::LEN];

/// Tells a codec from all others that this process has made, those of former configurations too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodecNumber(NonZeroU64);

impl CodecNumber {
    /// The next one.
    pub(super) fn draw() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: they need only differ. Nobody lives to see the end of 64 bits.
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX))
    }
}

thread_local! {
    static RECENT: RefCell<Option<Recent>> = const { RefCell::new(None) };
}

/// What this text opened to, by this codec and on this thread, and the place of the key; `None` = it must be opened.
pub(super) fn find(codec: CodecNumber, text: &Text) -> Option<(Token, u8)> {
    RECENT.try_with(|recent| recent.try_borrow().ok()?.as_ref()?.find(codec, text)).ok()?
}

/// This text has opened.
pub(super) fn keep(codec: CodecNumber, text: &Text, token: Token, key: u8) {
    // A thread that ends keeps nothing more.
    let _ = RECENT.try_with(|recent| {
        if let Ok(mut recent) = recent.try_borrow_mut() {
            // Drawn here rather than given from above as other randomness is: no answer hangs on it.
            let recent = recent.get_or_insert_with(|| Recent::new(rand::random()));
            recent.keep(Entry { mark: recent.mark(text), codec, token, key, text: *text });
        }
    });
}

struct Recent {
    seed: [u64; 2],
    sets: Box<[[Option<Entry>; WAYS]]>,
    /// Which of a full set is pushed out next: they take turns.
    turn: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    mark: u64,
    codec: CodecNumber,
    token: Token,
    key: u8,
    text: Text,
}

const _: () = assert!(size_of::<Option<Entry>>() == 184 && SETS.is_power_of_two());

impl Recent {
    fn new(seed: [u64; 2]) -> Self {
        Self { seed, sets: vec![[None; WAYS]; SETS].into(), turn: 0 }
    }

    fn find(&self, codec: CodecNumber, text: &Text) -> Option<(Token, u8)> {
        let mark = self.mark(text);
        let mut set = self.sets.get(place(mark))?.iter().flatten();
        set.find(|one| one.mark == mark && one.codec == codec && same(&one.text, text)).map(|one| (one.token, one.key))
    }

    fn keep(&mut self, entry: Entry) {
        let Some(set) = self.sets.get_mut(place(entry.mark)) else { return };
        let free = set.iter().position(Option::is_none);
        let way = free.unwrap_or_else(|| {
            self.turn = (self.turn + 1) % WAYS;
            self.turn
        });
        if let Some(place) = set.get_mut(way) {
            *place = Some(entry);
        }
    }

    /// Made of the last characters: they are of the seal, so differ from token to token as random ones do.
    #[expect(clippy::cast_possible_truncation, reason = "folds the halves of 128 bits")]
    fn mark(&self, text: &Text) -> u64 {
        let [one, other] = text.last_chunk::<16>().map_or([0; 2], |last| {
            let last = u128::from_ne_bytes(*last);
            [(last >> 64) as u64, last as u64]
        });
        let [this, that] = self.seed;
        let product = u128::from(one ^ this) * u128::from(other ^ that);
        (product >> 64) as u64 ^ product as u64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
const fn place(mark: u64) -> usize {
    mark as usize % SETS
}

/// Looks at every byte, whatever it has seen before.
fn same(one: &Text, other: &Text) -> bool {
    one.iter().zip(other).fold(0, |differences, (one, other)| differences | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::key::{ServerId, SessionId};
    use crate::session::token::UnixMillis;

    fn token(session: u16) -> Token {
        Token {
            session: SessionId::from_bytes(u128::from(session).to_be_bytes()),
            server: ServerId(1),
            epoch: 0,
            created: UnixMillis(1),
            issued: UnixMillis(1),
        }
    }

    /// Differs from others where `mark` does not look, too.
    fn text(session: u16) -> Text {
        let mut text = [b'A'; TokenText::LEN];
        *text.last_chunk_mut().unwrap() = (u128::from(session % 64) << 64).to_be_bytes();
        *text.first_chunk_mut().unwrap() = session.to_be_bytes();
        text
    }

    fn keep(recent: &mut Recent, codec: CodecNumber, session: u16) {
        let text = text(session);
        recent.keep(Entry { mark: recent.mark(&text), codec, token: token(session), key: 0, text });
    }

    #[test]
    fn a_codec_finds_what_it_opened_and_no_other_does() {
        let (ours, theirs) = (CodecNumber::draw(), CodecNumber::draw());
        let mut recent = Recent::new([1, 2]);
        keep(&mut recent, ours, 7);
        assert_eq!(recent.find(ours, &text(7)), Some((token(7), 0)));
        assert_eq!(recent.find(theirs, &text(7)), None);
        assert_eq!(recent.find(CodecNumber::draw(), &text(7)), None);
    }

    #[test]
    fn a_text_that_differs_anywhere_is_not_found() {
        let codec = CodecNumber::draw();
        // With such a seed most of these texts have one and the same mark, so that only comparing tells them apart.
        let mut recent = Recent::new([0, u64::from_ne_bytes([b'A'; 8])]);
        let kept = [b'A'; TokenText::LEN];
        recent.keep(Entry { mark: recent.mark(&kept), codec, token: token(0), key: 0, text: kept });
        for place in 0..kept.len() {
            for bit in 0..8 {
                let mut changed = kept;
                changed[place] ^= 1 << bit;
                assert_eq!(recent.find(codec, &changed), None, "bit {bit} of byte {place}");
                assert!(!same(&changed, &kept), "bit {bit} of byte {place}");
            }
        }
        assert!(recent.find(codec, &kept).is_some());
    }

    #[test]
    fn the_newest_is_always_there_however_many_came_before() {
        let codec = CodecNumber::draw();
        let mut recent = Recent::new([3, 4]);
        for session in 0..20_000 {
            keep(&mut recent, codec, session);
            assert_eq!(recent.find(codec, &text(session)), Some((token(session), 0)));
        }
        assert_eq!(recent.find(codec, &text(0)), None, "and the oldest has made room");
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_was_kept_for_that_text(
            seed: [u64; 2], shown in proptest::collection::vec((0_usize..3, 0_u16..300), 0..400),
        ) {
            let codecs = [(); 3].map(|()| CodecNumber::draw());
            let mut recent = Recent::new(seed);
            for (codec, session) in shown {
                let found = recent.find(codecs[codec], &text(session));
                prop_assert!(found.is_none_or(|found| found == (token(session), 0)));
                if found.is_none() {
                    keep(&mut recent, codecs[codec], session);
                }
            }
        }
    }
}

//! A per-thread cache of recently opened tokens. A browser sends the same token with every request for a quarter of the idle
//! timeout; a hit here takes a twentieth of the time of opening the token.
//!
//! Properties of a hit:
//!
//! - **Authenticated.** Only tokens that have opened are cached.
//! - **Exact.** The whole text is compared, not a hash of it. A text with one changed character misses, and is refused by
//!   the codec.
//! - **Same keys, same pool.** The codec's id is part of the comparison. A reload creates new codecs, so tokens opened by
//!   former keys miss, even when a key keeps its id and gets another secret.
//! - **No mutable state.** An entry holds the token's content and its key. Expiry, end, move and reissue are decided for
//!   each request.
//! - **Constant time.** The comparison takes the same time wherever two texts differ. A hit is measurably faster than a
//!   miss, but only for a sender of the whole token.
//! - **Unpredictable eviction.** The set of an entry depends on a seed that is random for each thread. An evicted token
//!   costs one opening, the cost of every request without the cache.
//!
//! Tokens are bearer secrets and are stored in clear, not as keyed hashes: the same memory holds the keys, the session ids
//! ([`SessionKey`](crate::session::key::SessionKey) is reversible) and the requests, so hashes would hide nothing from a
//! reader of it, and a hash that is safe to compare (128-bit `SipHash`) costs half of what the cache saves. Nothing here is
//! printed.
//!
//! Memory: [`WAYS`] × [`SETS`] entries of 184 bytes, 184 KiB for each thread that has opened a token. No metric counts it.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Token, TokenText};

/// Entries of a set. With one entry, two active tokens in the same set would evict each other with every request.
const WAYS: usize = 4;
/// A power of two.
const SETS: usize = 256;

type Text = [u8; TokenText::LEN];

/// Identifies a codec among all codecs of this process, including those of former configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodecId(NonZeroU64);

impl CodecId {
    /// An unused id.
    pub(super) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: ids need only differ. A u64 cannot overflow in practice.
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX))
    }
}

thread_local! {
    static CACHE: RefCell<Option<TokenCache>> = const { RefCell::new(None) };
}

/// The token that this codec opened from this text on this thread, and the key's index; `None` on a miss.
pub(super) fn find(codec: CodecId, text: &Text) -> Option<(Token, u8)> {
    CACHE.try_with(|cache| cache.try_borrow().ok()?.as_ref()?.find(codec, text)).ok()?
}

/// Adds a token that this codec has opened from this text.
pub(super) fn insert(codec: CodecId, text: &Text, token: Token, key: u8) {
    // A thread that is ending no longer caches.
    let _ = CACHE.try_with(|cache| {
        if let Ok(mut cache) = cache.try_borrow_mut() {
            // Drawn here and not an argument, as other randomness is: no result depends on it.
            let cache = cache.get_or_insert_with(|| TokenCache::new(rand::random()));
            cache.insert(Entry { fingerprint: cache.fingerprint(text), codec, token, key, text: *text });
        }
    });
}

struct TokenCache {
    seed: [u64; 2],
    sets: Box<[[Option<Entry>; WAYS]]>,
    /// The entry of a full set that is evicted next, round robin.
    next_victim: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    fingerprint: u64,
    codec: CodecId,
    token: Token,
    key: u8,
    text: Text,
}

const _: () = assert!(size_of::<Option<Entry>>() == 184 && SETS.is_power_of_two());

impl TokenCache {
    fn new(seed: [u64; 2]) -> Self {
        Self { seed, sets: vec![[None; WAYS]; SETS].into(), next_victim: 0 }
    }

    fn find(&self, codec: CodecId, text: &Text) -> Option<(Token, u8)> {
        let fingerprint = self.fingerprint(text);
        let mut set = self.sets.get(set_index(fingerprint))?.iter().flatten();
        set.find(|one| one.fingerprint == fingerprint && one.codec == codec && equal(&one.text, text))
            .map(|one| (one.token, one.key))
    }

    fn insert(&mut self, entry: Entry) {
        let Some(set) = self.sets.get_mut(set_index(entry.fingerprint)) else { return };
        let free = set.iter().position(Option::is_none);
        let way = free.unwrap_or_else(|| {
            self.next_victim = (self.next_victim + 1) % WAYS;
            self.next_victim
        });
        if let Some(slot) = set.get_mut(way) {
            *slot = Some(entry);
        }
    }

    /// From the last characters: they belong to the seal and are as good as random.
    #[expect(clippy::cast_possible_truncation, reason = "folds the halves of 128 bits")]
    fn fingerprint(&self, text: &Text) -> u64 {
        let [high, low] = text.last_chunk::<16>().map_or([0; 2], |last| {
            let last = u128::from_ne_bytes(*last);
            [(last >> 64) as u64, last as u64]
        });
        let [seed_high, seed_low] = self.seed;
        let product = u128::from(high ^ seed_high) * u128::from(low ^ seed_low);
        (product >> 64) as u64 ^ product as u64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
const fn set_index(fingerprint: u64) -> usize {
    fingerprint as usize % SETS
}

/// Compares in constant time: every byte is read.
fn equal(one: &Text, other: &Text) -> bool {
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

    /// Texts also differ in bytes that `fingerprint` does not read.
    fn text(session: u16) -> Text {
        let mut text = [b'A'; TokenText::LEN];
        *text.last_chunk_mut().unwrap() = (u128::from(session % 64) << 64).to_be_bytes();
        *text.first_chunk_mut().unwrap() = session.to_be_bytes();
        text
    }

    fn insert(cache: &mut TokenCache, codec: CodecId, session: u16) {
        let text = text(session);
        cache.insert(Entry { fingerprint: cache.fingerprint(&text), codec, token: token(session), key: 0, text });
    }

    #[test]
    fn a_codec_finds_only_tokens_that_it_opened() {
        let (ours, theirs) = (CodecId::next(), CodecId::next());
        let mut cache = TokenCache::new([1, 2]);
        insert(&mut cache, ours, 7);
        assert_eq!(cache.find(ours, &text(7)), Some((token(7), 0)));
        assert_eq!(cache.find(theirs, &text(7)), None);
        assert_eq!(cache.find(CodecId::next(), &text(7)), None);
    }

    #[test]
    fn a_text_that_differs_anywhere_is_not_found() {
        let codec = CodecId::next();
        // With this seed most of these texts have the same fingerprint, so only the comparison distinguishes them.
        let mut cache = TokenCache::new([0, u64::from_ne_bytes([b'A'; 8])]);
        let kept = [b'A'; TokenText::LEN];
        cache.insert(Entry { fingerprint: cache.fingerprint(&kept), codec, token: token(0), key: 0, text: kept });
        for index in 0..kept.len() {
            for bit in 0..8 {
                let mut changed = kept;
                changed[index] ^= 1 << bit;
                assert_eq!(cache.find(codec, &changed), None, "bit {bit} of byte {index}");
                assert!(!equal(&changed, &kept), "bit {bit} of byte {index}");
            }
        }
        assert!(cache.find(codec, &kept).is_some());
    }

    #[test]
    fn the_newest_token_is_always_cached_and_the_oldest_is_evicted() {
        let codec = CodecId::next();
        let mut cache = TokenCache::new([3, 4]);
        for session in 0..20_000 {
            insert(&mut cache, codec, session);
            assert_eq!(cache.find(codec, &text(session)), Some((token(session), 0)));
        }
        assert_eq!(cache.find(codec, &text(0)), None, "the oldest is still cached");
    }

    proptest! {
        #[test]
        fn a_hit_is_the_token_of_that_text_and_codec(
            seed: [u64; 2], shown in proptest::collection::vec((0_usize..3, 0_u16..300), 0..400),
        ) {
            let codecs = [(); 3].map(|()| CodecId::next());
            let mut cache = TokenCache::new(seed);
            for (codec, session) in shown {
                let found = cache.find(codecs[codec], &text(session));
                prop_assert!(found.is_none_or(|found| found == (token(session), 0)));
                if found.is_none() {
                    insert(&mut cache, codecs[codec], session);
                }
            }
        }
    }
}

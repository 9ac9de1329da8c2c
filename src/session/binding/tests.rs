//! One case for each rule, then the rules for all cases.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { idle: Duration::from_secs(1800), absolute: Duration::from_secs(86_400) };
const NOW: UnixMillis = UnixMillis::from_secs(1_790_000_000);
const A: ServerId = ServerId(0xa);
const B: ServerId = ServerId(0xb);

fn ago(seconds: u64) -> UnixMillis {
    NOW.minus(Duration::from_secs(seconds))
}

fn ahead(seconds: u64) -> UnixMillis {
    NOW.plus(Duration::from_secs(seconds))
}

fn token(server: ServerId, epoch: u32, created: UnixMillis, issued: UnixMillis) -> Token {
    Token { session: SessionId::from_random([1; 16]), server, epoch, created, issued }
}

fn known(server: ServerId, epoch: u32, created: UnixMillis, last_seen: UnixMillis) -> Binding {
    Binding { server, epoch, created, last_seen }
}

fn live(server: ServerId, epoch: u32, created: UnixMillis, lookup: Lookup, adopted: bool) -> Resolution {
    Resolution::Live { binding: known(server, epoch, created, NOW), lookup, adopted }
}

#[test]
fn a_token_alone_restores_its_session() {
    let resolution = resolve(&token(A, 2, ago(100), ago(50)), None, &LIMITS, NOW);
    assert_eq!(resolution, live(A, 2, ago(100), Lookup::Restored, true));
}

#[test]
fn a_known_session_is_only_touched() {
    let resolution = resolve(&token(A, 2, ago(100), ago(50)), Some(&known(A, 2, ago(100), ago(1))), &LIMITS, NOW);
    assert_eq!(resolution, live(A, 2, ago(100), Lookup::Hit, false));
}

#[test]
fn the_higher_epoch_wins_whoever_has_it() {
    let old_token = resolve(&token(A, 2, ago(100), ago(1)), Some(&known(B, 3, ago(100), ago(9))), &LIMITS, NOW);
    assert_eq!(old_token, live(B, 3, ago(100), Lookup::Hit, false));
    let old_table = resolve(&token(B, 3, ago(100), ago(9)), Some(&known(A, 2, ago(100), ago(1))), &LIMITS, NOW);
    assert_eq!(old_table, live(B, 3, ago(100), Lookup::Hit, true));
}

#[test]
fn at_the_same_epoch_the_token_wins() {
    let resolution = resolve(&token(B, 3, ago(100), ago(9)), Some(&known(A, 3, ago(100), ago(1))), &LIMITS, NOW);
    assert_eq!(resolution, live(B, 3, ago(100), Lookup::Hit, true));
}

#[test]
fn a_session_ends_at_the_idle_timeout_and_not_before() {
    let almost = UnixMillis(NOW.minus(LIMITS.idle).0 + 1);
    let just_live = resolve(&token(A, 0, ago(9000), almost), None, &LIMITS, NOW);
    assert_eq!(just_live, live(A, 0, ago(9000), Lookup::Restored, true));
    let over = resolve(&token(A, 0, ago(9000), NOW.minus(LIMITS.idle)), None, &LIMITS, NOW);
    assert_eq!(over, Resolution::Expired(Lookup::ExpiredIdle));
}

#[test]
fn whichever_record_saw_the_client_last_counts() {
    let (long_ago, lately) = (ago(9000), ago(10));
    for (issued, last_seen) in [(long_ago, lately), (lately, long_ago)] {
        let resolution = resolve(&token(A, 0, long_ago, issued), Some(&known(A, 0, long_ago, last_seen)), &LIMITS, NOW);
        assert_eq!(resolution, live(A, 0, long_ago, Lookup::Hit, false));
    }
    let neither = resolve(&token(A, 0, long_ago, long_ago), Some(&known(A, 0, long_ago, long_ago)), &LIMITS, NOW);
    assert_eq!(neither, Resolution::Expired(Lookup::ExpiredIdle));
}

#[test]
fn a_session_is_as_old_as_its_older_record() {
    let (day, hour) = (ago(86_400), ago(3600));
    for (in_token, in_table) in [(day, hour), (hour, day)] {
        let resolution = resolve(&token(A, 0, in_token, NOW), Some(&known(A, 0, in_table, NOW)), &LIMITS, NOW);
        assert_eq!(resolution, Resolution::Expired(Lookup::ExpiredAbsolute));
    }
    let younger_table = resolve(&token(A, 0, ago(7200), NOW), Some(&known(A, 0, hour, NOW)), &LIMITS, NOW);
    assert_eq!(younger_table, live(A, 0, ago(7200), Lookup::Hit, true));
}

#[test]
fn a_clock_five_minutes_ahead_is_tolerated() {
    let ahead_a_little = token(A, 0, ahead(300), ahead(300));
    let resolution = resolve(&ahead_a_little, None, &LIMITS, NOW);
    let binding = known(A, 0, ahead(300), ahead(300));
    assert_eq!(resolution, Resolution::Live { binding, lookup: Lookup::Restored, adopted: true });
    assert_eq!(must_reissue(&ahead_a_little, &binding, true, &LIMITS, NOW), None);
}

#[test]
fn a_token_from_further_ahead_is_not_honoured_whatever_the_table_knows() {
    for (created, issued) in
        [(ahead(301), ahead(301)), (ago(10), ahead(301)), (UnixMillis(u64::MAX), UnixMillis(u64::MAX))]
    {
        for known in [None, Some(known(A, 0, ago(10), ago(1))), Some(known(A, 3, ahead(9000), ahead(9000)))] {
            let resolution = resolve(&token(A, 0, created, issued), known.as_ref(), &LIMITS, NOW);
            assert_eq!(resolution, Resolution::FromTheFuture);
        }
    }
}

#[test]
fn a_table_from_the_future_is_mended() {
    let odd = known(A, 0, ahead(9000), ahead(9000));
    let resolution = resolve(&token(A, 0, ahead(300), ahead(300)), Some(&odd), &LIMITS, NOW);
    let binding = known(A, 0, NOW, ahead(300));
    assert_eq!(resolution, Resolution::Live { binding, lookup: Lookup::Hit, adopted: true });
}

#[test]
fn a_token_is_reissued_only_when_it_must_be() {
    let binding = known(A, 2, ago(9000), NOW);
    let reissue = |token: Token, sealed_by_first| must_reissue(&token, &binding, sealed_by_first, &LIMITS, NOW);
    assert_eq!(reissue(token(A, 2, ago(9000), ago(449)), true), None);
    assert_eq!(reissue(token(A, 2, ago(9000), ago(450)), true), Some(Reissue::Refreshed));
    assert_eq!(reissue(token(A, 2, ago(9000), ago(1)), false), Some(Reissue::KeyRotated));
    assert_eq!(reissue(token(B, 2, ago(9000), ago(1)), false), Some(Reissue::Moved));
    assert_eq!(reissue(token(A, 1, ago(9000), ago(1)), true), Some(Reissue::Moved));
}

#[test]
fn labels_are_those_of_the_metrics() {
    let lookups = [
        Lookup::None,
        Lookup::Hit,
        Lookup::Restored,
        Lookup::Unknown,
        Lookup::ExpiredIdle,
        Lookup::ExpiredAbsolute,
        Lookup::Forged,
        Lookup::Ended,
        Lookup::UnknownServer,
        Lookup::StoreError,
        Lookup::OtherClient,
    ];
    let labels =
        "none hit restored unknown expired_idle expired_absolute forged ended unknown_server store_error other_client";
    assert_eq!(lookups.map(Lookup::label).join(" "), labels);
    let reissues = [Reissue::Moved, Reissue::Refreshed, Reissue::KeyRotated].map(Reissue::label);
    assert_eq!(reissues, ["moved", "refreshed", "key_rotated"]);
}

/// Times around now, on both sides of every limit.
fn times() -> impl Strategy<Value = UnixMillis> {
    prop_oneof![
        9 => (0_u64..100_000, any::<bool>()).prop_map(|(s, past)| if past { ago(s) } else { ahead(s % 1000) }),
        1 => any::<u64>().prop_map(UnixMillis),
    ]
}

/// Times at which no limit is reached yet.
fn recent() -> impl Strategy<Value = UnixMillis> {
    (0_u64..1800, any::<bool>()).prop_map(|(s, past)| if past { ago(s) } else { ahead(s % 301) })
}

fn tokens_of<T: Strategy<Value = UnixMillis>>(times: fn() -> T) -> impl Strategy<Value = Token> {
    (0_u64..3, 0_u32..4, times(), times())
        .prop_map(|(server, epoch, created, issued)| token(ServerId(server), epoch, created, issued))
}

fn bindings_of<T: Strategy<Value = UnixMillis>>(times: fn() -> T) -> impl Strategy<Value = Binding> {
    (0_u64..3, 0_u32..4, times(), times())
        .prop_map(|(server, epoch, created, last_seen)| known(ServerId(server), epoch, created, last_seen))
}

fn tokens() -> impl Strategy<Value = Token> {
    tokens_of(times)
}

fn bindings() -> impl Strategy<Value = Binding> {
    bindings_of(times)
}

/// A proxy with its table's record of one session serves the client, and gives it a new token when it must.
fn visit(table: &mut Option<Binding>, carried: &mut Token, now: UnixMillis) -> bool {
    let Resolution::Live { binding, .. } = resolve(carried, table.as_ref(), &LIMITS, now) else {
        return false;
    };
    *table = Some(binding);
    if must_reissue(carried, &binding, true, &LIMITS, now).is_some() {
        *carried = binding.token(carried.session, now);
    }
    true
}

proptest! {
    #[test]
    fn the_epoch_never_falls_and_comes_with_its_server(token in tokens(), known in proptest::option::of(bindings())) {
        if let Resolution::Live { binding, .. } = resolve(&token, known.as_ref(), &LIMITS, NOW) {
            let highest = known.map_or(token.epoch, |known| known.epoch.max(token.epoch));
            prop_assert_eq!(binding.epoch, highest);
            let from_token = (binding.server, binding.epoch) == (token.server, token.epoch);
            let from_table = known.is_some_and(|k| (binding.server, binding.epoch) == (k.server, k.epoch));
            prop_assert!(from_token || from_table);
        }
    }

    #[test]
    fn a_higher_epoch_of_the_token_never_lowers_the_outcome(
        token in tokens(), known in bindings(), more in 0_u32..4,
    ) {
        let later = Token { epoch: token.epoch + more, ..token };
        match (resolve(&token, Some(&known), &LIMITS, NOW), resolve(&later, Some(&known), &LIMITS, NOW)) {
            (Resolution::Live { binding: a, .. }, Resolution::Live { binding: b, .. }) => {
                prop_assert!(a.epoch <= b.epoch);
            }
            // Whether a session lives is a matter of time only.
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn an_expired_session_never_comes_back(
        token in tokens(), known in proptest::option::of(bindings()), now in times(), later: u64,
    ) {
        if let Resolution::Expired(_) = resolve(&token, known.as_ref(), &LIMITS, now) {
            let later = now.plus(Duration::from_millis(later));
            let again = resolve(&token, known.as_ref(), &LIMITS, later);
            prop_assert!(matches!(again, Resolution::Expired(_)), "{:?}", again);
        }
    }

    #[test]
    fn a_record_taken_is_a_record_kept(token in tokens(), known in proptest::option::of(bindings())) {
        if let Resolution::Live { binding, .. } = resolve(&token, known.as_ref(), &LIMITS, NOW) {
            let again = resolve(&token, Some(&binding), &LIMITS, NOW);
            prop_assert_eq!(again, Resolution::Live { binding, lookup: Lookup::Hit, adopted: false });
        }
    }

    #[test]
    fn only_a_record_that_stays_as_it_was_is_not_adopted(token in tokens(), known in bindings()) {
        if let Resolution::Live { binding, adopted, lookup } = resolve(&token, Some(&known), &LIMITS, NOW) {
            prop_assert_eq!(lookup, Lookup::Hit);
            prop_assert_eq!(adopted, Binding { last_seen: known.last_seen, ..binding } != known);
        }
    }

    #[test]
    fn a_new_token_need_not_be_reissued(token in tokens(), known in proptest::option::of(bindings())) {
        if let Resolution::Live { binding, .. } = resolve(&token, known.as_ref(), &LIMITS, NOW) {
            let new = binding.token(token.session, NOW);
            prop_assert_eq!(must_reissue(&new, &binding, true, &LIMITS, NOW), None);
        }
    }

    #[test]
    fn two_proxies_agree_once_a_client_has_been_at_both(
        a in proptest::option::of(bindings_of(recent)), b in proptest::option::of(bindings_of(recent)),
        token in tokens_of(recent),
    ) {
        let (mut tables, mut carried) = ([a, b], token);
        let [first, second] = &mut tables;
        let mut visit = |table: &mut Option<Binding>| visit(table, &mut carried, NOW);
        let lives = visit(first) && visit(second) && visit(first);
        prop_assert!(lives);
        let said = |binding: Binding| (binding.server, binding.epoch);
        prop_assert_eq!(first.map(said), second.map(said));
        prop_assert_eq!(Some((carried.server, carried.epoch)), first.map(said));
    }

    #[test]
    fn records_of_different_epochs_give_the_same_outcome_in_any_order(
        a in bindings_of(recent), b in bindings_of(recent), more in 1_u32..4, token in tokens_of(recent),
    ) {
        let b = Binding { epoch: a.epoch + more, ..b };
        let outcome = |mut tables: [Option<Binding>; 2]| {
            let mut carried = token;
            let [first, second] = &mut tables;
            let lives = visit(first, &mut carried, NOW) && visit(second, &mut carried, NOW);
            lives.then_some((carried.server, carried.epoch))
        };
        let (ab, ba) = (outcome([Some(a), Some(b)]), outcome([Some(b), Some(a)]));
        prop_assert!(ab.is_some());
        prop_assert_eq!(ab, ba);
    }
}

//! When the store is asked, and when not.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_of_another_proxy_is_known_here_after_one_query() {
    let (_, [a, b]) = proxies::<2>(true);
    a.assign(KEY, "s1").await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())));
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())));
    assert_eq!(b.asked("lookup"), [1]);
}

#[tokio::test(start_paused = true)]
async fn parallel_requests_of_one_session_ask_once() {
    let (_, [a, b]) = proxies::<2>(true);
    a.assign(KEY, "s1").await;
    b.link.answers(Answers::Late(Duration::from_millis(20)));
    let all = futures_util::future::join_all((0..50).map(|_| b.visit(KEY))).await;
    assert!(all.iter().all(|served| *served == Ok(Some("s1".into()))), "{all:?}");
    assert_eq!(b.asked("lookup"), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_canceled_request_does_not_cancel_the_query_of_others() {
    let (_, [a, b]) = proxies::<2>(true);
    a.assign(KEY, "s1").await;
    b.link.answers(Answers::Late(Duration::from_millis(20)));
    let first = tokio::time::timeout(Duration::from_millis(5), b.visit(KEY));
    let second = async {
        sleep(Duration::from_millis(1)).await;
        b.visit(KEY).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_err(), "the one that began to ask has gone");
    assert_eq!(second, Ok(Some("s1".into())));
    assert_eq!(b.asked("lookup"), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_unbound_id_is_looked_up_each_time() {
    let (_, [a, b]) = proxies::<2>(true);
    for _ in 0..3 {
        assert_eq!(b.visit(KEY).await, Ok(None));
    }
    assert_eq!(b.asked("lookup"), [1, 1, 1]);
    a.assign(KEY, "s1").await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())), "it had not been announced");
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_token_waits_for_the_store_once() {
    let (_, [a]) = proxies::<1>(true);
    assert!(a.query_for(KEY, false));
    a.store.query(&[a.wanted(KEY, false)], clock()).await.unwrap();
    assert!(!a.query_for(KEY, false));
    pass(3600).await;
    assert!(!a.query_for(KEY, false), "an old copy is good enough where moves are announced");
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_serves_while_it_is_refreshed() {
    let (shared, [a, b]) = proxies::<2>(false);
    let b = b.works();
    a.assign(KEY, "s1").await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())));
    assert!(a.moves(KEY, 0, "s2").await);
    pass(11).await;
    b.link.asked();
    assert!(!b.query_for(KEY, true));
    assert!(!b.query_for(KEY, true));
    assert_eq!(b.knows(KEY), is("s1", 0));
    pass(1).await;
    assert_eq!(b.asked("lookup"), [1], "one of them asked");
    assert_eq!((b.knows(KEY), stored(&shared, KEY)), (is("s2", 1), is("s2", 1)));
}

#[tokio::test(start_paused = true)]
async fn without_announcements_a_copy_older_than_twice_near_ttl_is_not_used() {
    let (_, [a, b]) = proxies::<2>(false);
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    a.moves(KEY, 0, "s2").await;
    pass(21).await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s2".into())));
}

/// Where a command reads names of one partition only.
#[tokio::test(start_paused = true)]
async fn copies_that_are_only_checked_are_read_together_once_in_near_ttl() {
    const SESSIONS: usize = 600;
    let (_, [a]) = proxies_on::<1>(Shared::with_partitions(7), true);
    let a = a.works();
    // In no order of their partitions.
    let keys: Vec<_> = (1..=SESSIONS as u128).map(|number| SessionKey(number.wrapping_mul(u128::MAX / 977))).collect();
    for key in &keys {
        a.assign(*key, "s1").await;
    }
    let (mut names, mut commands) = (0, 0);
    for _ in 0..33 {
        pass(1).await;
        assert!(keys.iter().all(|key| !a.query_for(*key, true)), "no request waits");
        for (operation, count) in a.link.asked() {
            match operation {
                "lookup" => names += count,
                "lookup command" => commands += count,
                _ => {}
            }
        }
    }
    assert_eq!(names, 3 * SESSIONS, "after 10, 20 and 30 seconds");
    assert!((3 * 7..=3 * 8).contains(&commands), "one for each partition and batch: {commands}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_announcement_is_noticed_within_near_ttl_and_after_a_reconnect_at_once() {
    for reconnects in [false, true] {
        let (_, [a, b]) = proxies_on::<2>(Shared::with_partitions(7), true);
        let b = b.works();
        a.assign(KEY, "s1").await;
        b.visit(KEY).await.unwrap();
        b.link.announcements(Announcements::Lost);
        assert!(a.moves(KEY, 0, "s2").await);
        pass(5).await;
        assert!(!b.query_for(KEY, true));
        if reconnects {
            b.link.reconnects();
        } else {
            pass(4).await;
            assert_eq!(b.knows(KEY), is("s1", 0), "the read waits for others");
        }
        // And a round of the background.
        sleep(Duration::from_millis(1200)).await;
        assert_eq!(b.knows(KEY), is("s2", 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_reaches_all_proxies_that_know_the_session() {
    let (_, [a, b]) = proxies::<2>(true);
    let b = b.works();
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    assert!(a.moves(KEY, 0, "s2").await);
    pass(1).await;
    assert_eq!(b.knows(KEY), is("s2", 1));
    assert_eq!(b.asked("lookup"), [1], "without asking");
}

#[tokio::test(start_paused = true)]
async fn a_proxys_own_announcement_does_not_undo_its_move() {
    let (_, [a]) = proxies::<1>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    // The announcement arrives before the answer does.
    a.link.answers(Answers::Late(Duration::from_millis(20)));
    assert!(a.moves(KEY, 0, "s2").await, "this request has moved it");
    assert_eq!(a.knows(KEY), is("s2", 1));
}

#[tokio::test(start_paused = true)]
async fn of_two_ids_the_second_is_found_though_the_first_has_ended() {
    let (_, [a, b]) = proxies::<2>(true);
    let b = b.works();
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    b.ends(KEY, 1);
    let second = SessionKey(5);
    a.assign(second, "s2").await;
    assert!(!b.query_for(KEY, true), "that it has ended is known");
    assert!(b.query_for(second, true));
}

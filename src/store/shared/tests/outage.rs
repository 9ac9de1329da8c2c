//! A store that is slow, hangs, is out of reach, or has forgotten everything.

use super::*;

/// How long something takes.
async fn takes<T>(what: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let came_to = what.await;
    (began.elapsed(), came_to)
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_a_request_its_timeout_and_after_three_no_request_waits() {
    let (_, [a]) = proxies::<1>(true);
    a.link.answers(Answers::Never);
    for _ in 0..3 {
        assert_eq!(takes(a.visit(KEY)).await, (TIMEOUT, Err(StoreUnavailable)));
    }
    for _ in 0..10 {
        assert_eq!(takes(a.visit(KEY)).await, (Duration::ZERO, Err(StoreUnavailable)));
        let target = a.target("s1");
        let claims = a.store.claim(KEY, &target, clock());
        assert_eq!(takes(claims).await, (Duration::ZERO, Err(StoreUnavailable)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_of_reach_costs_nothing() {
    let (_, [a]) = proxies::<1>(true);
    a.link.breaks();
    for _ in 0..10 {
        assert_eq!(takes(a.visit(KEY)).await, (Duration::ZERO, Err(StoreUnavailable)));
    }
}

#[tokio::test(start_paused = true)]
async fn known_sessions_continue_while_the_store_is_away() {
    let (_, [a]) = proxies::<1>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    a.link.answers(Answers::Never);
    for _ in 0..100 {
        pass(1).await;
        assert_eq!(takes(a.visit(KEY)).await, (Duration::ZERO, Ok(Some("s1".into()))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_while_it_was_away_is_written_when_it_answers_and_the_newest_only() {
    for fault in [Answers::Never, Answers::Unreachable, Answers::Refuses] {
        let (shared, [a]) = proxies::<1>(true);
        let a = a.works();
        a.assign(KEY, "s1").await;
        a.link.answers(fault);
        for (from, server) in [(0, "s2"), (1, "s3"), (2, "s4")] {
            assert!(a.moves(KEY, from, server).await);
            pass(1).await;
        }
        assert_eq!(stored(&shared, KEY), is("s1", 0));
        a.link.asked();
        a.link.answers(Answers::AtOnce);
        pass(2).await;
        assert_eq!(stored(&shared, KEY), is("s4", 3), "{fault:?}");
        assert_eq!(a.asked("rebind"), [1], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_that_was_written_without_a_response_stands() {
    let (shared, [a]) = proxies::<1>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    a.link.answers(Answers::NeverThoughDone);
    assert!(a.moves(KEY, 0, "s2").await);
    a.link.answers(Answers::AtOnce);
    pass(2).await;
    assert_eq!((a.knows(KEY), stored(&shared, KEY)), (is("s2", 1), is("s2", 1)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_restarted_empty_is_filled_again() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    a.moves(KEY, 0, "s2").await;
    shared.forget_everything();
    for link in [&a.link, &b.link] {
        link.breaks();
        link.reconnects();
    }
    pass(1).await;
    assert_eq!(a.visit(KEY).await, Ok(Some("s2".into())));
    pass(1).await;
    assert_eq!(stored(&shared, KEY), is("s2", 1));
    assert_eq!(b.visit(KEY).await, Ok(Some("s2".into())));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_was_restarted_empty_is_filled_before_the_next_request() {
    let (shared, [a, b]) = proxies::<2>(true);
    let a = a.works();
    let many = (0..700_u128).map(|n| SessionKey((n << 96) | n));
    for key in many.clone() {
        a.assign(key, "s1").await;
    }
    shared.forget_everything();
    a.link.breaks();
    a.link.reconnects();
    pass(1).await;
    for key in many {
        assert_eq!(b.visit(key).await, Ok(Some("s1".into())), "though it comes to the other proxy first");
    }
    let asked = a.asked("lookup");
    assert!(asked.iter().sum::<usize>() <= 700 && asked.len() <= 3, "once each: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn two_proxies_that_moved_a_session_apart_agree_when_the_store_is_back() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    for link in [&a.link, &b.link] {
        link.breaks();
    }
    assert!(a.moves(KEY, 0, "s2").await && b.moves(KEY, 0, "s3").await);
    b.link.reconnects();
    pass(1).await;
    a.link.reconnects();
    pass(1).await;
    assert_eq!((a.knows(KEY), b.knows(KEY), stored(&shared, KEY)), (is("s3", 1), is("s3", 1), is("s3", 1)));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_pings_and_nothing_else_is_waited_for_now_and_then_only() {
    let (_, [a]) = proxies::<1>(true);
    let a = a.works();
    a.link.faults(Some(Box::new(|op, _| if op == "ping" { Answers::AtOnce } else { Answers::Never })));
    let mut waited = 0;
    for _ in 0..100 {
        let (time, answer) = takes(a.visit(KEY)).await;
        assert_eq!(answer, Err(StoreUnavailable));
        waited += usize::from(time > Duration::ZERO);
        sleep(Duration::from_millis(10)).await;
    }
    assert!((3..=30).contains(&waited), "{waited} of 100 requests waited");
}

#[tokio::test(start_paused = true)]
async fn visits_that_could_not_be_written_are_written_later() {
    let (shared, [a, b]) = proxies::<2>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    a.link.breaks();
    for _ in 0..9 {
        pass(60).await;
        a.visit(KEY).await.unwrap();
    }
    pass(1).await;
    a.link.reconnects();
    pass(1).await;
    let left = shared.left(&name(KEY)).unwrap();
    assert!(left > IDLE, "{left:?}");
    pass(590).await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_stops_while_writing_loses_nothing() {
    let (shared, [a]) = proxies::<1>(true);
    a.assign(KEY, "s1").await;
    a.link.breaks();
    a.moves(KEY, 0, "s2").await;
    a.link.answers(Answers::Never);
    let writes = a.store.round(clock());
    assert!(tokio::time::timeout(Duration::from_millis(10), writes).await.is_err(), "it was under way");
    a.link.answers(Answers::AtOnce);
    a.store.flush(clock).await;
    assert_eq!(stored(&shared, KEY), is("s2", 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded() {
    let (_, [a]) = proxies::<1>(true);
    let many = 70_000_u128;
    for n in 0..many {
        let key = SessionKey(n << 64 | n);
        a.store.write_behind(key, Kind::Binding);
        a.store.touch_in_background(&a.wanted(key, true), clock());
        let _ = a.store.queues.push_fetch(a.wanted(key, true));
    }
    let (writes, touches, fetches) = a.store.waiting();
    for waits in [writes, touches, fetches] {
        assert!((65_000..70_000).contains(&waits), "{writes} {touches} {fetches}");
    }
}

//! What the store is told: binds, moves, visits.

use super::*;

#[tokio::test(start_paused = true)]
async fn the_first_of_two_proxies_binds_an_address_and_the_other_adopts() {
    let (shared, [a, b]) = proxies::<2>(true);
    a.store.claim(KEY, &a.target("s1"), clock()).await.unwrap();
    b.store.claim(KEY, &b.target("s2"), clock()).await.unwrap();
    assert!(a.table.claim(KEY, &a.target("s1"), clock()).is_none());
    assert!(b.table.claim(KEY, &b.target("s2"), clock()).is_some(), "it follows");
    assert_eq!((a.knows(KEY), b.knows(KEY), stored(&shared, KEY)), (is("s1", 0), is("s1", 0), is("s1", 0)));
}

#[tokio::test(start_paused = true)]
async fn of_two_proxies_that_move_a_session_at_once_the_loser_adopts() {
    let (shared, [a, b]) = proxies::<2>(true);
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    for link in [&a.link, &b.link] {
        link.answers(Answers::Late(Duration::from_millis(20)));
    }
    let moved = tokio::join!(a.moves(KEY, 0, "s2"), b.moves(KEY, 0, "s3"));
    assert_eq!(moved, (true, false));
    assert_eq!((a.knows(KEY), b.knows(KEY), stored(&shared, KEY)), (is("s2", 1), is("s2", 1), is("s2", 1)));
}

#[tokio::test(start_paused = true)]
async fn an_assignment_by_an_application_server_wins() {
    let (shared, [a, b]) = proxies::<2>(true);
    let b = b.works();
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    a.moves(KEY, 0, "s2").await;
    a.assign(KEY, "s3").await;
    assert_eq!((a.knows(KEY), stored(&shared, KEY)), (is("s3", 2), is("s3", 2)));
    pass(1).await;
    assert_eq!(b.knows(KEY), is("s3", 2));
    // Whatever the proxy knew.
    b.link.announcements(Announcements::Lost);
    a.moves(KEY, 2, "s1").await;
    a.moves(KEY, 3, "s2").await;
    b.assign(KEY, "s4").await;
    assert_eq!((b.knows(KEY), stored(&shared, KEY)), (is("s4", 5), is("s4", 5)));
}

#[tokio::test(start_paused = true)]
async fn a_session_with_a_higher_epoch_than_the_stored_one_is_written() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    a.moves(KEY, 0, "s2").await;
    // A token says more than the store.
    b.table.restore(KEY, &b.target("s3"), 5, clock(), clock());
    b.store.query(&[b.wanted(KEY, false)], clock()).await.unwrap();
    pass(1).await;
    assert_eq!((stored(&shared, KEY), a.knows(KEY)), (is("s3", 5), is("s3", 5)));
}

#[tokio::test(start_paused = true)]
async fn visits_are_written_in_batches_and_at_most_once_in_a_tenth_of_the_idle_timeout() {
    let (_, [a]) = proxies::<1>(true);
    let a = a.works();
    let keys: Vec<_> = (1..=100).map(|n: u128| SessionKey(n << 96 | n)).collect();
    for key in &keys {
        a.assign(*key, "s1").await;
    }
    // Ten minutes, one request each ten seconds.
    for _ in 0..60 {
        for key in &keys {
            assert_eq!(a.visit(*key).await, Ok(Some("s1".into())));
        }
        pass(10).await;
    }
    let told = a.asked("touch");
    assert!(told.iter().sum::<usize>() <= 1000, "{told:?}");
    assert!((9..=20).contains(&told.len()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_in_use_is_stored_for_its_idle_timeout_and_never_beyond_its_absolute_timeout() {
    let (shared, [a]) = proxies::<1>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    for _ in 0..239 {
        pass(30).await;
        a.visit(KEY).await.unwrap();
        pass(0).await;
        let left = shared.left(&name(KEY)).expect("it is still there");
        let age = clock().since(START);
        assert!(
            left >= IDLE.min(ABSOLUTE.saturating_sub(age)).saturating_sub(Duration::from_secs(1)),
            "{left:?} at {age:?}"
        );
    }
    pass(1).await;
    let left = shared.left(&name(KEY)).unwrap_or_default();
    assert!(left <= Duration::from_secs(60), "{left:?} left of a session that is as old as it may be");
}

#[tokio::test(start_paused = true)]
async fn a_visit_at_another_proxy_counts() {
    let (shared, [a, b]) = proxies::<2>(true);
    let b = b.works();
    a.assign(KEY, "s1").await;
    pass(590).await;
    assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())), "here for the first time");
    pass(590).await;
    assert_eq!(stored(&shared, KEY), is("s1", 0), "so it is not forgotten");
    assert_eq!(a.visit(KEY).await, Ok(Some("s1".into())));
}

#[tokio::test(start_paused = true)]
async fn an_address_at_its_absolute_timeout_begins_a_new_session_on_all_proxies() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    for _ in 0..250 {
        for (proxy, later) in [(&a, "s2"), (&b, "s3")] {
            if proxy.visit(KEY).await.unwrap().is_none() {
                let mine = proxy.target(if clock() < START.plus(ABSOLUTE) { "s1" } else { later });
                proxy.store.claim(KEY, &mine, clock()).await.unwrap();
                proxy.table.claim(KEY, &mine, clock());
            }
        }
        pass(30).await;
    }
    for proxy in [&a, &b] {
        assert_eq!(proxy.visit(KEY).await, Ok(Some("s2".into())));
        assert_eq!((proxy.knows(KEY), stored(&shared, KEY)), (is("s2", 0), is("s2", 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_store_keeps_a_little_too_long_binds_no_request() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    let old = BindingRecord { server: Some("s1".into()), epoch: 3, created: START, moved_header: None };
    pass(7201).await;
    shared.put(&name(KEY), old.value("edge"), IDLE);
    // One claims it, as it does an address; the other has bound it while the store was away.
    let claimed = SessionKey(9);
    shared.put(&name(claimed), old.value("edge"), IDLE);
    a.store.claim(claimed, &a.target("s2"), clock()).await.unwrap();
    a.table.claim(claimed, &a.target("s2"), clock());
    b.table.claim(KEY, &b.target("s3"), clock());
    b.store.write_behind(KEY, Kind::Binding);
    pass(1).await;
    assert_eq!((a.knows(claimed), stored(&shared, claimed)), (is("s2", 4), is("s2", 4)));
    assert_eq!((b.knows(KEY), stored(&shared, KEY)), (is("s3", 4), is("s3", 4)));
    for (proxy, key, server) in [(&b, claimed, "s2"), (&a, KEY, "s3")] {
        assert_eq!(proxy.visit(key).await, Ok(Some(server.into())));
    }
}

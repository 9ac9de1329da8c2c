//! Sessions that end, and ids that are used again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_that_another_proxy_ended_is_ended_here() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    a.ends(KEY, 1);
    pass(1).await;
    assert_eq!((stored(&shared, KEY), b.knows(KEY)), (is("", 1), is("", 1)));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_copy_is_old_if_the_announcement_was_lost() {
    for announces in [true, false] {
        let (_, [a, b]) = proxies::<2>(announces);
        let (a, b) = (a.works(), b.works());
        a.assign(KEY, "s1").await;
        b.visit(KEY).await.unwrap();
        b.link.announcements(Announcements::Lost);
        a.ends(KEY, 1);
        pass(11).await;
        assert_eq!(b.visit(KEY).await, Ok(Some("s1".into())), "once more");
        pass(1).await;
        assert_eq!(b.visit(KEY).await, Ok(Some(String::new())));
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_has_ended_may_be_handed_out_again() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    b.visit(KEY).await.unwrap();
    a.ends(KEY, 1);
    pass(5).await;
    b.assign(KEY, "s2").await;
    pass(1).await;
    assert_eq!((a.knows(KEY), b.knows(KEY), stored(&shared, KEY)), (is("s2", 2), is("s2", 2), is("s2", 2)));
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_handed_out_again_while_the_store_is_away_lives() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    a.assign(KEY, "s1").await;
    a.ends(KEY, 1);
    pass(5).await;
    // Never heard of it, and cannot ask.
    b.link.breaks();
    b.assign(KEY, "s2").await;
    assert_eq!(b.knows(KEY), is("s2", 0));
    b.link.reconnects();
    pass(1).await;
    assert_eq!((a.knows(KEY), b.knows(KEY), stored(&shared, KEY)), (is("s2", 2), is("s2", 2), is("s2", 2)));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_ended_meanwhile_is_bound_as_the_store_says() {
    let (shared, [a, b]) = proxies::<2>(true);
    let a = a.works();
    assert_eq!(b.visit(KEY).await, Ok(None));
    a.assign(KEY, "s1").await;
    a.ends(KEY, 1);
    pass(1).await;
    // Between asking and binding the address came and went elsewhere.
    b.store.claim(KEY, &b.target("s2"), clock()).await.unwrap();
    b.table.claim(KEY, &b.target("s2"), clock());
    assert_eq!((b.knows(KEY), stored(&shared, KEY)), (is("s2", 2), is("s2", 2)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moved_while_it_was_ended_stays_ended() {
    let (shared, [a]) = proxies::<1>(true);
    let a = a.works();
    a.assign(KEY, "s1").await;
    a.moves(KEY, 0, "s2").await;
    // A request that came before the move has it ended.
    a.ends(KEY, 1);
    pass(1).await;
    assert_eq!((a.knows(KEY), stored(&shared, KEY)), (is("", 2), is("", 2)));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_is_written_to_a_store_that_lost_it() {
    let (shared, [a, b]) = proxies::<2>(true);
    let (a, b) = (a.works(), b.works());
    for proxy in [&a, &b] {
        proxy.store.query(&[proxy.wanted(KEY, false)], clock()).await.unwrap();
        proxy.table.restore(KEY, &proxy.target("s1"), 0, clock(), clock());
    }
    a.ends(KEY, Table::FINAL_EPOCH);
    pass(1).await;
    assert_eq!(b.knows(KEY), is("", Table::FINAL_EPOCH));
    shared.forget_everything();
    b.link.reconnects();
    pass(1).await;
    assert!(!b.query_for(KEY, false));
    pass(1).await;
    assert_eq!(stored(&shared, KEY), is("", Table::FINAL_EPOCH));
}

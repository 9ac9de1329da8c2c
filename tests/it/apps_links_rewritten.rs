//! A client without cookies is led by rewritten links: through forms, frames and redirects, and through the death of its
//! server.

use crate::apps_links::{log_in, walk};
use crate::world::apps::page::{Page, Visitor};
use crate::world::{App, Conf, World};

fn rewriting() -> Conf {
    Conf::servers("a b c")
        .persistence("sources: [{ query: { name: sessionId, rewrite_links: true } }]")
        .persistence("issue: query")
}

/// The server that a desk's page names.
#[track_caller]
fn server_of(desk: &Page) -> String {
    let text = desk.answer.text();
    let after = text.split_once("server=").unwrap_or_else(|| panic!("no desk's page: {text}")).1;
    after.split(' ').next().expect("a name").to_owned()
}

#[test]
fn rewritten_links_lead_a_visitor_without_cookies_everywhere() {
    let world = World::start(rewriting());
    let visitors = [Visitor::new(world.browser()), Visitor::new(world.browser())];
    let desks = visitors.each_ref().map(|visitor| log_in(visitor).expect(200));
    assert_ne!(server_of(&desks[0]), server_of(&desks[1]), "two visitors have two servers");
    for (visitor, desk) in visitors.iter().zip(&desks) {
        walk(visitor, desk, &server_of(desk));
    }
    let targets: Vec<_> = world.apps().flat_map(App::seen).map(|seen| seen.target).collect();
    assert!(targets.len() > 16, "both walked: {targets:?}");
    assert!(targets.iter().all(|target| !target.contains("sessionId")), "no server saw the token: {targets:?}");
    assert!(targets.iter().any(|target| target.ends_with("/look?a=1&b=2")), "and nothing else is lost: {targets:?}");
}

#[test]
fn rewriting_changes_nothing_but_the_token_and_its_answers_are_kept_from_caches_and_referrers() {
    let world = World::start(rewriting());
    let visitor = Visitor::new(world.browser());
    let desk = log_in(&visitor).expect(200);
    assert_eq!(visitor.follow(&desk, "look").url.fragment(), Some("end"), "a fragment stays at the end");
    assert_eq!(visitor.follow(&desk, "take").url.fragment(), Some("list"), "also behind a redirect");
    let address = desk.address_of("look");
    assert_eq!(address.matches("sessionId=").count(), 1, "one token: {address}");
    let cache = desk.answer.header("cache-control").unwrap_or_default();
    assert!(cache.contains("private") || cache.contains("no-store"), "no shared cache keeps it: {cache:?}");
    assert!(desk.answer.header("referrer-policy").is_some(), "other sites do not learn it: {:?}", desk.answer.head);
    assert_eq!(desk.answer.all("set-cookie").len(), 0, "no cookie is set: {:?}", desk.answer.head);
}

#[test]
fn a_visitor_whose_server_was_killed_moves_once_and_is_led_on_by_links() {
    let world = World::start(rewriting());
    let visitor = Visitor::new(world.browser());
    let desk = log_in(&visitor).expect(200);
    let home = server_of(&desk);

    world.app(&home).kill();
    let lost = visitor.follow(&desk, "look").expect(410);
    let door = visitor.follow(&lost, "door").expect(200);
    let desk = visitor.submit(&door, "login", &[("name", "alice")]).expect(200);
    let next = server_of(&desk);
    assert_ne!(next, home, "the dead server is not where it is now");
    world.app(&home).start();
    walk(&visitor, &desk, &next);
    world.expect_metric("homing_session_moves_total", &[("pool", "web")], 1.0);
}

//! A client without cookies walks through an application whose pages keep their state on one server.

use crate::world::app::desks::LEFT_ALONE;
use crate::world::apps::page::{Page, Visitor};
use crate::world::{App, Browser, Conf, World};

/// Through the login form to a desk's page.
#[track_caller]
pub(crate) fn log_in(visitor: &Visitor) -> Page {
    let door = visitor.open("/desk").expect(200);
    let desk = visitor.submit(&door, "login", &[("name", "alice")]);
    assert_eq!(desk.redirects.len(), 1, "the form's answer is a redirect");
    desk
}

/// Every way that a desk's page offers, once; each page is the desk's.
#[track_caller]
pub(crate) fn walk(visitor: &Visitor, desk: &Page, server: &str) {
    let ways = ["look", "near", "whole", "take", "side"];
    let links = ways.map(|id| visitor.follow(desk, id));
    assert_eq!(links[3].redirects.len(), 1, "one of them is a redirect to the whole address");
    let found = visitor.submit(desk, "find", &[("q", "tea & milk")]);
    let noted = visitor.submit(desk, "note", &[("text", "a note")]);
    assert!(found.answer.text().contains("step=find asked=tea"), "{}", found.answer.text());
    assert!(noted.answer.text().contains("step=note"), "{}", noted.answer.text());
    for page in links.into_iter().chain([found, noted]) {
        let page = page.expect(200);
        assert!(page.answer.text().contains(&format!("server={server} ")), "{}", page.answer.text());
        for (id, address) in LEFT_ALONE {
            assert_eq!(page.address_of(id), address, "what leads elsewhere is left alone");
        }
    }
}

#[test]
fn one_server_alone_leads_a_visitor_everywhere() {
    let app = App::reserve("a");
    app.start();
    let visitor = Visitor::new(Browser::new(app.address()));
    let desk = log_in(&visitor).expect(200);
    walk(&visitor, &desk, "a");
}

#[test]
fn without_persistence_a_visitor_is_lost_at_the_first_step() {
    let world = World::start(Conf::servers("a b c").without_persistence());
    log_in(&Visitor::new(world.browser())).expect(410);
}

#[test]
fn a_visitor_without_cookies_is_not_helped_by_the_sealed_cookie() {
    let world = World::start(Conf::servers("a b c"));
    log_in(&Visitor::new(world.browser())).expect(410);
}

//! `homing demo`: works at the first try, and shows what it is about.

use std::time::Duration;

use crate::world::net::Address;
use crate::world::{Browser, Conf, Launch, PATIENCE, Proxy, Signal, World, eventually};

/// The address after a word at the beginning of one of the banner's lines.
fn announced(text: &str, word: &str) -> Option<Address> {
    let line = text.lines().find(|line| line.split_whitespace().any(|w| w == word) && line.contains("http://"))?;
    let address = line.split_once("http://")?.1.split(['/', ' ']).next()?;
    Some(Address::from(address))
}

#[test]
fn the_demo_starts_shows_its_page_and_moves_a_session_when_a_server_is_stopped() {
    let mut town = World::builder(Conf::servers("")).without_proxy();
    let launch = town.launch("");
    let arguments =
        ["demo", "--listen", &launch.address.to_string(), "--admin", &launch.admin.to_string()].map(str::to_owned);
    let demo = Proxy::spawn(&Launch { arguments: Some(arguments.to_vec()), ..launch }, town.directory());
    let said = || demo.stdout() + &demo.log();
    eventually(PATIENCE, "it says where the proxy is", || announced(&said(), "proxy").is_some() || !demo.is_running());
    let address = announced(&said(), "proxy").unwrap_or_else(|| panic!("no address:\n{}", said()));
    eventually(PATIENCE, "it listens", || address.is_listening());
    let alice = Browser::new(address);

    let page = alice.get("/").expect(200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{:?}", page.head);
    assert!(page.text().contains("Homing"), "a page to look at");
    let whoami = || alice.get("/whoami").expect(200).text().trim().to_owned();
    let home = whoami();
    for _ in 0..5 {
        assert_eq!(whoami(), home, "the session stays");
    }
    alice
        .request("POST", "/cart")
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body("item=tea")
        .send()
        .expect(200);
    assert!(alice.get("/cart").expect(200).text().contains("tea"), "the cart is in the server's memory");

    alice.request("POST", &format!("/demo/servers/{home}/stop")).send();
    eventually(Duration::from_secs(10), "the session moves", || whoami() != home);
    let next = whoami();
    alice.request("POST", &format!("/demo/servers/{home}/start")).send();
    for _ in 0..5 {
        assert_eq!(whoami(), next, "once, and it stays there");
    }

    demo.signal(Signal::SIGINT);
    demo.wait_for_exit(PATIENCE);
}

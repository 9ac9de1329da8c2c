//! `homing demo`: works at the first try, and shows what it is about.

use std::time::Duration;

use crate::world::apps::LONG;
use crate::world::apps::chromium::Chromium;
use crate::world::net::Address;
use crate::world::{Browser, Conf, Launch, PATIENCE, Proxy, Signal, World, eventually};

/// The address after a word at the beginning of one of the banner's lines.
fn announced(text: &str, word: &str) -> Option<Address> {
    let line = text.lines().find(|line| line.split_whitespace().any(|w| w == word) && line.contains("http://"))?;
    let address = line.split_once("http://")?.1.split(['/', ' ']).next()?;
    Some(Address::from(address))
}

/// `homing demo APPLICATION`, once it serves.
fn demo(application: &str, host: &str) -> (Proxy, Address) {
    let mut environment = World::builder(Conf::servers("")).without_proxy();
    let launch = environment.launch("");
    let address = launch.address.clone();
    let arguments = ["demo", application, "--listen", &address.to_string(), "--admin", &launch.admin.to_string()];
    let arguments = arguments.map(str::to_owned).to_vec();
    let demo = Proxy::spawn(&Launch { arguments: Some(arguments), ..launch }, environment.directory());
    let answers = || Browser::new(address.clone()).request("GET", "/").host(host).send().status == 200;
    eventually(LONG, "it serves", || {
        assert!(demo.is_running(), "{}", demo.stdout() + &demo.log());
        demo.readiness() == Some(200) && answers()
    });
    (demo, address)
}

#[test]
fn a_transfer_is_refused_when_its_server_is_gone_and_a_new_one_is_sent_once() {
    let (demo, address) = demo("bank", "127.0.0.1");
    let mut page = Chromium::start(&format!("http://{address}/"));
    page.open("/");
    page.see("No transfer has begun.");
    let transfer = |page: &mut Chromium, amount: &str| {
        page.click("button", "Begin a transfer");
        page.see("Step 1 of 3");
        page.fill("Amount in euros", amount);
        page.click("button", "Next");
        page.see("Step 2 of 3");
        page.fill("Recipient", "Ada");
        page.click("button", "Next");
        page.see(&format!("{amount} € to Ada: is that right?"));
    };
    transfer(&mut page, "100");
    let before = page.text("#server");
    page.click("button", "Stop this server");
    page.see("This server is stopped.");
    page.click("button", "Confirm");
    page.see("The server that held your transfer is gone. Nothing was sent. Please begin again.");
    assert_eq!(page.text("#count"), "0");
    transfer(&mut page, "200");
    assert_ne!(page.text("#server"), before);
    page.click("button", "Confirm");
    page.see("Sent: 200 € to Ada.");
    assert_eq!(page.text("#ledger"), format!("200 € to Ada, by {}", page.text("#server")));
    page.assert_no_problems();
    demo.signal(Signal::SIGINT);
    demo.wait_for_exit(PATIENCE);
}

#[test]
fn a_workspace_goes_to_its_next_server_with_its_notes_when_the_drain_is_over() {
    let (demo, address) = demo("workspace", "acme.localhost");
    let port = address.to_string().rsplit(':').next().expect("a port").to_owned();
    let mut page = Chromium::start(&format!("http://acme.localhost:{port}/"));
    page.open("/");
    page.see("Workspace of acme");
    page.fill("Note", "buy a mouse");
    page.click("button", "Add");
    page.see("buy a mouse");
    let (server, version) = (page.text("#server"), page.text("#version"));
    page.click("button", "Drain this server");
    page.see("Your session has moved");
    assert_ne!(page.text("#server"), server);
    assert_eq!((page.text("#version"), page.text("#notes")), (version, "buy a mouse".to_owned()));
    page.see("open");
    page.assert_no_problems();
    let mut other = Chromium::start(&format!("http://globex.localhost:{port}/"));
    other.open("/");
    other.see("Workspace of globex");
    assert_eq!(other.text("#notes"), "", "another tenant");
    demo.signal(Signal::SIGINT);
    demo.wait_for_exit(PATIENCE);
}

#[test]
fn the_demo_starts_shows_its_page_and_moves_a_session_when_a_server_is_stopped() {
    let mut environment = World::builder(Conf::servers("")).without_proxy();
    let launch = environment.launch("");
    let arguments =
        ["demo", "--listen", &launch.address.to_string(), "--admin", &launch.admin.to_string()].map(str::to_owned);
    let demo = Proxy::spawn(&Launch { arguments: Some(arguments.to_vec()), ..launch }, environment.directory());
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
    assert!(alice.get("/cart").expect(200).text().contains("tea"), "the cart follows, although its server is gone");
    alice.request("POST", &format!("/demo/servers/{home}/start")).send();
    for _ in 0..5 {
        assert_eq!(whoami(), next, "once, and it stays there");
    }

    demo.signal(Signal::SIGINT);
    demo.wait_for_exit(PATIENCE);
}

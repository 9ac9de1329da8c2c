//! The text that `homing demo` prints at its start.

use std::fmt::Write as _;
use std::path::Path;

use super::fleet::Fleet;

/// Address of the proxy, where it is free.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
/// Address of the proxy's probes and metrics, where it is free.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

pub(super) fn banner(fleet: &Fleet, config_file: &Path, notices: &[String], listen: &str, admin: &str) -> String {
    let config = config_file.display();
    let mut text =
        String::from("\nHoming demo: three shops that keep carts in their own memory, one proxy before them.\n\n");
    // Writing to a String does not fail.
    for (number, server) in (1..).zip(&fleet.servers) {
        let _ = writeln!(text, "  {number}  {:<6} http://{}", server.name, server.address);
    }
    let _ = writeln!(text, "     proxy  http://{listen}    <- open this in a browser");
    let _ = writeln!(
        text,
        "     admin  http://{admin}    the dashboard, with six visitors who come back; /metrics, /healthz, /readyz"
    );
    let _ = writeln!(text, "     file   {config}    (change it: it is read again when saved)");
    let moved = [(DEFAULT_LISTEN, listen), (DEFAULT_ADMIN, admin)];
    let moved = moved.into_iter().filter(|(default, actual)| default != actual);
    let moved = moved.map(|(default, actual)| format!("{actual} instead of {default}"));
    for notice in notices.iter().cloned().chain(moved) {
        let _ = writeln!(text, "\n  Note: {notice}.");
    }
    text.push_str(&suggestions(&config.to_string(), listen, admin));
    text
}

fn suggestions(config: &str, listen: &str, admin: &str) -> String {
    let program = std::env::current_exe().map_or_else(|_| "homing".to_owned(), |path| path.display().to_string());
    format!(
        r#"
Try, in another terminal:

  Come back, with a cookie jar: the same server each time.
    for i in 1 2 3 4; do curl -s -c jar -b jar http://{listen}/whoami; done
  Without cookies: every server in turn.
    for i in 1 2 3 4; do curl -s http://{listen}/whoami; done
  Put something into the cart, which is in that server's memory.
    curl -s -c jar -b jar -d item=tea http://{listen}/cart
  Stop the server that has your session: type its number here, then Enter. Request the cart again: the session moved, once.
    curl -s -c jar -b jar http://{listen}/cart
  It does not move back when the server returns (number, Enter). The cart is there, although it was in the stopped server's
  memory: the server had handed it over (docs/handoff.md).
  What the cookie contains:
    {program} explain "$(awk '$6 == "SESSIONID" {{ print $7 }}' jar)" --config {config}
  The counters of sessions:
    curl -s http://{admin}/metrics | grep '^homing_session'

Here: 1, 2 or 3 and Enter stops or starts a server; Enter alone shows them; Ctrl-C ends the demo.
"#
    )
}

//! The commands that ask a running proxy.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::world::proxy::command;

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }
}

fn piped(mut command: Command) -> Child {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

fn finish(child: Child) -> Said {
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().expect("a code"), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn without_a_proxy_the_exit_code_is_69() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    for admin in [port.to_string(), format!("http://{port}"), "unix:/nonexistent/homing.sock".to_owned()] {
        for line in ["status", "server set web/a --state drain --wait", "events --follow", "top", "reload"] {
            let mut command = command();
            let said = finish(piped({
                command.args(line.split_whitespace()).args(["--admin", &admin]);
                command
            }));
            let said = said.expect(69);
            assert!(said.stdout.is_empty() && said.stderr.starts_with("error: no proxy can be reached at"), "{said:?}");
        }
    }
}

#[test]
fn mistakes_of_the_command_line_have_the_exit_code_2() {
    for line in [
        "server set web --state drain",
        "server set web/a --state maint --wait",
        "status --admin nowhere",
        "sessions list --server b",
        "sessions show web/",
        "explain c2VjcmV0",
        "man nothing",
    ] {
        let mut command = command();
        command.args(line.split_whitespace());
        let said = finish(piped(command)).expect(2);
        assert!(said.stdout.is_empty() && said.stderr.contains("error: "), "{line}: {said:?}");
    }
}

#[test]
fn manual_pages_are_printed() {
    for (line, part) in [("man", "homing"), ("man server set", "ignore")] {
        let mut command = command();
        command.args(line.split_whitespace());
        let said = finish(piped(command)).expect(0);
        assert!(said.stdout.contains(".TH") && said.stdout.contains(part), "{}", said.stdout);
    }
}

//! No process that a test started outlives the tests, even when the test binary itself is killed: a shell holds the
//! list of process ids and kills what is left on it when its standard input ends.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

static GUARD: LazyLock<Mutex<Option<ChildStdin>>> = LazyLock::new(|| Mutex::new(start()));

const SCRIPT: &str = "
    trap '' INT TERM HUP
    pids=
    while read -r word pid; do
        case $word in
            add) pids=\"$pids $pid\" ;;
            remove)
                left=
                for p in $pids; do [ \"$p\" = \"$pid\" ] || left=\"$left $p\"; done
                pids=$left ;;
        esac
    done
    [ -z \"$pids\" ] || kill -9 $pids";

/// Nothing but the guard's own standard input keeps it alive; it is reaped by init.
fn start() -> Option<ChildStdin> {
    let command = Command::new("sh")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    command.ok().and_then(|mut guard| guard.stdin.take())
}

pub(crate) fn watch(child: &Child) {
    tell("add", child.id());
}

/// To be called before the process is reaped, so that its id cannot belong to another.
pub(crate) fn release(child: &Child) {
    tell("remove", child.id());
}

fn tell(word: &str, pid: u32) {
    if let Some(guard) = GUARD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let _ = writeln!(guard, "{word} {pid}");
    }
}

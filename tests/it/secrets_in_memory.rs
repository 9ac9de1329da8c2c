//! What the process keeps in memory stays there.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rlimit::Resource;

use crate::world::proxy::Launch;
use crate::world::{Conf, PATIENCE, Proxy, Signal, World};

/// Whether this system writes core dumps at all.
fn dumps_core(directory: &std::path::Path) -> bool {
    let mut control = Command::new("sh");
    control.args(["-c", "ulimit -c unlimited && kill -ABRT $$"]).current_dir(directory);
    control.status().expect("a shell").core_dumped()
}

#[test]
fn a_crash_leaves_no_core_dump_with_keys_in_it() {
    let mut environment = World::builder(Conf::servers("a")).without_proxy();
    let control = environment.directory().join("control");
    fs::create_dir(&control).expect("a directory");
    if !dumps_core(&control) {
        eprintln!("this system writes no core dumps: nothing to see");
        return;
    }
    let launch: Launch = environment.launch("");
    let proxy = Proxy::start(&launch, environment.directory());
    rlimit::prlimit(proxy.pid().as_raw(), Resource::CORE, Some((1 << 20, 1 << 20)), None).expect("another limit");
    proxy.signal(Signal::SIGABRT);
    let (status, _) = proxy.wait_for_exit(PATIENCE);
    assert!(!status.core_dumped(), "{status:?}");
}

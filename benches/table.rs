//! The cost of the session table: the time of a look-up (visit), an insert and a move; the memory per session; delays while
//! the table grows, evicts, expires and is copied; and the time to load its snapshot.
//!
//! ```text
//! cargo bench --bench table                                 criterion: means, a million and ten million sessions
//! cargo bench --bench table -- --scale                      all of it, from a thousand to ten million sessions
//! cargo bench --bench table -- --scale 1 visits,start       one round of two parts; others: eviction, expiry, data
//! make bench-table                                          the same with a table and a chart of its results
//! ```
//!
//! `SHARDS=4096` in the environment sets another number of shards. Where the kernel grants huge pages (`madvise` or `always`
//! in `/sys/kernel/mm/transparent_hugepage/enabled`), mimalloc requests them, and then the unused end of every allocation
//! is resident too; `MIMALLOC_ALLOW_THP=0` in the environment shows the difference.
//!
//! `--scale` runs every part at every size in a separate process, three times. Whole operations are timed, so every lock inside
//! is held for less. Samples during which the kernel switched processes are dropped and counted; interrupts and a
//! hypervisor's other guests stay in, so the part `visits` also measures a thread that only reads the clock.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench")]
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "for people")]
#![allow(clippy::panic, reason = "a bench")]

#[path = "table/clock.rs"]
mod clock;
#[path = "table/crowd.rs"]
mod crowd;
#[path = "table/figures.rs"]
mod figures;
#[path = "table/means.rs"]
mod means;
#[path = "table/scale.rs"]
mod scale;
#[path = "table/sessions.rs"]
mod sessions;
#[path = "table/single.rs"]
mod single;
#[path = "table/start.rs"]
mod start;

use std::env;

use criterion::Criterion;

use sessions::MILLION;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--scale-one", part, sessions] => scale::scale_one(part, sessions.parse().expect("a number of sessions")),
        ["--scale"] => scale::scale(3, ""),
        ["--scale", rounds] => scale::scale(rounds.parse().expect("a number of rounds"), ""),
        ["--scale", rounds, parts] => scale::scale(rounds.parse().expect("a number of rounds"), parts),
        _ => {
            let mut criterion = Criterion::default().configure_from_args().sample_size(20);
            for sessions in [MILLION, 10 * MILLION] {
                means::means(&mut criterion, sessions);
            }
            criterion.final_summary();
        }
    }
}

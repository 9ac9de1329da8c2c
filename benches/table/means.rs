//! Means by criterion, on one thread and on two.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use criterion::{BenchmarkId, Criterion, Throughput};
use homing::session::token::UnixMillis;

use crate::clock::{on_two_threads, timed};
use crate::sessions::{Bench, NOW, any_of, unknown_key};

pub(crate) fn means(criterion: &mut Criterion, sessions: u64) {
    let mut group = criterion.benchmark_group("table");
    group.throughput(Throughput::Elements(1));
    let bench = Bench::full(sessions);
    let table = &bench.table;
    let turn = AtomicU64::new(0);
    let turns = |count: u64| {
        let from = turn.fetch_add(count, Relaxed);
        from..from + count
    };
    let at = |turn: u64| UnixMillis(NOW.0 + (turn >> 14));

    group.bench_function(BenchmarkId::new("make a key (in all below)", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(any_of(sessions, n)))));
    });
    group.bench_function(BenchmarkId::new("visit, 1 thread", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| bench.visit(&any_of(sessions, n), at(n)))));
    });
    group.bench_function(BenchmarkId::new("visit, 2 threads", sessions), |b| {
        b.iter_custom(|count| on_two_threads(|| turns(count).for_each(|n| bench.visit(&any_of(sessions, n), at(n)))));
    });
    group.bench_function(BenchmarkId::new("find", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| ignore(table.find(&any_of(sessions, n), at(n))))));
    });
    group.bench_function(BenchmarkId::new("absent", sessions), |b| {
        b.iter_custom(|count| timed(|| turns(count).for_each(|n| bench.visit(&unknown_key(n), at(n)))));
    });
    for threads in [1, 2] {
        let run = |work: &(dyn Fn() + Sync)| if threads == 1 { timed(work) } else { on_two_threads(work) };
        group.bench_function(BenchmarkId::new(format!("rebind, {threads} threads"), sessions), |b| {
            b.iter_custom(|count| run(&|| turns(count).for_each(|n| bench.rebind(sessions, n))));
        });
        group.bench_function(BenchmarkId::new(format!("flood of a full table, {threads} threads"), sessions), |b| {
            b.iter_custom(|count| run(&|| turns(count).for_each(|n| bench.insert(n | 1 << 50, at(n)))));
        });
    }
    group.bench_function(BenchmarkId::new("insert where there is room", sessions), |b| {
        table.set_capacity(usize::try_from(sessions).unwrap() * 2);
        b.iter_custom(|count| {
            let fresh = turns(count);
            let took = timed(|| fresh.clone().for_each(|n| bench.insert(n | 1 << 55, at(n))));
            fresh.for_each(|n| ignore(table.end(&crate::sessions::key(n | 1 << 55))));
            took
        });
    });
    group.finish();
}

fn ignore<T>(answer: T) {
    black_box(answer);
}

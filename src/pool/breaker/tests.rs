use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        consecutive_failures: 3,
        ejection_time: 10 * SECOND,
        max_ejection_time: 35 * SECOND,
        max_ejected_percent: 50,
        failure_status: vec![503],
    }
}

/// A breaker and a clock that is moved by hand.
struct Bench {
    breaker: Breaker,
    settings: Settings,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { breaker: Breaker::default(), settings: settings(), now: Instant::now() }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.breaker.tick(self.now, &self.settings);
    }

    fn fail(&mut self) {
        let ticket = self.breaker.begin().unwrap();
        self.breaker.fail(ticket, self.now, &self.settings, || true);
    }

    fn succeed(&mut self) {
        let ticket = self.breaker.begin().unwrap();
        self.breaker.succeed(ticket, self.now);
    }

    fn eject(&mut self) {
        for _ in 0..self.settings.consecutive_failures {
            self.fail();
        }
        assert_eq!(self.breaker.state(), BreakerState::Open);
    }

    /// How long it takes until the open breaker is half-open.
    fn open_for(&mut self) -> Duration {
        let mut waited = Duration::ZERO;
        while self.breaker.state() == BreakerState::Open {
            self.pass(SECOND);
            waited += SECOND;
        }
        waited
    }
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_forgets_them() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        bench.fail();
        bench.fail();
        bench.succeed();
    }
    assert_eq!(bench.breaker.state(), BreakerState::Closed);
    bench.eject();
    assert_eq!(bench.breaker.begin(), None, "no request while it is open");
}

#[test]
fn a_probe_closes_the_breaker_or_ejects_for_twice_the_time() {
    let mut bench = Bench::new();
    bench.eject();
    assert_eq!(bench.open_for(), 10 * SECOND);
    bench.fail();
    assert_eq!(bench.open_for(), 20 * SECOND);
    bench.fail();
    assert_eq!(bench.open_for(), 35 * SECOND, "never longer than the maximum");
    bench.succeed();
    assert_eq!(bench.breaker.state(), BreakerState::Closed);
}

#[test]
fn the_ejection_time_starts_over_after_a_time_as_long_as_the_last_one() {
    for (pause, expected) in [(19 * SECOND, 35 * SECOND), (20 * SECOND, 10 * SECOND)] {
        let mut bench = Bench::new();
        bench.eject();
        bench.open_for();
        bench.fail();
        assert_eq!(bench.open_for(), 20 * SECOND);
        bench.succeed();
        bench.pass(pause);
        bench.eject();
        assert_eq!(bench.open_for(), expected, "closed for {pause:?}");
    }
}

#[test]
fn one_probe_at_a_time_and_a_lost_one_makes_room() {
    let mut bench = Bench::new();
    bench.eject();
    bench.open_for();
    for _ in 0..3 {
        let probe = bench.breaker.begin().unwrap();
        assert_eq!(bench.breaker.begin(), None, "one at a time");
        bench.breaker.abandon(probe);
    }
    bench.succeed();
    assert_eq!(bench.breaker.state(), BreakerState::Closed);
}

#[test]
fn results_of_before_the_ejection_count_no_more() {
    let mut bench = Bench::new();
    let old: Vec<_> = (0..6).map(|_| bench.breaker.begin().unwrap()).collect();
    bench.eject();
    bench.breaker.succeed(old[0], bench.now);
    assert_eq!(bench.breaker.state(), BreakerState::Open);
    bench.open_for();
    bench.breaker.succeed(old[1], bench.now);
    bench.breaker.fail(old[2], bench.now, &bench.settings, || true);
    bench.breaker.abandon(old[2]);
    assert_eq!(bench.breaker.state(), BreakerState::HalfOpen, "only the probe decides");
    bench.succeed();
    for ticket in old {
        bench.breaker.fail(ticket, bench.now, &bench.settings, || true);
    }
    assert_eq!(bench.breaker.state(), BreakerState::Closed);
}

#[test]
fn a_server_that_may_not_be_ejected_is_ejected_by_the_next_failure_once_it_may() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        let ticket = bench.breaker.begin().unwrap();
        bench.breaker.fail(ticket, bench.now, &bench.settings, || false);
    }
    assert_eq!(bench.breaker.state(), BreakerState::Closed);
    bench.fail();
    assert_eq!(bench.breaker.state(), BreakerState::Open);
}

#[test]
fn a_shorter_ejection_time_counts_at_once() {
    let mut bench = Bench::new();
    bench.eject();
    bench.pass(5 * SECOND);
    assert_eq!(bench.breaker.state(), BreakerState::Open);
    bench.settings.ejection_time = 5 * SECOND;
    bench.pass(Duration::ZERO);
    assert_eq!(bench.breaker.state(), BreakerState::HalfOpen);
}

#[test]
fn what_requests_read_is_what_the_machine_says() {
    let generation = Arc::new(AtomicU64::new(0));
    let (live, settings, now) = (LiveBreaker::new(Arc::clone(&generation)), settings(), Instant::now());
    assert!(live.is_quiet() && !live.excludes());
    for _ in 0..3 {
        let ticket = live.begin().unwrap();
        live.change(|machine| machine.fail(ticket, now, &settings, || true));
        assert!(!live.is_quiet());
    }
    assert_eq!((live.state(), live.excludes(), live.begin()), (BreakerState::Open, true, None));
    assert_eq!(generation.load(Ordering::Relaxed), 1, "the balancer selects without it");
    live.change(|machine| machine.tick(now + 10 * SECOND, &settings));
    assert_eq!((live.state(), live.excludes()), (BreakerState::HalfOpen, false));
    let probe = live.begin().unwrap();
    assert!(probe.is_probe() && live.excludes());
    live.change(|machine| machine.succeed(probe, now + 10 * SECOND));
    assert!(live.is_quiet());
    assert_eq!(live.begin().map(|ticket| ticket.epoch), Some(2), "what was begun before counts no more");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin,
    Succeed(usize),
    Fail(usize, bool),
    Abandon(usize),
    Pass(u64),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Begin),
        2 => (0usize..8).prop_map(Step::Succeed),
        4 => (0usize..8, any::<bool>()).prop_map(|(at, may)| Step::Fail(at, may)),
        2 => (0usize..8).prop_map(Step::Abandon),
        3 => (0u64..20).prop_map(Step::Pass),
        1 => Just(Step::Close),
    ]
}

proptest! {
    /// A walk: attempts begin, end and are lost in any order while time passes.
    #[test]
    fn every_walk_keeps_the_rules(steps in prop::collection::vec(step(), 0..200)) {
        let mut bench = Bench::new();
        let mut under_way: Vec<Ticket> = Vec::new();
        let mut opened = None;
        for step in steps {
            let before = bench.breaker.state();
            let mut take = |at: usize| (!under_way.is_empty()).then(|| under_way.swap_remove(at % under_way.len()));
            match step {
                Step::Begin => {
                    let ticket = bench.breaker.begin();
                    prop_assert!(before != BreakerState::Open || ticket.is_none(), "none while it is open");
                    prop_assert!(before != BreakerState::Closed || ticket.is_some(), "all while it is closed");
                    under_way.extend(ticket);
                }
                Step::Succeed(at) => if let Some(ticket) = take(at) { bench.breaker.succeed(ticket, bench.now) },
                Step::Fail(at, may) => if let Some(ticket) = take(at) {
                    bench.breaker.fail(ticket, bench.now, &bench.settings, || may);
                    let ejected = before == BreakerState::Closed && bench.breaker.state() == BreakerState::Open;
                    prop_assert!(!ejected || may, "ejected only where it may be");
                },
                Step::Abandon(at) => if let Some(ticket) = take(at) {
                    bench.breaker.abandon(ticket);
                    prop_assert_eq!(bench.breaker.state(), before, "a lost attempt is no result");
                },
                Step::Pass(seconds) => bench.pass(Duration::from_secs(seconds)),
                Step::Close => bench.breaker.close(bench.now),
            }
            let state = bench.breaker.state();
            let probes = under_way.iter().filter(|ticket| ticket.probe && ticket.epoch == bench.breaker.epoch).count();
            prop_assert!(probes <= 1, "one probe at a time");
            if state == BreakerState::HalfOpen {
                prop_assert_eq!(bench.breaker.excludes(), probes == 1, "no probe is under way that is not known, and none is missing");
            }
            match (before, state) {
                (BreakerState::Closed | BreakerState::HalfOpen, BreakerState::Open) => opened = Some(bench.now),
                (BreakerState::Open, BreakerState::HalfOpen) => {
                    let open_for = bench.now - opened.unwrap();
                    prop_assert!(open_for >= bench.settings.ejection_time, "{open_for:?}");
                }
                (BreakerState::Open, BreakerState::Open) => {
                    prop_assert!(bench.now - opened.unwrap() < bench.settings.max_ejection_time, "it ends");
                }
                _ => {}
            }
        }
    }
}

//! What the kernel has counted: CPU time of the proxy, and time that others took from it.

use std::fs;
use std::ops::Sub;

/// Counters of the kernel, or how far they went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Meter {
    /// Nanoseconds on a CPU of all threads of the process, user and kernel.
    pub(crate) cpu_ns: u64,
    /// Nanoseconds in which the proxy's CPU ran anything at all, in steps of a tick.
    pub(crate) core_ns: u64,
    /// Ticks in which a CPU of this machine was ready and did not run.
    pub(crate) stolen: u64,
    /// Ticks of all CPUs.
    pub(crate) ticks: u64,
}

impl Meter {
    /// Reads `/proc`. What cannot be read counts as zero.
    pub(crate) fn read(process: Option<u32>, core: Option<u32>) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let all = ticks(&stat, "cpu");
        let core = core.map(|core| ticks(&stat, &format!("cpu{core}"))).unwrap_or_default();
        let [user, nice, system, _idle, _iowait, irq, softirq, _steal] = core;
        Self {
            cpu_ns: process.map_or(0, cpu_ns),
            core_ns: (user + nice + system + irq + softirq) * TICK_NS,
            stolen: all[7],
            ticks: all.iter().sum(),
        }
    }
}

/// The kernel's for user space: 100 a second, on every machine (time(7), `USER_HZ`).
const TICK_NS: u64 = 10_000_000;

/// user nice system idle iowait irq softirq steal; guests are in user already (proc(5)).
fn ticks(stat: &str, cpu: &str) -> [u64; 8] {
    let line = stat.lines().find(|line| line.split_ascii_whitespace().next() == Some(cpu)).unwrap_or_default();
    let mut fields = line.split_ascii_whitespace().skip(1).map(|field| field.parse().unwrap_or(0));
    std::array::from_fn(|_| fields.next().unwrap_or(0))
}

impl Sub for Meter {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            core_ns: self.core_ns.saturating_sub(before.core_ns),
            stolen: self.stolen.saturating_sub(before.stolen),
            ticks: self.ticks.saturating_sub(before.ticks),
        }
    }
}

fn cpu_ns(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            stat.split_ascii_whitespace().next()?.parse::<u64>().ok()
        })
        .sum()
}

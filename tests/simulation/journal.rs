//! What happened, so that a broken promise can be told with its story.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Lines of the story that are shown.
const SHOWN: usize = 40;

/// The story of one world.
pub struct Journal {
    pub seed: u64,
    pub step: usize,
    lines: VecDeque<String>,
    /// A fingerprint of the whole story.
    pub fingerprint: u64,
    /// How often what happened, so that no promise holds only because nothing tried it.
    pub seen: BTreeMap<&'static str, usize>,
}

impl Journal {
    pub fn new(seed: u64) -> Self {
        Self { seed, step: 0, lines: VecDeque::new(), fingerprint: 0, seen: BTreeMap::new() }
    }

    pub fn note(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        for byte in line.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.lines.len() == SHOWN {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>4}  {line}", self.step));
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// A promise: when it does not hold, the run ends with the story.
    pub fn promise(&mut self, promise: &'static str, holds: bool, how: impl FnOnce() -> String) {
        self.saw(promise);
        if !holds {
            let mut story = String::new();
            for line in &self.lines {
                writeln!(story, "{line}").unwrap();
            }
            let (seed, step) = (self.seed, self.step);
            panic!("broken: {promise}\n{}\nSIM_SEED={seed}, step {step}; the story so far:\n{story}", how());
        }
    }
}

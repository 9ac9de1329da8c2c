//! Loading a full snapshot, compared with reading its file; and delays while session data is copied.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use homing::session::key::SessionKey;
use homing::store::disk::{LoadScope, LocalStore, load, write};
use homing::store::local::data::{MAX_BYTES, Owner, SessionData};
use http::HeaderValue;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::time::{ClockId, clock_gettime};

use crate::clock::{clocked, timed};
use crate::crowd::measured_while;
use crate::figures::Figures;
use crate::scale::folder;
use crate::sessions::{Bench, MILLION, NOW, key};

/// Each is tried so often, in turn, and the median counts.
const TRIES: usize = 5;

/// A table without session data.
pub(crate) fn start(sessions: u64, figures: &mut Figures) {
    let nothing = SessionData::new(0, NOW, Box::new(|_| ()));
    write_and_start(&Bench::full(sessions), &nothing, "start", figures);
}

/// A table with all the session data that there may be: large entries, and as many small ones.
pub(crate) fn data(sessions: u64, figures: &mut Figures) {
    let bench = Bench::full(sessions);
    for (name, bytes) in [("data_800", 800), ("data_20", 20)] {
        let data = full_of_data(&bench, bytes);
        let entries = data.len() as f64;
        figures.note(&format!("{name}_entries"), &format!("entries of {bytes} B"), entries);
        write_and_start(&bench, &data, name, figures);
        let (data, find) = (&data, |turn: u64| {
            let key: SessionKey = key(turn % entries as u64);
            clocked(|| drop(data.find(&key, 0)))
        });
        let quiet = measured_while(find, |_| thread::sleep(Duration::from_secs(2)));
        figures.tails(&format!("{name}_quiet"), "  data found, quiet", &quiet);
        let mut file = Vec::new();
        let writing = measured_while(find, |_| {
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                file.clear();
                write(LocalStore { table: &bench.table, data }, NOW, &mut file).unwrap();
            }
        });
        figures.tails(&format!("{name}_writing"), "  data found, snapshots written flat out", &writing);
    }
}

/// Data of that size for as many sessions as there is room for.
fn full_of_data(bench: &Bench, bytes: usize) -> SessionData {
    let data = SessionData::new(MAX_BYTES, NOW, Box::new(|_| ()));
    for number in (0..MILLION).take_while(|_| data.bytes() < MAX_BYTES * 99 / 100) {
        let value = HeaderValue::from_str(&format!("{number:0bytes$}")).unwrap();
        let pool = bench.targets[0].index();
        let owner = Owner { key: key(number), epoch: 0, created: NOW, pool };
        assert!(data.keep(&owner, &value, &bench.table, NOW));
    }
    data
}

fn write_and_start(bench: &Bench, data: &SessionData, name: &str, figures: &mut Figures) {
    let path = folder().join("snapshot");
    let write_took = timed(|| write_file(bench, data, &path));
    let length = fs::metadata(&path).unwrap().len();
    figures.note(&format!("{name}_file_bytes"), "the file", length as f64);
    figures.note(&format!("{name}_write_ms"), "  written and forced to disk", millis(write_took));
    let sessions = bench.table.len() as u64;
    let start = |wanted: LoadScope| {
        let again = Bench::new(sessions);
        let data = SessionData::new(MAX_BYTES, NOW, Box::new(|_| ()));
        Took::by(|| {
            let memory = LocalStore { table: &again.table, data: &data };
            let loaded = load(memory, File::open(&path).unwrap(), NOW, &|_| wanted).unwrap();
            assert_eq!(loaded.loaded.sessions, if wanted == LoadScope::Skip { 0 } else { sessions });
        })
    };
    let waits: [(&str, &str, &dyn Fn() -> Took); 5] = [
        ("read_cold", "  read plainly, from disk", &|| cold(&path, || read_plainly(&path))),
        ("start_cold", "  start, from disk", &|| cold(&path, || start(LoadScope::SessionsAndData))),
        ("read_warm", "  read plainly, from the system's cache", &|| read_plainly(&path)),
        ("check_warm", "  read and checked, nothing wanted", &|| start(LoadScope::Skip)),
        ("start_warm", "  start, from the system's cache", &|| start(LoadScope::SessionsAndData)),
    ];
    let (mut took, mut worked) = (vec![Vec::new(); waits.len()], vec![Vec::new(); waits.len()]);
    for _ in 0..TRIES {
        for (at, (.., wait)) in waits.iter().enumerate() {
            let Took { time, work } = wait();
            took[at].push(millis(time));
            worked[at].push(millis(work));
        }
    }
    let mut medians = HashMap::new();
    for (((key, what, _), took), worked) in waits.into_iter().zip(took).zip(worked) {
        medians.insert(key, median(took));
        figures.note(&format!("{name}_{key}_ms"), what, medians[key]);
        figures.note(&format!("{name}_{key}_cpu_ms"), "    of processors' time", median(worked));
    }
    let ratio = |of: &str, to: &str| medians[of] / medians[to];
    figures.note(&format!("{name}_cold_ratio"), "  start to reading, from disk", ratio("start_cold", "read_cold"));
    figures.note(&format!("{name}_warm_ratio"), "  start to reading, from the cache", ratio("start_warm", "read_warm"));
    fs::remove_file(&path).unwrap();
}

fn write_file(bench: &Bench, data: &SessionData, path: &PathBuf) {
    let file = File::create(path).unwrap();
    write(LocalStore { table: &bench.table, data }, NOW, &file).unwrap();
    file.sync_all().unwrap();
}

/// With nothing of the file in the system's cache.
fn cold(path: &Path, work: impl FnOnce() -> Took) -> Took {
    let file = File::open(path).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    work()
}

/// As `dd bs=1M` does.
fn read_plainly(path: &Path) -> Took {
    let mut piece = vec![0; 1 << 20];
    Took::by(|| {
        let mut file = File::open(path).unwrap();
        while file.read(&mut piece).unwrap() > 0 {}
    })
}

/// By the clock, and of the processors' time on all threads of this process.
struct Took {
    time: Duration,
    work: Duration,
}

impl Took {
    fn by(wait: impl FnOnce()) -> Self {
        let clock = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
        let before = clock();
        let time = timed(wait);
        Self { time, work: clock().saturating_sub(before) }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of[of.len() / 2]
}

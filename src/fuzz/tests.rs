//! The corpora of the fuzz targets, as ordinary tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::SUBJECTS;

/// A corpus is for review and replay, not for storage.
const MOST_FILES: usize = 100;
const MOST_BYTES: u64 = 16 << 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_fuzzing_has_found_or_covered_stays_as_it_should() {
    for (name, subject) in SUBJECTS {
        let folder = corpus().join(name);
        let files = files(&folder);
        assert!((5..=MOST_FILES).contains(&files.len()), "{name}: {} files", files.len());
        subject(b"");
        for file in files {
            assert!(file.metadata().unwrap().len() <= MOST_BYTES, "{}: too large", file.display());
            // When an assertion fails, this names the file.
            eprintln!("{}", file.display());
            subject(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_corpus_has_a_subject_and_a_target() {
    let names: Vec<_> =
        files(&corpus()).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names, SUBJECTS.map(|(name, _)| name));
    let manifest = fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
    for name in names {
        let target = fs::read_to_string(corpus().with_file_name("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("homing::fuzz::{name}(data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

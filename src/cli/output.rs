//! What the command line prints, and its exit codes.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use crate::session::token::UnixMillis;

/// Failed while running.
pub(super) const FAILED: u8 = 1;
/// A wrong command line.
const USAGE: u8 = 2;
/// Invalid configuration: `EX_CONFIG` of sysexits.h.
pub(super) const INVALID_CONFIG: u8 = 78;

/// Data for standard output. A reader that has gone (`| head`) is no error.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A message for standard error.
#[expect(clippy::print_stderr, reason = "messages go to standard error")]
pub(super) fn print_message(text: &str) {
    eprintln!("{text}");
}

/// Reports a wrong command line.
pub(super) fn usage(message: &str) -> ExitCode {
    print_message(&format!("error: {message}"));
    ExitCode::from(USAGE)
}

/// Reports a failure.
pub(super) fn failure(message: &str) -> ExitCode {
    print_message(&format!("error: {message}"));
    ExitCode::from(FAILED)
}

/// A time, readable.
pub(super) fn time(time: UnixMillis) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(time.0));
    time.filter(|time| *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800))
        .map_or_else(|| "after the year 9999".to_owned(), |time| humantime::format_rfc3339_millis(time).to_string())
}

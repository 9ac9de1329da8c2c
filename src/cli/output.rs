//! What the command line prints, and its exit codes.

use std::io::{self, IsTerminal, Read, Write};
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
    let _ = try_print(text);
}

/// The same, for a command that ends when the reader has gone.
pub(super) fn try_print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Longer than any token; the rest of the input is not read.
const MAX_INPUT: u64 = 64 * 1024;

/// Reads a secret from standard input.
pub(super) fn read_input() -> io::Result<String> {
    let mut text = String::new();
    let result = io::stdin().take(MAX_INPUT).read_to_string(&mut text);
    result.map_err(|error| io::Error::new(error.kind(), format!("standard input cannot be read: {error}")))?;
    Ok(text)
}

/// Whether a stream gets colours: a terminal, unless `NO_COLOR` is set.
pub(super) fn uses_colour_on(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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

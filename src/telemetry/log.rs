//! The log on stderr: as text or JSON; a reload changes its level.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Homing's own lines only. Pingora and the HTTP libraries log single connections, which metrics and the access log cover, and
/// below `info` they print requests with their cookies, which must never be logged. The exception: Pingora's errors when
/// connections cannot be accepted, above all for lack of file descriptors.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!("off,homing={level},pingora_core::services::listening=error"))
}

/// Starts logging; called once, before the first line. `level` is one of error, warn, info, debug, trace; `node`, the name of
/// this proxy, stands in every line.
pub fn start(level: &str, json: bool, node: Option<&str>) {
    let end: Arc<[u8]> = node.map_or_else(Vec::new, |node| line_end(node, json)).into();
    let writer = move || LineWriter { end: Arc::clone(&end) };
    let (level, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry().with(level);
    let started = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_target(false).with_writer(writer)).try_init()
    } else {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry.with(fmt::layer().with_target(false).with_ansi(colour).with_writer(writer)).try_init()
    };
    // An error means that a subscriber is set already (by a test harness), with a level of its own.
    if started.is_ok() {
        let _ = LEVEL.set(handle);
    }
}

/// Changes the level of a running process.
pub fn set_level(level: &str) {
    if let Some(handle) = LEVEL.get()
        && let Err(error) = handle.reload(filter(level))
    {
        tracing::warn!(%error, "the log level cannot be changed");
    }
}

/// How a line ends that names its proxy.
fn line_end(node: &str, json: bool) -> Vec<u8> {
    let end = if json { format!(",\"node\":{}}}\n", serde_json::Value::from(node)) } else { format!(" node={node}\n") };
    end.into_bytes()
}

/// Writes lines to standard error, each with another end. The subscriber writes a line as a whole.
struct LineWriter {
    end: Arc<[u8]>,
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().lock().write_all(&with_end(line, &self.end))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The line with its end replaced; a JSON object is left open for it.
fn with_end<'a>(line: &'a [u8], end: &[u8]) -> Cow<'a, [u8]> {
    let is_json = end.first() == Some(&b',');
    let open = if is_json { line.strip_suffix(b"}\n") } else { line.strip_suffix(b"\n") };
    match open {
        Some(open) if !end.is_empty() => Cow::Owned([open, end].concat()),
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_its_proxy() {
        let text = with_end(b"2026-01-01 INFO ready port=1\n", &line_end("edge-1", false)).into_owned();
        assert_eq!(String::from_utf8(text).unwrap(), "2026-01-01 INFO ready port=1 node=edge-1\n");
        let line = with_end(b"{\"level\":\"INFO\"}\n", &line_end("edge \"1\"", true)).into_owned();
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&line["level"], &line["node"]), (&"INFO".into(), &"edge \"1\"".into()));
        assert_eq!(&*with_end(b"plain\n", b""), b"plain\n", "without a name");
    }
}

//! The terminal as a screen: drawn over and over, read key by key, and given back as it was.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::thread;
use std::time::Duration;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The alternate screen, without a cursor, long lines cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the first line; what is left of a line after its text; what is left of the screen after the last line.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// A terminal that shows a live view until it is dropped.
pub(super) struct Screen {
    before: Option<Termios>,
    keys: mpsc::UnboundedReceiver<u8>,
}

impl Screen {
    /// `None` when standard output is no terminal.
    pub(super) fn open() -> Option<Self> {
        if !stdout().is_terminal() {
            return None;
        }
        let (sender, keys) = mpsc::unbounded_channel();
        let before = unbuffered_keys();
        if before.is_some() {
            // The thread ends with the process: a read from a terminal cannot be called off.
            thread::spawn(move || {
                let bytes = stdin().lock().bytes().map_while(Result::ok);
                bytes.into_iter().try_for_each(|key| sender.send(key))
            });
        }
        write(ENTER);
        Some(Self { before, keys })
    }

    /// Draws lines, as many as fit.
    #[expect(clippy::unused_self, reason = "only an open screen is drawn on")]
    pub(super) fn draw(&self, lines: &[String]) {
        let rows =
            tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_row)).filter(|rows| *rows > 0).unwrap_or(24);
        let shown: Vec<String> = lines.iter().take(rows).map(|line| format!("{line}{CLEAR_LINE}")).collect();
        write(&format!("{HOME}{}{CLEAR_REST}", shown.join("\r\n")));
    }

    /// Waits so long; true when the view is left before that, by q, Ctrl-C or a signal.
    pub(super) async fn is_left_within(&mut self, time: Duration, signals: &mut Signals) -> bool {
        let end = tokio::time::sleep(time);
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return false,
                () = signals.recv() => return true,
                // q, Q, Ctrl-C. A closed channel never gives a key again.
                Some(key) = self.keys.recv() => if matches!(key, b'q' | b'Q' | 3) { return true },
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Keys come one by one, without an echo; what was set before. `None` when standard input is no terminal.
fn unbuffered_keys() -> Option<Termios> {
    let before = tcgetattr(stdin()).ok()?;
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
    tcsetattr(stdin(), OptionalActions::Now, &modes).ok()?;
    Some(before)
}

fn write(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The signals that end a live view in order, so that the terminal is given back.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// Needs a runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .into_iter()
            .map(signal)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    async fn recv(&mut self) {
        let signals = self.0.iter_mut().map(|signal| Box::pin(signal.recv()));
        futures_util::future::select_all(signals).await;
    }
}

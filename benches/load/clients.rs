//! The clients: so many connections in one thread, driven by epoll.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustls::ClientConfig;
use std::os::fd::{AsFd as _, AsRawFd as _};

use crate::answer::{Head, Reader};
use crate::meter::Meter;
use crate::plan::{Clients, End, Plan};
use crate::sessions::Session;
use crate::tally::Tally;
use crate::wire::Wire;

/// An answer that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Looks at the clock at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const CLOCK: Token = Token(usize::MAX);

pub(crate) struct Load<'a> {
    plan: &'a Plan,
    sessions: &'a mut [Session],
    tls: Option<Arc<ClientConfig>>,
    poll: Poll,
    seats: Vec<Seat>,
    /// Seats without a request under way, when there is a rate.
    idle: VecDeque<usize>,
    schedule: Option<Schedule>,
    next_session: usize,
    tally: Tally,
    buffer: Vec<u8>,
}

/// A place for one request at a time, and its connection while there is one.
#[derive(Default)]
struct Seat {
    wire: Option<Wire>,
    asking: Option<Asking>,
    reader: Reader,
}

struct Asking {
    session: usize,
    /// When it was sent, or with a rate: should have been.
    since: Instant,
    /// Bytes of the request that are written.
    written: usize,
}

/// Requests at a rate: each is due at its time, however the ones before it fare.
struct Schedule {
    timer: TimerFd,
    between: Duration,
    due: Instant,
}

impl<'a> Load<'a> {
    pub(crate) fn new(plan: &'a Plan, sessions: &'a mut [Session], tls: Option<Arc<ClientConfig>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let seats = (0..plan.connections).map(|_| Seat::default()).collect();
        let schedule = match plan.rate {
            None => None,
            Some(rate) => {
                let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
                poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), CLOCK, Interest::READABLE)?;
                Some(Schedule { timer, between: Duration::from_secs_f64(1.0 / rate), due: Instant::now() })
            }
        };
        let tally = Tally::default();
        let buffer = vec![0; 128 * 1024];
        Ok(Self { plan, sessions, tls, poll, seats, idle: VecDeque::new(), schedule, next_session: 0, tally, buffer })
    }

    /// Runs to the end of the plan.
    pub(crate) fn run(mut self) -> io::Result<serde_json::Value> {
        let mut events = Events::with_capacity(1024);
        let began = Instant::now();
        for seat in 0..self.seats.len() {
            self.free(seat);
        }
        self.go(&mut events, |load| began.elapsed() >= load.plan.warm)?;

        self.tally.reset();
        self.signal_frozen(Signal::SIGSTOP)?;
        let before = Meter::read(self.plan.process, self.plan.core);
        let began = Instant::now();
        let end = self.plan.end;
        self.go(&mut events, |load| match end {
            End::After(time) => began.elapsed() >= time,
            End::Answers(answers) => load.tally.answers >= answers,
        })?;
        let took = began.elapsed();
        let meter = Meter::read(self.plan.process, self.plan.core) - before;
        self.signal_frozen(Signal::SIGCONT)?;
        self.give_up_waiting();
        Ok(self.tally.json(took, meter))
    }

    fn signal_frozen(&self, signal: Signal) -> io::Result<()> {
        self.plan.frozen.map_or(Ok(()), |process| Ok(kill(process, signal)?))
    }

    fn go(&mut self, events: &mut Events, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !done(self) && !self.tally.failed() {
            self.send_due()?;
            match self.poll.poll(events, Some(LOOK_EVERY)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            if events.is_empty() {
                self.give_up_waiting();
            }
            for event in events.iter().filter(|event| event.token() != CLOCK) {
                self.attend(event.token().0, event);
                // A run of a given number of requests has exactly that many. After the warm-up every event counts: each is
                // reported once, and a seat whose event was skipped would wait for ever.
                if matches!(self.plan.end, End::Answers(_)) && done(self) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// An answer that has not come by now never will.
    fn give_up_waiting(&mut self) {
        for at in 0..self.seats.len() {
            if self.seats[at].asking.as_ref().is_some_and(|asking| asking.since.elapsed() >= PATIENCE) {
                self.fail(at, "timeout");
            }
        }
    }

    /// Sends the scheduled requests that are due, as far as seats are free, and sets the timer for the next.
    fn send_due(&mut self) -> io::Result<()> {
        while let Some(schedule) = &mut self.schedule {
            if self.idle.is_empty() {
                break;
            }
            let now = Instant::now();
            if schedule.due > now {
                let wait = TimeSpec::from_duration(schedule.due - now);
                schedule.timer.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty())?;
                break;
            }
            let due = schedule.due;
            schedule.due += schedule.between;
            if let Some(seat) = self.idle.pop_front() {
                self.ask(seat, due);
            }
        }
        Ok(())
    }

    /// The seat has no request: the next, at once or when its time comes.
    fn free(&mut self, seat: usize) {
        if self.schedule.is_some() {
            self.idle.push_back(seat);
        } else {
            self.ask(seat, Instant::now());
        }
    }

    fn ask(&mut self, at: usize, since: Instant) {
        let session = if self.plan.clients == Clients::ByAddress { at } else { self.next_session };
        self.next_session = (self.next_session + 1) % self.sessions.len();
        if self.seats[at].wire.is_none() {
            match self.connect(at, session) {
                Ok(wire) => self.seats[at].wire = Some(wire),
                Err(_) => return self.fail(at, "connect"),
            }
        }
        self.seats[at].asking = Some(Asking { session, since, written: 0 });
        if self.write(at).is_err() {
            self.fail(at, "write");
        }
    }

    fn connect(&mut self, at: usize, session: usize) -> io::Result<Wire> {
        let mut wire = Wire::connect(self.plan.address, self.sessions[session].address, self.tls.as_ref())?;
        self.poll.registry().register(wire.stream(), Token(at), Interest::READABLE | Interest::WRITABLE)?;
        Ok(wire)
    }

    /// Counts an error, and begins again with a new connection. The tally ends this before it goes deep.
    fn fail(&mut self, at: usize, kind: &'static str) {
        self.tally.error(kind);
        self.seats[at] = Seat::default();
        if !self.tally.failed() {
            self.free(at);
        }
    }

    fn write(&mut self, at: usize) -> io::Result<()> {
        let Seat { wire: Some(wire), asking, .. } = &mut self.seats[at] else { return Ok(()) };
        if let Some(asking) = asking {
            let request = &self.sessions[asking.session].request;
            while asking.written < request.len() {
                match wire.write(&request[asking.written..]) {
                    Ok(written) => asking.written += written,
                    // Also while the connection is coming about.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        wire.flush()
    }

    fn attend(&mut self, at: usize, event: &Event) {
        if event.is_writable() {
            let unfinished = self.seats[at].asking.as_ref().is_some_and(|asking| asking.written == 0);
            if (unfinished || self.plan.tls) && self.write(at).is_err() {
                return self.fail(at, "write");
            }
        }
        if event.is_readable() || event.is_error() {
            self.read(at, event.is_read_closed());
        }
    }

    fn read(&mut self, at: usize, closed: bool) {
        loop {
            let seat = &mut self.seats[at];
            let Some(wire) = &mut seat.wire else { return };
            let read = match wire.read(&mut self.buffer) {
                Ok(0) => return self.ended(at),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(at, "read"),
            };
            if seat.asking.is_none() {
                return self.fail(at, "unasked");
            }
            match seat.reader.take(&self.buffer[..read]) {
                Err(_) => return self.fail(at, "malformed"),
                Ok(Some(head)) => return self.answered(at, &head, closed),
                // A short read has emptied the socket (epoll(7)), but not what TLS may hold.
                Ok(None) if read < self.buffer.len() && !closed && !self.plan.tls => return,
                Ok(None) => {}
            }
        }
    }

    /// The other side has ended the connection: an error only when it owes an answer.
    fn ended(&mut self, at: usize) {
        if self.seats[at].asking.is_some() {
            self.fail(at, "closed");
        } else {
            self.seats[at].wire = None;
        }
    }

    fn answered(&mut self, at: usize, head: &Head, closed: bool) {
        let seat = &mut self.seats[at];
        let Some(asking) = seat.asking.take() else { return };
        if self.plan.close || head.closes || closed {
            seat.wire = None;
        }
        if head.status == 200 {
            let session = &mut self.sessions[asking.session];
            let home = match self.plan.clients {
                Clients::New => None,
                Clients::Returning(_) => session.server,
                Clients::ByAddress => Some(*session.server.get_or_insert(head.server.unwrap_or_default())),
            };
            let moved = home.is_some() && home != head.server;
            self.tally.answer(asking.since.elapsed(), moved, head.set_cookies > 0);
        } else {
            self.tally.error(if head.status >= 500 { "status 5xx" } else { "status" });
        }
        self.free(at);
    }
}

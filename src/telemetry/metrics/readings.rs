//! What gauges are set to at a scrape.

/// The gauges of one server, read at a scrape.
pub struct ServerReading<'a> {
    /// Name of its pool.
    pub pool: &'a str,
    /// Its name.
    pub server: &'a str,
    /// It accepts bound sessions now, and accepted the last connection.
    pub up: bool,
    /// `ready`, `drain` or `maint`.
    pub state: &'static str,
    /// The state of its circuit breaker; `None` without one.
    pub breaker: Option<&'static str>,
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that wait for it.
    pub queued: usize,
    /// Upgraded connections that are open.
    pub streams: usize,
    /// Its share of new sessions now.
    pub weight: f64,
    /// Sessions in the table that are bound to it.
    pub sessions: u64,
}

/// The gauges of one pool, read at a scrape.
pub struct PoolReading<'a> {
    /// Its name.
    pub pool: &'a str,
    /// The table has all of its sessions.
    pub complete: bool,
    /// Requests that wait for any server.
    pub queued: usize,
}

/// The gauges of the session table.
pub struct TableReading {
    /// Sessions in it.
    pub entries: usize,
    /// Its maximum of sessions.
    pub capacity: usize,
    /// Estimated memory.
    pub bytes: usize,
    /// Estimated memory of the sessions' handoff data.
    pub handoff_bytes: usize,
}

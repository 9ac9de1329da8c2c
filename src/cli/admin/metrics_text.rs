//! Reads the counters that `top` shows from `/metrics`.

use std::collections::HashMap;
use std::time::Duration;

/// A server: its pool and its name.
pub(super) type ServerName = (String, String);

/// The counters of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counters {
    responses: HashMap<ServerName, f64>,
    errors: HashMap<ServerName, f64>,
    moves: HashMap<ServerName, f64>,
}

/// What happened per second between two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    /// Responses of the server.
    pub(super) responses: f64,
    /// Those of class 5xx.
    pub(super) errors: f64,
    /// Sessions that left the server for another.
    pub(super) moves: f64,
}

impl Counters {
    /// From Prometheus' text format.
    pub(super) fn parse(text: &str) -> Self {
        let mut counters = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            let label = |wanted: &str| labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
            let server = |name: &str| Some((label("pool")?, label(name)?));
            match name {
                "homing_server_responses_total" => {
                    let Some(server) = server("server") else { continue };
                    if label("class").as_deref() == Some("5xx") {
                        *counters.errors.entry(server.clone()).or_default() += value;
                    }
                    *counters.responses.entry(server).or_default() += value;
                }
                "homing_server_moves_total" => {
                    let Some(server) = server("from") else { continue };
                    *counters.moves.entry(server).or_default() += value;
                }
                _ => {}
            }
        }
        counters
    }

    /// The rates of a server since an earlier reading.
    pub(super) fn rates(&self, earlier: &Self, server: &ServerName, elapsed: Duration) -> Rates {
        let rate = |now: &HashMap<ServerName, f64>, then: &HashMap<ServerName, f64>| {
            let now = now.get(server).copied().unwrap_or(0.0);
            let then = then.get(server).copied().unwrap_or(0.0);
            // A new process counts from 0.
            let grown = if now < then { now } else { now - then };
            grown / elapsed.as_secs_f64().max(0.001)
        };
        Rates {
            responses: rate(&self.responses, &earlier.responses),
            errors: rate(&self.errors, &earlier.errors),
            moves: rate(&self.moves, &earlier.moves),
        }
    }
}

type Labels = Vec<(String, String)>;

/// A line `name{label="value",…} number`.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (name, rest) = line.split_once('{').filter(|_| !line.starts_with('#'))?;
    let mut labels = Vec::new();
    let mut rest = rest;
    loop {
        if let Some(value) = rest.strip_prefix('}') {
            return Some((name, labels, value.split_whitespace().next()?.parse().ok()?));
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.push((label.to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

/// The value up to the closing quote, and the rest.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP homing_server_responses_total responses{}\n\
        homing_server_responses_total{class=\"2xx\",pool=\"web\",server=\"a\"} 100\n\
        homing_server_responses_total{class=\"5xx\",pool=\"web\",server=\"a\"} 20\n\
        homing_server_responses_total{class=\"2xx\",pool=\"web\",server=\"b\\\"}\\\\\"} 7\n\
        homing_server_moves_total{from=\"a\",pool=\"web\",to=\"b\"} 3\n\
        homing_server_moves_total{from=\"a\",pool=\"web\",to=\"c\"} 1\n\
        homing_table_entries 5\n";

    fn name(server: &str) -> ServerName {
        ("web".to_owned(), server.to_owned())
    }

    #[test]
    fn rates_are_the_growth_between_two_readings() {
        let later = Counters::parse(TEXT);
        let rates = later.rates(&Counters::default(), &name("a"), Duration::from_secs(2));
        assert_eq!(rates, Rates { responses: 60.0, errors: 10.0, moves: 2.0 });
        let quoted = later.rates(&Counters::default(), &name("b\"}\\"), Duration::from_secs(1));
        assert!((quoted.responses - 7.0).abs() < 1e-9, "{quoted:?}");
        let unknown = later.rates(&Counters::default(), &name("z"), Duration::from_secs(1));
        assert_eq!(unknown, Rates::default());
    }

    #[test]
    fn a_counter_that_began_again_has_grown_from_zero() {
        let before = Counters::parse("homing_server_responses_total{class=\"2xx\",pool=\"web\",server=\"a\"} 1000\n");
        let rates = Counters::parse(TEXT).rates(&before, &name("a"), Duration::from_secs(1));
        assert!((rates.responses - 120.0).abs() < 1e-9, "{rates:?}");
    }

    #[test]
    fn broken_lines_are_left_out() {
        for line in ["homing_server_responses_total{", "homing_server_responses_total{a=\"", "x{a=\"b\"}", "x{a=\"b\\"]
        {
            assert_eq!(Counters::parse(line), Counters::default(), "{line}");
        }
    }
}

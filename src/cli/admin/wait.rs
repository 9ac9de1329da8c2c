//! `server set --wait`: what each reading of a draining server means. Plain data, without a clock or a connection.

use std::time::Duration;

use serde_json::Value;

/// How long the proxy may be away, as while it restarts.
pub(super) const LONGEST_ABSENCE: Duration = Duration::from_secs(60);

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    /// How long at most.
    pub(super) timeout: Option<Duration>,
    /// Clients that have a token and have been silent do not count.
    pub(super) ignore_silent: bool,
}

/// A server, as the admin API shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reading {
    state: String,
    set_by: Option<String>,
    removed: bool,
    bound: Option<u64>,
    silent_until: Option<String>,
    empty: bool,
}

impl From<&Value> for Reading {
    fn from(server: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let drain = server.get("drain").filter(|drain| drain.is_object());
        let is = |value: Option<&Value>| value.and_then(Value::as_bool) == Some(true);
        Self {
            state: text(server.get("state")).unwrap_or_default(),
            set_by: text(server.pointer("/override/by")),
            removed: is(server.get("removed")),
            bound: drain.and_then(|drain| drain.get("bound")).and_then(Value::as_u64),
            silent_until: text(drain.and_then(|drain| drain.get("silent_until"))),
            empty: is(drain.and_then(|drain| drain.get("empty"))),
        }
    }
}

/// What was read.
#[derive(Debug, Clone)]
pub(super) enum Observation {
    /// The server.
    Server(Reading),
    /// The proxy has no such server.
    Missing,
    /// The proxy is away, for so long.
    Absent(Duration),
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The server is empty.
    Empty,
    /// Not yet; with the progress.
    Pending(String),
    /// It will not be empty by waiting, or the time is up; with the reason.
    Failed(String),
    /// The proxy is away for too long.
    Lost,
}

impl Wait {
    /// The meaning of what is seen now, after so long a time. `last` is the last reading of the server before.
    pub(super) fn judge(&self, seen: &Observation, last: Option<&Reading>, elapsed: Duration) -> Verdict {
        let verdict = match seen {
            Observation::Server(server) => self.judge_server(server),
            Observation::Missing if last.is_some_and(|last| last.removed) => Verdict::Empty,
            Observation::Missing => Verdict::Failed("the proxy has no such server any more".to_owned()),
            Observation::Absent(since) if *since >= LONGEST_ABSENCE => Verdict::Lost,
            Observation::Absent(_) => Verdict::Pending("the proxy cannot be reached".to_owned()),
        };
        match verdict {
            Verdict::Pending(progress) if self.timeout.is_some_and(|timeout| elapsed >= timeout) => {
                Verdict::Failed(format!("the time is up: {progress}"))
            }
            verdict => verdict,
        }
    }

    fn judge_server(&self, server: &Reading) -> Verdict {
        if server.state != "drain" {
            let by = server.set_by.as_ref().map(|by| format!(", set by {by}")).unwrap_or_default();
            return Verdict::Failed(format!("it does not drain any more: its state in force is {}{by}", server.state));
        }
        if server.empty || (self.ignore_silent && server.bound == Some(0)) {
            return Verdict::Empty;
        }
        let bound = match server.bound {
            None => "sessions are not counted yet".to_owned(),
            Some(1) => "1 session is bound".to_owned(),
            Some(bound) => format!("{bound} sessions are bound"),
        };
        let silent = server.silent_until.as_ref().filter(|_| !self.ignore_silent);
        let silent = silent.map(|until| format!(", silent clients may come back until {until}")).unwrap_or_default();
        Verdict::Pending(bound + &silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const PATIENT: Wait = Wait { timeout: None, ignore_silent: false };

    fn draining(bound: u64, silent_until: Option<&str>) -> Observation {
        let empty = bound == 0 && silent_until.is_none();
        let drain = json!({ "started": "2026-11-29T10:00:00Z", "deadline": null, "bound": bound,
                            "silent_until": silent_until, "empty": empty });
        Observation::Server(Reading::from(&json!({ "state": "drain", "removed": false, "drain": drain,
                                                   "override": { "state": "drain", "by": "local" } })))
    }

    fn in_state(state: &str, by: Option<&str>) -> Observation {
        let set = by.map(|by| json!({ "state": state, "by": by }));
        Observation::Server(Reading::from(&json!({ "state": state, "override": set, "drain": null })))
    }

    /// The verdicts on one reading a second, up to the one that ends the wait.
    fn walk(wait: Wait, seen: &[Observation]) -> Vec<Verdict> {
        let (mut verdicts, mut last) = (Vec::new(), None);
        for (second, seen) in (0..).zip(seen) {
            verdicts.push(wait.judge(seen, last.as_ref(), Duration::from_secs(second)));
            if let Observation::Server(reading) = seen {
                last = Some(reading.clone());
            }
            if !matches!(verdicts.last(), Some(Verdict::Pending(_))) {
                break;
            }
        }
        verdicts
    }

    fn pending(progress: &str) -> Verdict {
        Verdict::Pending(progress.to_owned())
    }

    #[test]
    fn a_wait_ends_when_the_last_session_has_left_and_no_silent_client_can_come_back() {
        let silent = Some("2026-11-29T10:30:00Z");
        let seen =
            [draining(2, silent), draining(1, silent), draining(0, silent), draining(0, None), draining(9, None)];
        let until = ", silent clients may come back until 2026-11-29T10:30:00Z";
        assert_eq!(
            walk(PATIENT, &seen),
            [
                pending(&format!("2 sessions are bound{until}")),
                pending(&format!("1 session is bound{until}")),
                pending(&format!("0 sessions are bound{until}")),
                Verdict::Empty,
            ]
        );
        let hasty = Wait { ignore_silent: true, ..PATIENT };
        assert_eq!(
            walk(hasty, &seen),
            [pending("2 sessions are bound"), pending("1 session is bound"), Verdict::Empty]
        );
    }

    #[test]
    fn a_wait_survives_a_restart_but_no_long_absence() {
        let away = |seconds| Observation::Absent(Duration::from_secs(seconds));
        let seen = [draining(1, None), away(0), away(1), draining(1, None), draining(0, None)];
        let verdicts = walk(PATIENT, &seen);
        assert_eq!(verdicts.len(), 5);
        assert_eq!(verdicts.last(), Some(&Verdict::Empty));
        assert_eq!(walk(PATIENT, &[draining(1, None), away(59), away(60)]).last(), Some(&Verdict::Lost));
    }

    #[test]
    fn a_wait_fails_when_another_state_is_in_force() {
        let seen = [draining(1, None), in_state("ready", None)];
        let failed = Verdict::Failed("it does not drain any more: its state in force is ready".to_owned());
        assert_eq!(walk(PATIENT, &seen).last(), Some(&failed), "as after a restart without state_file");
        let Some(Verdict::Failed(why)) = walk(PATIENT, &[draining(1, None), in_state("maint", Some("alice"))]).pop()
        else {
            panic!("maint ends the wait");
        };
        assert!(why.ends_with("maint, set by alice"), "{why}");
    }

    #[test]
    fn a_wait_fails_when_the_time_is_up() {
        let wait = Wait { timeout: Some(Duration::from_secs(2)), ignore_silent: false };
        let seen = [draining(3, None), draining(2, None), draining(2, None), draining(0, None)];
        let failed = Verdict::Failed("the time is up: 2 sessions are bound".to_owned());
        assert_eq!(walk(wait, &seen), [pending("3 sessions are bound"), pending("2 sessions are bound"), failed]);
        let empty_at_the_end = [draining(3, None), draining(2, None), draining(0, None)];
        assert_eq!(
            walk(wait, &empty_at_the_end).last(),
            Some(&Verdict::Empty),
            "empty is empty, even at the last moment"
        );
    }

    #[test]
    fn a_server_that_was_removed_from_the_file_is_empty_once_it_is_gone() {
        let removed = Observation::Server(Reading {
            state: "drain".to_owned(),
            removed: true,
            bound: Some(1),
            ..Reading::default()
        });
        assert_eq!(walk(PATIENT, &[removed, Observation::Missing]).last(), Some(&Verdict::Empty));
        let gone = walk(PATIENT, &[draining(1, None), Observation::Missing]).pop();
        assert!(matches!(gone, Some(Verdict::Failed(_))), "{gone:?}");
    }

    proptest! {
        #[test]
        fn a_server_with_bound_sessions_is_never_called_empty(
            counts in prop::collection::vec((0..3_u64, any::<bool>()), 1..20),
            ignore_silent: bool,
            timeout in prop::option::of(0..20_u64),
        ) {
            let wait = Wait { timeout: timeout.map(Duration::from_secs), ignore_silent };
            let seen: Vec<_> = counts.iter().map(|(bound, silent)| draining(*bound, silent.then_some("later"))).collect();
            let verdicts = walk(wait, &seen);
            for ((bound, silent), verdict) in counts.iter().zip(&verdicts) {
                let empty = *bound == 0 && (ignore_silent || !silent);
                prop_assert_eq!(empty, *verdict == Verdict::Empty);
            }
        }
    }
}

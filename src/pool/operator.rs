//! What an operator set for a server while the proxy runs: a layer over the file's values. Requests read it as one number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;

use crate::config::ServerState;
use crate::session::token::UnixMillis;

/// What was set for one server. At least one of state and weight is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// Its state; `None` = as in the file.
    pub state: Option<ServerState>,
    /// Its weight; `None` = as in the file.
    pub weight: Option<u16>,
    /// Name of the operator: of a token, or `local`.
    pub by: Arc<str>,
    /// When it was last changed.
    pub at: UnixMillis,
    /// When the state was set. A change of the weight does not start the clock of a drain again.
    pub state_at: UnixMillis,
}

/// A change of an override: `None` leaves a field as it is, `Some(None)` takes it back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patch {
    /// The state.
    pub state: Option<Option<ServerState>>,
    /// The weight.
    pub weight: Option<Option<u16>>,
}

impl Patch {
    /// Takes the whole override back.
    pub const CLEAR: Self = Self { state: Some(None), weight: Some(None) };

    /// What is set once `by` has made this change at `now`; `None` = nothing.
    pub fn apply(self, before: Option<&Override>, by: &str, now: UnixMillis) -> Option<Override> {
        let state_before = before.and_then(|before| before.state);
        let state = self.state.unwrap_or(state_before);
        let weight = self.weight.unwrap_or(before.and_then(|before| before.weight));
        if state.is_none() && weight.is_none() {
            return None;
        }
        let state_at = before.filter(|_| state == state_before).map_or(now, |before| before.state_at);
        Some(Override { state, weight, by: Arc::from(by), at: now, state_at })
    }
}

/// The override of one server, part of its live state.
#[derive(Default)]
pub(super) struct OperatorSettings {
    details: ArcSwapOption<Override>,
    /// State and weight as [`pack`] writes them. Read by every request that selects a server.
    packed: AtomicU32,
}

impl OperatorSettings {
    pub(super) fn state(&self) -> Option<ServerState> {
        match self.packed.load(Ordering::Acquire) & STATE {
            1 => Some(ServerState::Ready),
            2 => Some(ServerState::Drain),
            3 => Some(ServerState::Maint),
            _ => None,
        }
    }

    pub(super) fn weight(&self) -> Option<u16> {
        let packed = self.packed.load(Ordering::Acquire);
        (packed & HAS_WEIGHT != 0).then(|| u16::try_from(packed >> WEIGHT_SHIFT).unwrap_or(u16::MAX))
    }

    pub(super) fn details(&self) -> Option<Arc<Override>> {
        self.details.load_full()
    }

    pub(super) fn set(&self, details: Option<Override>) {
        let packed = details.as_ref().map_or(0, pack);
        self.details.store(details.map(Arc::new));
        self.packed.store(packed, Ordering::Release);
    }
}

const STATE: u32 = 0b11;
const HAS_WEIGHT: u32 = 0b100;
const WEIGHT_SHIFT: u32 = 16;

fn pack(details: &Override) -> u32 {
    let state = match details.state {
        None => 0,
        Some(ServerState::Ready) => 1,
        Some(ServerState::Drain) => 2,
        Some(ServerState::Maint) => 3,
    };
    state | details.weight.map_or(0, |weight| HAS_WEIGHT | u32::from(weight) << WEIGHT_SHIFT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);

    fn state() -> impl Strategy<Value = ServerState> {
        prop_oneof![Just(ServerState::Ready), Just(ServerState::Drain), Just(ServerState::Maint)]
    }

    proptest! {
        #[test]
        fn requests_read_what_was_set(
            state in proptest::option::of(state()),
            weight: Option<u16>,
        ) {
            let settings = OperatorSettings::default();
            let patch = Patch { state: Some(state), weight: Some(weight) };
            let expected = patch.apply(None, "ops", NOW);
            settings.set(expected.clone());
            prop_assert_eq!((settings.state(), settings.weight()), (state, weight));
            let details = settings.details();
            prop_assert_eq!(details.as_deref(), expected.as_ref());
            settings.set(None);
            prop_assert_eq!((settings.state(), settings.weight()), (None, None));
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_takes_back() {
        let drain = Patch { state: Some(Some(ServerState::Drain)), weight: None };
        let first = drain.apply(None, "ops", NOW).unwrap();
        assert_eq!((first.state, first.weight, &*first.by, first.at), (Some(ServerState::Drain), None, "ops", NOW));
        let later = UnixMillis(NOW.0 + 5_000);
        let weight = Patch { state: None, weight: Some(Some(7)) };
        let second = weight.apply(Some(&first), "eve", later).unwrap();
        assert_eq!((second.state, second.weight, &*second.by), (Some(ServerState::Drain), Some(7), "eve"));
        assert_eq!((second.at, second.state_at), (later, NOW), "the drain goes on");
        let no_state = Patch { state: Some(None), weight: None };
        assert_eq!(no_state.apply(Some(&second), "eve", later).unwrap().weight, Some(7));
        assert_eq!(no_state.apply(Some(&first), "eve", later), None, "nothing is left");
        assert_eq!(Patch::CLEAR.apply(Some(&second), "eve", later), None);
    }
}

//! The trace that a request belongs to: W3C Trace Context, level 1 (`traceparent`).
//!
//! A valid `traceparent` is passed on with the same trace and the proxy's own span as the parent. Any other begins a trace, and
//! then its `tracestate` is removed, since it belongs to a trace that cannot be read.

/// The field that names the trace and the span of the sender.
pub const TRACEPARENT: &str = "traceparent";
/// The field in which the systems that take part keep data of their own.
pub const TRACESTATE: &str = "tracestate";

/// The length of a `traceparent` of version 00.
pub const LENGTH: usize = 55;

/// The place of a request in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zeros.
    pub trace_id: [u8; 16],
    /// The proxy's span; never all zeros.
    pub span_id: [u8; 8],
    /// The sender's span; `None` = the trace begins here.
    pub parent: Option<[u8; 8]>,
    /// The trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The context of a request with this `traceparent`, if it is valid. `span` is a random number.
    pub fn continued(traceparent: &[u8], span: u64) -> Option<Self> {
        let parts = Parts::of(traceparent)?;
        let mut trace_id = [0; 16];
        let mut parent = [0; 8];
        let mut flags = [0; 1];
        decode(parts.trace_id, &mut trace_id)?;
        decode(parts.parent, &mut parent)?;
        decode(parts.flags, &mut flags)?;
        if trace_id == [0; 16] || parent == [0; 8] {
            return None;
        }
        let [flags] = flags;
        Some(Self { trace_id, span_id: span_id(span), parent: Some(parent), sampled: flags & 1 == 1 })
    }

    /// The context of a request that begins a trace. `trace` and `span` are random numbers.
    pub fn begun(trace: u128, span: u64, sampling: Sampling) -> Self {
        let trace_id = trace.max(1).to_be_bytes();
        Self { trace_id, span_id: span_id(span), parent: None, sampled: sampling.selects(&trace_id) }
    }

    /// The `traceparent` that servers get.
    pub fn traceparent(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        encode(&self.trace_id, text.get_mut(3..35).unwrap_or_default());
        encode(&self.span_id, text.get_mut(36..52).unwrap_or_default());
        if self.sampled
            && let Some(last) = text.last_mut()
        {
            *last = b'1';
        }
        text
    }
}

/// Which of the traces that begin here are recorded: those whose number is below a bound, so that all proxies select the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sampling(u64);

impl Sampling {
    /// None.
    pub const NONE: Self = Self(0);

    /// This share of them, from 0 to 1.
    pub fn of(share: f64) -> Self {
        // 2^63 is exact, and a product above it is cut off.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^63")]
        Self((share.clamp(0.0, 1.0) * 9_223_372_036_854_775_808.0) as u64)
    }

    /// As OpenTelemetry's samplers by ratio do, by the last 63 bits.
    fn selects(self, trace_id: &[u8; 16]) -> bool {
        let number = u128::from_be_bytes(*trace_id) & u128::from(u64::MAX >> 1);
        number < u128::from(self.0)
    }
}

fn span_id(random: u64) -> [u8; 8] {
    random.max(1).to_be_bytes()
}

/// The fields of a `traceparent`, not yet decoded.
struct Parts<'a> {
    trace_id: &'a [u8],
    parent: &'a [u8],
    flags: &'a [u8],
}

impl<'a> Parts<'a> {
    /// A later version may have more behind the flags; what is before them stays as it is in version 00.
    fn of(text: &'a [u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let (version, head) = head.split_at_checked(2)?;
        let mut number = [0; 1];
        decode(version, &mut number)?;
        let is_known = match number {
            [0] => rest.is_empty(),
            [0xff] => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let (trace_id, head) = head.strip_prefix(b"-")?.split_at_checked(32)?;
        let (parent, head) = head.strip_prefix(b"-")?.split_at_checked(16)?;
        let flags = head.strip_prefix(b"-")?;
        is_known.then_some(Self { trace_id, parent, flags })
    }
}

/// The digits of a lower-case hexadecimal number; `None` for anything else.
fn decode(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != bytes.len() {
        return None;
    }
    for ([high, low], byte) in pairs.iter().zip(bytes) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(())
}

/// Writes bytes as lower-case hexadecimal digits, two for each.
pub fn encode(bytes: &[u8], text: &mut [u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let (pairs, _) = text.as_chunks_mut::<2>();
    for (byte, pair) in bytes.iter().zip(pairs) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn continued(text: &str) -> Option<TraceContext> {
        TraceContext::continued(text.as_bytes(), 7)
    }

    fn text(context: TraceContext) -> String {
        String::from_utf8(context.traceparent().to_vec()).unwrap()
    }

    #[test]
    fn a_valid_traceparent_keeps_its_trace_and_gets_a_new_parent() {
        let context = continued(VALID).unwrap();
        assert_eq!(context.parent, Some([0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 2, 0xb7]));
        assert_eq!(text(context), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
    }

    #[test]
    fn flags_that_are_not_known_are_not_passed_on() {
        for (flags, sent) in [("00", "00"), ("02", "00"), ("03", "01"), ("ff", "01")] {
            let context = continued(&VALID.replace("-01", &format!("-{flags}"))).unwrap();
            assert!(text(context).ends_with(sent), "{flags}");
        }
    }

    #[test]
    fn a_later_version_is_read_and_answered_in_version_00() {
        for later in [VALID.replacen("00", "cc", 1), VALID.replacen("00", "01", 1) + "-more"] {
            assert!(text(continued(&later).unwrap()).starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{later}");
        }
    }

    #[test]
    fn what_the_standard_calls_invalid_begins_a_trace() {
        for (invalid, why) in [
            (VALID.replacen("00", "ff", 1), "the version that is forbidden"),
            (VALID.to_owned() + "-more", "more than version 00 has"),
            (VALID.replacen("00", "01", 1) + ".more", "more, without a hyphen before"),
            (VALID.to_uppercase(), "upper case"),
            (VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), "no trace"),
            (VALID.replace("00f067aa0ba902b7", &"0".repeat(16)), "no parent"),
            (VALID.replace('-', "_"), "other separators"),
            (VALID.replace("-01", "-0x"), "no number"),
            (VALID.trim_end_matches('1').to_owned(), "short"),
            (String::new(), "empty"),
        ] {
            assert_eq!(continued(&invalid), None, "{why}: {invalid}");
        }
    }

    #[test]
    fn a_share_of_the_traces_that_begin_here_is_recorded() {
        let recorded = |share| {
            let numbers = (0..10_000_u128).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            numbers.filter(|n| TraceContext::begun(*n, 1, Sampling::of(share)).sampled).count()
        };
        assert_eq!((recorded(0.0), recorded(1.0)), (0, 10_000));
        let tenth = recorded(0.1);
        assert!((900..1100).contains(&tenth), "{tenth}");
        assert!(!TraceContext::begun(u128::MAX, 1, Sampling::NONE).sampled);
        assert!(TraceContext::begun(u128::MAX, 1, Sampling::of(1.0)).sampled);
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_again(trace: u128, span: u64, next: u64, share in 0.0..=1.0) {
            let begun = TraceContext::begun(trace, span, Sampling::of(share));
            let read = TraceContext::continued(&begun.traceparent(), next).unwrap();
            prop_assert_eq!(read.trace_id, begun.trace_id);
            prop_assert_eq!(read.parent, Some(begun.span_id));
            prop_assert_eq!(read.sampled, begun.sampled);
        }

        #[test]
        fn no_text_is_read_as_anything_but_what_it_says(text in "[0-9a-f-]{50,60}") {
            if let Some(context) = continued(&text) {
                let mut sent = context.traceparent();
                encode(&context.parent.unwrap_or_default(), &mut sent[36..52]);
                prop_assert_eq!(&sent[2..53], &text.as_bytes()[2..53]);
            }
        }
    }
}

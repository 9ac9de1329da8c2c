//! When a certificate is renewed, and when an order that failed is tried again. Times are seconds since 1970.

use std::time::Duration;

use super::certificate::IssuedCertificate;

/// When a certificate is renewed unless its authority says otherwise: a third of its life is left, or up to a tenth of that
/// earlier, so that certificates of one day are not all renewed in one minute. `jitter` is from 0 to 1.
pub(super) fn renewal(certificate: &IssuedCertificate, jitter: f64) -> f64 {
    let third = life(certificate) / 3.0;
    seconds(certificate.not_after) - third - third / 10.0 * jitter
}

/// When a certificate is renewed in a window that its authority suggests (RFC 9773): at a random time in it, in time before it expires.
pub(super) fn renewal_in(window: (f64, f64), certificate: &IssuedCertificate, jitter: f64) -> f64 {
    let (start, end) = window;
    let chosen = start + (end - start).max(0.0) * jitter;
    chosen.min(seconds(certificate.not_after) - life(certificate) / 6.0)
}

fn life(certificate: &IssuedCertificate) -> f64 {
    seconds(certificate.not_after - certificate.not_before).max(0.0)
}

/// Seconds since 1970 fit into 53 bits.
fn seconds(seconds: i64) -> f64 {
    seconds as f64
}

/// The pause after an order that the authority refused, or whose challenge failed: authorities count failures, Let's Encrypt
/// five an hour.
pub(super) fn pause_after_refusal(failures: u32, jitter: f64) -> Duration {
    pause(Duration::from_secs(120), 3, failures, Duration::from_secs(6 * 60 * 60), jitter)
}

/// The pause when nothing was refused: the authority could not be reached.
pub(super) fn pause_when_unreachable(failures: u32, jitter: f64) -> Duration {
    pause(Duration::from_secs(5), 2, failures, Duration::from_secs(10 * 60), jitter)
}

/// Grows with each failure, up to the longest; up to a tenth longer.
fn pause(first: Duration, factor: u32, failures: u32, longest: Duration, jitter: f64) -> Duration {
    let grown = first.saturating_mul(factor.saturating_pow(failures.saturating_sub(1)));
    grown.min(longest).mul_f64(1.0 + jitter / 10.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::certificate::tests::pem;
    use super::*;

    fn certificate(not_before: i64, not_after: i64) -> IssuedCertificate {
        IssuedCertificate { not_before, not_after, ..IssuedCertificate::parse("a.example", &pem("a.example")).unwrap() }
    }

    #[test]
    fn a_certificate_of_ninety_days_is_renewed_when_thirty_are_left_or_up_to_three_days_earlier() {
        let day = 86_400.0;
        let of_ninety_days = certificate(0, 90 * 86_400);
        assert!((renewal(&of_ninety_days, 0.0) - 60.0 * day).abs() < 1.0);
        assert!((renewal(&of_ninety_days, 1.0) - 57.0 * day).abs() < 1.0);
    }

    #[test]
    fn a_failing_order_is_tried_at_most_four_times_in_the_first_hour() {
        let mut elapsed = Duration::ZERO;
        let mut tries = 1;
        for failures in 1.. {
            elapsed += pause_after_refusal(failures, 0.0);
            if elapsed > Duration::from_secs(3600) {
                break;
            }
            tries += 1;
        }
        assert_eq!(tries, 4);
    }

    proptest! {
        #[test]
        fn a_renewal_is_within_the_life_of_its_certificate(life in 1..10_000_000_i64, jitter in 0.0..1.0, start: i32, length: u16) {
            let certificate = certificate(1_000, 1_000 + life);
            let (start, end) = (f64::from(start), f64::from(start) + f64::from(length));
            let usual = renewal(&certificate, jitter);
            prop_assert!(usual >= 1_000.0 && usual < seconds(certificate.not_after), "{usual}");
            let suggested = renewal_in((start, end), &certificate, jitter);
            prop_assert!(suggested <= end && suggested < seconds(certificate.not_after), "{suggested}");
        }

        #[test]
        fn pauses_grow_to_a_limit(failures in 1..u32::MAX, jitter in 0.0..1.0) {
            prop_assert!(pause_after_refusal(failures, jitter) <= Duration::from_secs(6 * 66 * 60));
            prop_assert!(pause_when_unreachable(failures, jitter) <= Duration::from_secs(11 * 60));
            let next = failures.saturating_add(1);
            prop_assert!(pause_after_refusal(next, jitter) >= pause_after_refusal(failures, jitter));
        }
    }
}

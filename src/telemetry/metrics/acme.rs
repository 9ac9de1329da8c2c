//! Orders of certificates by ACME.

use prometheus::IntCounterVec;
use strum::{IntoStaticStr, VariantNames};

use super::registrar::Registrar;

/// `result` of `homing_acme_orders_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum AcmeResult {
    /// A certificate was issued.
    Success,
    /// None was.
    Failure,
    /// The authority limits the rate of orders.
    RateLimited,
}

/// The counters of orders.
pub struct AcmeMetrics {
    orders: IntCounterVec,
}

impl AcmeMetrics {
    pub(super) fn new(make: &Registrar) -> prometheus::Result<Self> {
        let orders = make.counters(
            "homing_acme_orders_total",
            "Certificates that were ordered by ACME, by host and result.",
            &["host", "result"],
        )?;
        Ok(Self { orders })
    }

    /// Counts an order.
    pub fn count(&self, host: &str, result: AcmeResult) {
        self.orders.with_label_values(&[host, result.into()]).inc();
    }

    /// All results of a host exist from the start, so that a rate over them never lacks its first step.
    pub fn begin(&self, host: &str) {
        for result in AcmeResult::VARIANTS {
            self.orders.with_label_values(&[host, result]);
        }
    }

    /// The host is gone from the configuration.
    pub fn end(&self, host: &str) {
        for result in AcmeResult::VARIANTS {
            // An error means that there is no such series.
            let _ = self.orders.remove_label_values(&[host, result]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_names() {
        assert_eq!(AcmeResult::VARIANTS, ["success", "failure", "rate_limited"]);
    }
}

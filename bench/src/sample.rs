//! The figures of one workload on one server.

use crate::stats::Latency;
use crate::window::Usage;

/// Result of a workload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// The compared figure: µs of the server's CPU per operation, or bytes per reader.
    pub(crate) cost: Option<f64>,
    pub(crate) operations: u64,
    pub(crate) per_second: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) disturbed: f64,
    pub(crate) answer_bytes: usize,
    /// Further figures of the workload.
    pub(crate) extra: Vec<(&'static str, f64)>,
}

impl Sample {
    pub(crate) fn new(usage: Usage, operations: u64) -> Self {
        let redis = usage.redis_ns.map(|ns| ("redis_us", ns as f64 / 1e3 / operations as f64));
        Self {
            extra: redis.into_iter().collect(),
            cost: usage.server_ns.map(|ns| ns as f64 / 1e3 / operations as f64),
            operations,
            per_second: operations as f64 / usage.wall.as_secs_f64(),
            disturbed: usage.disturbed,
            ..Self::default()
        }
    }

    /// Returns a further figure.
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        self.extra.iter().find(|(other, _)| *other == name).map(|(_, figure)| *figure)
    }
}

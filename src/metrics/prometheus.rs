//! Text format of Prometheus, version 0.0.4: metric families, each with `# HELP`, `# TYPE` and
//! samples.

use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

use super::histogram::Histogram;

/// Type of a metric.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// A number that only rises, except at a restart.
    Counter,
    /// A number that rises and falls.
    Gauge,
    /// Counts of durations in buckets.
    Histogram,
}

/// Time in seconds, exact to the nanosecond. Formatting floating-point numbers would add 20 KiB of
/// code.
pub(super) struct Seconds(pub(super) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!(".{:09}", self.0.subsec_nanos());
        write!(f, "{}{}", self.0.as_secs(), fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Page that is being written.
pub(super) struct Page<'o>(pub(super) &'o mut Vec<u8>);

/// Metric family: the samples of one name.
pub(super) struct MetricFamily<'p, 'o> {
    page: &'p mut Page<'o>,
    name: &'static str,
}

impl<'o> Page<'o> {
    /// Begins a family. Its name is on the page even without samples.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
    ) -> MetricFamily<'_, 'o> {
        debug_assert!(!help.contains(['\\', '\n']), "a help text needs no escapes");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        MetricFamily { page: self, name }
    }

    /// Appends a gauge without labels.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(value);
    }

    /// Appends a counter without labels.
    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).sample(value);
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a Vec takes everything");
    }
}

impl MetricFamily<'_, '_> {
    /// Appends a sample without labels.
    pub(super) fn sample(&mut self, value: impl Display) {
        self.page.line(format_args!("{} {value}", self.name));
    }

    /// Appends a sample with labels. Values of labels are our own words, which need no escapes.
    pub(super) fn labelled_sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, its_value)| format!("{label}=\"{its_value}\"")).collect();
        self.page.line(format_args!("{}{{{}}} {value}", self.name, labels.join(",")));
    }

    /// Appends the samples of a histogram of durations: for each bound the number of durations that
    /// were no longer, then their count and sum.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        let (name, count, sum) = (self.name, histogram.count(), histogram.sum());
        for (bound, count) in histogram.buckets() {
            self.page.line(format_args!("{name}_bucket{{le=\"{}\"}} {count}", Seconds(bound)));
        }
        self.page.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.page.line(format_args!("{name}_sum {}", Seconds(sum)));
        self.page.line(format_args!("{name}_count {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_text_format_of_prometheus() {
        let mut out = Vec::new();
        let mut page = Page(&mut out);
        page.gauge("a", "How many.", 7);
        page.family("b_total", Kind::Counter, "None yet.");
        let mut family = page.family("c_total", Kind::Counter, "Labelled.");
        family.labelled_sample(&[("by", &"x")], 1);
        family.labelled_sample(&[("by", &"x"), ("status", &200)], 2);
        let mut histogram = Histogram::default();
        for millis in [0, 900, 1_600] {
            histogram.add(millis * 1_000_000);
        }
        page.family("d_seconds", Kind::Histogram, "Times.").histogram(&histogram);
        let expected = "\
            # HELP a How many.\n# TYPE a gauge\na 7\n\
            # HELP b_total None yet.\n# TYPE b_total counter\n\
            # HELP c_total Labelled.\n# TYPE c_total counter\n\
            c_total{by=\"x\"} 1\nc_total{by=\"x\",status=\"200\"} 2\n\
            # HELP d_seconds Times.\n# TYPE d_seconds histogram\n\
            d_seconds_bucket{le=\"0.00001\"} 1\nd_seconds_bucket{le=\"0.00003\"} 1\n";
        let text = str::from_utf8(&out).unwrap();
        assert!(text.starts_with(expected), "{text}");
        let end = "\
            d_seconds_bucket{le=\"0.3\"} 1\nd_seconds_bucket{le=\"1\"} 2\n\
            d_seconds_bucket{le=\"+Inf\"} 3\nd_seconds_sum 2.5\nd_seconds_count 3\n";
        assert!(text.ends_with(end), "{text}");
    }
}

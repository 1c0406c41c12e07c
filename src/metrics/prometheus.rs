//! The text format of Prometheus, version 0.0.4: families of samples, each behind its `# HELP` and `# TYPE`.

use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

/// What a number means over time.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It only rises, but for a restart.
    Counter,
    /// It rises and falls.
    Gauge,
    Histogram,
}

/// A time in seconds, exact to the nanosecond. Floating-point numbers would bring 20 KiB of code to write them.
pub(super) struct Seconds(pub(super) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!(".{:09}", self.0.subsec_nanos());
        write!(f, "{}{}", self.0.as_secs(), fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// A page in the making.
pub(super) struct Page<'o>(pub(super) &'o mut Vec<u8>);

/// The samples of one name.
pub(super) struct MetricFamily<'e, 'o> {
    page: &'e mut Page<'o>,
    name: &'static str,
}

impl<'o> Page<'o> {
    /// Begins the samples of a name. It stands there also if there are none yet.
    pub(super) fn family(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
    ) -> MetricFamily<'_, 'o> {
        debug_assert!(!help.contains(['\\', '\n']), "help is not escaped here");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        MetricFamily { page: self, name }
    }

    /// A number that rises and falls.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(value);
    }

    /// A number that only rises.
    pub(super) fn counter(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Counter, help).sample(value);
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a Vec takes everything");
    }
}

impl MetricFamily<'_, '_> {
    /// A sample without labels.
    pub(super) fn sample(&mut self, value: impl Display) {
        self.page.line(format_args!("{} {value}", self.name));
    }

    /// A sample under one value of a label; `value_of_label` is a word of ours, which needs no escapes.
    pub(super) fn labelled(&mut self, label: &str, value_of_label: &str, value: impl Display) {
        self.page.line(format_args!("{}{{{label}=\"{value_of_label}\"}} {value}", self.name));
    }

    /// A sample under the values of two labels, likewise.
    pub(super) fn labelled_twice(
        &mut self,
        [one, other]: [(&str, &dyn Display); 2],
        value: impl Display,
    ) {
        let ((one, its), (other, others)) = (one, other);
        self.page
            .line(format_args!("{}{{{one}=\"{its}\",{other}=\"{others}\"}} {value}", self.name));
    }

    /// The whole of a histogram of times: how many were no longer than each bound, how many there were, and their sum.
    pub(super) fn histogram(
        &mut self,
        buckets: impl Iterator<Item = (Duration, u64)>,
        count: u64,
        sum: Duration,
    ) {
        let name = self.name;
        for (bound, count) in buckets {
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
    fn a_page_reads_as_the_format_wants_it() {
        let mut out = Vec::new();
        let mut page = Page(&mut out);
        page.gauge("a", "How many.", 7);
        page.family("b_total", Kind::Counter, "None yet.");
        let mut family = page.family("c_total", Kind::Counter, "Labelled.");
        family.labelled("by", "x", 1);
        family.labelled_twice([("by", &"x"), ("status", &200)], 2);
        let buckets = [(Duration::from_micros(10), 1), (Duration::from_secs(1), 2)];
        page.family("d_seconds", Kind::Histogram, "Times.").histogram(
            buckets.into_iter(),
            3,
            Duration::from_millis(2_500),
        );
        let expected = "\
            # HELP a How many.\n# TYPE a gauge\na 7\n\
            # HELP b_total None yet.\n# TYPE b_total counter\n\
            # HELP c_total Labelled.\n# TYPE c_total counter\nc_total{by=\"x\"} 1\nc_total{by=\"x\",status=\"200\"} 2\n\
            # HELP d_seconds Times.\n# TYPE d_seconds histogram\n\
            d_seconds_bucket{le=\"0.00001\"} 1\nd_seconds_bucket{le=\"1\"} 2\nd_seconds_bucket{le=\"+Inf\"} 3\n\
            d_seconds_sum 2.5\nd_seconds_count 3\n";
        assert_eq!(str::from_utf8(&out), Ok(expected));
    }
}

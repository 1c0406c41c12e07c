//! How requests were answered, in plain numbers.

use super::route::{Call, Route};

/// What a request was about, as far as it is told apart: a log and a metric may say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Read,
    Write,
    Introduce,
    Goodbye,
    Members,
    Create,
    Health,
    ImageTest,
    /// One of the files, or `/` where there is no demo.
    File,
    /// `OPTIONS` of whatever there is.
    Preflight,
    /// It was answered before that was known, or there is nothing of that name.
    None,
}

/// The statuses that answers have: those of `ResponseHead`, and the one of a WebSocket.
const STATUSES: [u16; 17] =
    [200, 101, 204, 304, 400, 403, 404, 405, 408, 410, 413, 414, 429, 431, 501, 503, 505];

/// Counts of requests that were answered, by what they were about and how.
///
/// A long poll counts when it is answered, a stream when it begins, a frame of a WebSocket as the call that it is, and
/// an error of JSONP by the status that it names.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestStats([[u64; STATUSES.len()]; RequestKind::ALL.len()]);

impl RequestKind {
    const ALL: [Self; 11] = [
        Self::Read,
        Self::Write,
        Self::Introduce,
        Self::Goodbye,
        Self::Members,
        Self::Create,
        Self::Health,
        Self::ImageTest,
        Self::File,
        Self::Preflight,
        Self::None,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Introduce => "introduce",
            Self::Goodbye => "goodbye",
            Self::Members => "members",
            Self::Create => "create",
            Self::Health => "health",
            Self::ImageTest => "image-test",
            Self::File => "file",
            Self::Preflight => "preflight",
            Self::None => "none",
        }
    }
}

impl From<Call> for RequestKind {
    fn from(call: Call) -> Self {
        match call {
            Call::Read => Self::Read,
            Call::Write => Self::Write,
            Call::Introduce => Self::Introduce,
            Call::Goodbye => Self::Goodbye,
            Call::Members => Self::Members,
            Call::Create => Self::Create,
            Call::Health => Self::Health,
        }
    }
}

impl From<Route> for RequestKind {
    fn from(route: Route) -> Self {
        match route {
            Route::Call(call) => call.into(),
            Route::ImageTest => Self::ImageTest,
            Route::File(_) | Route::Root => Self::File,
            Route::Asterisk => Self::None,
        }
    }
}

impl RequestStats {
    /// Those that were answered, with their call, status and count; only what there was.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        RequestKind::ALL.into_iter().zip(&self.0).flat_map(|(subject, counts)| {
            let counts = STATUSES.iter().zip(counts).filter(|(_, count)| **count > 0);
            counts.map(move |(status, count)| (subject.name(), *status, *count))
        })
    }

    #[inline]
    pub(super) fn count(&mut self, subject: RequestKind, status: u16) {
        // Nearly always.
        let place = if status == STATUSES[0] { 0 } else { index_of(status) };
        self.0[subject as usize][place] += 1;
    }
}

#[cold]
fn index_of(status: u16) -> usize {
    STATUSES.iter().position(|its| *its == status).expect("every status is listed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_and_status_has_a_count_of_its_own() {
        let mut requests = RequestStats::default();
        assert_eq!(requests.iter().count(), 0);
        for (times, subject) in RequestKind::ALL.into_iter().enumerate() {
            assert_eq!(subject as usize, times, "a place is that of its name");
            for status in STATUSES {
                (0..=times).for_each(|_| requests.count(subject, status));
            }
        }
        let counted: Vec<_> = requests.iter().collect();
        assert_eq!(counted.len(), RequestKind::ALL.len() * STATUSES.len());
        assert!(
            counted.contains(&("read", 503, 1)) && counted.contains(&("none", 101, 11)),
            "{counted:?}"
        );
    }
}

//! Counts of requests by kind and status.

use super::calls::Call;
use super::route::Route;

/// Kind of a request, for the log and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Call(Call),
    ImageTest,
    /// One of the files, or `/` without the demo.
    File,
    /// `OPTIONS` of any path.
    Preflight,
    /// A file of `--acme-challenges`.
    Challenge,
    /// Sent to https by `--redirect-https`, or rejected.
    Redirect,
    /// The request was not parsed, or its path is unknown.
    None,
}

/// Statuses of responses: those of `ResponseHead`, and 101 of a WebSocket.
const STATUSES: [u16; 19] =
    [200, 101, 204, 304, 308, 400, 403, 404, 405, 408, 410, 413, 414, 415, 429, 431, 501, 503, 505];

/// Kinds that are no calls, in the order in which metrics list them after the calls.
const OTHER_KINDS: [RequestKind; 6] = [
    RequestKind::ImageTest,
    RequestKind::File,
    RequestKind::Preflight,
    RequestKind::Challenge,
    RequestKind::Redirect,
    RequestKind::None,
];

const KINDS: usize = Call::ALL.len() + OTHER_KINDS.len();

/// Number of responses for each kind of request and status.
///
/// A long poll counts when its response is sent, a stream when it begins, and a frame of a
/// WebSocket as the call that it makes. An error of JSONP counts by the status in its body.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestStats([[u64; STATUSES.len()]; KINDS]);

impl RequestKind {
    fn all() -> impl Iterator<Item = Self> {
        Call::ALL.into_iter().map(Self::Call).chain(OTHER_KINDS)
    }

    fn index(self) -> usize {
        match self {
            Self::Call(call) => call as usize,
            Self::ImageTest => Call::ALL.len(),
            Self::File => Call::ALL.len() + 1,
            Self::Preflight => Call::ALL.len() + 2,
            Self::Challenge => Call::ALL.len() + 3,
            Self::Redirect => Call::ALL.len() + 4,
            Self::None => Call::ALL.len() + 5,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Call(call) => call.name(),
            Self::ImageTest => "image-test",
            Self::File => "file",
            Self::Preflight => "preflight",
            Self::Challenge => "acme-challenge",
            Self::Redirect => "redirect-https",
            Self::None => "none",
        }
    }
}

impl From<Call> for RequestKind {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
}

impl From<Route> for RequestKind {
    fn from(route: Route) -> Self {
        match route {
            Route::Call(call) => Self::Call(call),
            Route::ImageTest => Self::ImageTest,
            Route::File(_) => Self::File,
            Route::Asterisk => Self::None,
        }
    }
}

impl RequestStats {
    /// Returns kind, status and count of all responses that were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u16, u64)> {
        RequestKind::all().zip(&self.0).flat_map(|(kind, counts)| {
            let counts = STATUSES.iter().zip(counts).filter(|(_, count)| **count > 0);
            counts.map(move |(status, count)| (kind.name(), *status, *count))
        })
    }

    #[inline]
    pub(super) fn count(&mut self, kind: RequestKind, status: u16) {
        // Nearly all responses have the first status.
        let index = if status == STATUSES[0] { 0 } else { index_of(status) };
        self.0[kind.index()][index] += 1;
    }
}

#[cold]
fn index_of(status: u16) -> usize {
    STATUSES.iter().position(|listed| *listed == status).expect("every status is listed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_and_status_has_its_own_count() {
        let mut requests = RequestStats::default();
        assert_eq!(requests.iter().count(), 0);
        for (times, kind) in RequestKind::all().enumerate() {
            assert_eq!(kind.index(), times, "kinds are listed in the order of their indices");
            for status in STATUSES {
                (0..=times).for_each(|_| requests.count(kind, status));
            }
        }
        let counted: Vec<_> = requests.iter().collect();
        assert_eq!(counted.len(), KINDS * STATUSES.len());
        assert!(
            counted.contains(&("read", 503, 1)) && counted.contains(&("none", 101, 15)),
            "{counted:?}"
        );
    }
}

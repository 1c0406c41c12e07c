//! Requests from a stream of bytes, taken as the server takes them.

use speak::http::{self, Limits, Method, ParseError, Parsed, Persistence, Progress, Request};

/// Small, so that inputs reach them.
pub(crate) const LIMITS: Limits = Limits { head_bytes: 512, body_bytes: 256 };

/// All properties of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) persistence: Persistence,
    pub(crate) content_type: Option<Vec<u8>>,
    pub(crate) origin: Option<Vec<u8>>,
    pub(crate) flags: [bool; 3],
    /// The values of some fields, by name.
    pub(crate) fields: Vec<Vec<Vec<u8>>>,
    pub(crate) body: Vec<u8>,
}

/// Fields of which one is enough come first.
pub(crate) const FIELDS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "accept", "last-event-id", "x"];

impl Owned {
    fn of(request: &Request<'_>) -> Self {
        Self {
            method: request.method,
            path: request.path.to_owned(),
            query: request.query.to_owned(),
            persistence: request.persistence,
            content_type: request.content_type.map(<[u8]>::to_vec),
            origin: request.origin.map(<[u8]>::to_vec),
            flags: [request.accepts_event_stream, request.wants_websocket, request.is_cross_site],
            fields: FIELDS
                .iter()
                .map(|name| request.field(name).map(<[u8]>::to_vec).collect())
                .collect(),
            body: request.body.to_vec(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Its requests, each with the number of bytes that it had on the wire.
    pub(crate) requests: Vec<(Owned, usize)>,
    /// The error that ended the stream.
    pub(crate) reject: Option<ParseError>,
    /// Bytes after the last request, including empty lines.
    pub(crate) left: usize,
}

/// Way to parse: `Short` parses complete requests in one pass, as the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadCut {
    Short,
    Long,
}

/// Feeds the pieces one after another.
pub(crate) fn take_all(pieces: &[&[u8]], way: ReadCut) -> Outcome {
    let mut outcome = Outcome { requests: Vec::new(), reject: None, left: 0 };
    let (mut held, mut progress) = (Vec::new(), Progress::default());
    // Bytes since the last request, and those of them that are consumed.
    let (mut came, mut continues) = (0, 0);
    for (place, piece) in pieces.iter().enumerate() {
        held.extend_from_slice(piece);
        came += piece.len();
        loop {
            if progress == Progress::default() {
                let blank = http::leading_blank_lines(&held);
                held.drain(..blank);
            }
            if held.is_empty() {
                break;
            }
            let is_fresh = progress == Progress::default() && way == ReadCut::Short;
            let whole = if is_fresh { http::parse_complete(&held, &LIMITS) } else { None };
            let (owned, length) = match whole {
                Some((request, length)) => (Owned::of(&request), length),
                None => match http::parse(&mut held, &mut progress, &LIMITS) {
                    Ok(Parsed::Complete(request, length)) => (Owned::of(&request), length),
                    Ok(Parsed::Incomplete { wants_continue }) => {
                        continues += usize::from(wants_continue);
                        assert!(continues <= 1, "a body is asked for once");
                        break;
                    }
                    Err(reject) => {
                        outcome.reject = Some(reject);
                        outcome.left = came
                            + pieces[place + 1..].iter().map(|piece| piece.len()).sum::<usize>();
                        return outcome;
                    }
                },
            };
            held.drain(..length);
            outcome.requests.push((owned, came - held.len()));
            (came, continues) = (held.len(), 0);
        }
        progress.compact(&mut held);
    }
    outcome.left = came;
    // An incomplete head is rejected with its first piece, or when its end comes. This feeds the
    // end now.
    if matches!(progress, Progress::Head { .. }) {
        outcome.reject = http::parse(&mut held, &mut Progress::default(), &LIMITS).err();
    }
    outcome
}

//! Event streams (HTML, "Server-sent events"), which browsers read with `EventSource`.

/// `Content-Type` of an event stream.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// First line of a stream: if the stream is cut, the client reconnects after a second.
pub(crate) const RETRY: &[u8] = b"retry: 1000\n";

/// Framing of an event stream, by the version of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFraming {
    /// HTTP/1.1: each event is one chunk. Clients that read by blocks get each event at once.
    Chunked,
    /// HTTP/1.0, which has no chunks: the stream ends with its TCP connection.
    ToEnd,
}

impl EventFraming {
    /// Returns the header field of the framing, a whole line.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::Chunked => "Transfer-Encoding: chunked\r\n",
            Self::ToEnd => "",
        }
    }

    /// Turns the bytes of one event, from `start` to the end of `out`, into what is sent.
    pub(crate) fn end_event(self, out: &mut Vec<u8>, start: usize) {
        if self == Self::ToEnd {
            return;
        }
        let length = out.len() - start;
        let digits = (usize::BITS - length.leading_zeros()).div_ceil(4);
        for place in (0..digits).rev() {
            out.push(b"0123456789abcdef"[(length >> (4 * place)) & 15]);
        }
        out.extend_from_slice(b"\r\n");
        out[start..].rotate_left(length);
        out.extend_from_slice(b"\r\n");
    }

    /// Returns a heartbeat: an empty comment, so that no proxy closes the stream as idle. No empty
    /// line follows: some clients take a block without data for an event.
    pub(crate) fn heartbeat(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"2\r\n:\n\r\n",
            Self::ToEnd => b":\n",
        }
    }

    /// Returns the last bytes of a stream that the server ends.
    pub(crate) fn end_stream(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"0\r\n\r\n",
            Self::ToEnd => b"",
        }
    }
}

/// Returns whether `Accept` prefers an event stream to JSON.
///
/// The type must be listed, with a weight no lower than that of JSON. `*/*` asks for JSON.
pub(super) fn accepts_event_stream(accept: &[u8]) -> bool {
    let weight = |wanted: &[&[u8]]| {
        let ranges = accept.split(|byte| *byte == b',').map(MediaRange::parse);
        ranges
            .filter(|range| wanted.iter().any(|name| range.name.eq_ignore_ascii_case(name)))
            .map(|it| it.weight)
            .max()
    };
    let events = weight(&[EVENT_STREAM.as_bytes()]).unwrap_or(0);
    events > 0 && events >= weight(&[b"application/json"]).unwrap_or(0)
}

/// Range of media types in `Accept`.
struct MediaRange<'a> {
    name: &'a [u8],
    /// Weight in thousandths (RFC 9110, section 12.4.2).
    weight: u16,
}

impl<'a> MediaRange<'a> {
    fn parse(range: &'a [u8]) -> Self {
        let mut fields = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = fields.next().unwrap_or_default();
        let weight = fields
            .find_map(|field| field.strip_prefix(b"q=").or_else(|| field.strip_prefix(b"Q=")));
        Self { name, weight: weight.map_or(1000, parse_weight) }
    }
}

/// Parses a weight: `0.25` is 250. An invalid weight is 0.
fn parse_weight(weight: &[u8]) -> u16 {
    let (whole, fraction) = match weight {
        [whole] => (whole, [].as_slice()),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    let digits = fraction.iter().chain(b"000").take(3);
    let value = [whole].into_iter().chain(digits).try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(value * 10 + digit as u16)
    });
    value.unwrap_or(0).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_chunk_of_its_length() {
        for length in [1, 9, 15, 16, 255, 256, 4095, 65_536] {
            let event = "e".repeat(length);
            for (framing, expected) in [
                (EventFraming::Chunked, format!("before{length:x}\r\n{event}\r\n")),
                (EventFraming::ToEnd, format!("before{event}")),
            ] {
                let mut out = format!("before{event}").into_bytes();
                framing.end_event(&mut out, "before".len());
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    #[test]
    fn only_a_client_that_prefers_an_event_stream_gets_one() {
        let cases = [
            ("text/event-stream", true),
            ("Text/Event-Stream;charset=utf-8", true),
            ("application/json, text/event-stream", true),
            ("text/event-stream;q=0.5, */*", true),
            ("application/json;q=0.9, text/event-stream;q=0.8", false),
            ("application/json;q=0.25, text/event-stream;q=0.3", true),
            ("text/event-stream;q=1", true),
            ("text/event-stream;q=0", false),
            ("text/event-stream; q=0.000", false),
            ("text/event-stream;q=nonsense", false),
            // RFC 9110, section 12.4.2: at most three digits after the point.
            ("text/event-stream;q=0.999", true),
            ("text/event-stream;q=0.9999", false),
            ("text/event-streams", false),
            ("text/*", false),
            ("*/*", false),
            ("", false),
        ];
        for (accept, expected) in cases {
            assert_eq!(accepts_event_stream(accept.as_bytes()), expected, "{accept}");
        }
    }
}

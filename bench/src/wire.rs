//! The formats of each kind of server: its requests, and the content of its responses.
//!
//! Every field of a request has a fixed width. So a request is a template in which digits are
//! patched, and the baseline finds a room and a message at fixed places instead of parsing.

use serde_json::Value;

use support::incoming::Item;
use support::ws::ACCEPT;

pub(crate) use crate::dialect::{Dialect, Form};
use crate::peer_wire;
use crate::result::Result;

/// Length of every message. Its first eight bytes are its sequence number.
pub(crate) const MESSAGE_BYTES: usize = 64;

const SEQ_DIGITS: usize = 8;
const ROOM_DIGITS: usize = 5;

/// A plus is a space in a query, so the server has something to decode, as in production.
const FILLER: &[u8; MESSAGE_BYTES - SEQ_DIGITS] =
    b"+the+quick+brown+fox+jumps+over+the+lazy+dog,+and+again.";

/// Position of the room's digits in a long poll or the read of a stream.
pub(crate) const READ_ROOM_AT: usize = "GET /read?channel=b".len();
/// Position of the room's digits in a read with `timeout=0`.
pub(crate) const IMMEDIATE_ROOM_AT: usize = "GET /read?timeout=0&channel=b".len();
/// Position of the room's digits in a write.
pub(crate) const WRITE_ROOM_AT: usize = "GET /write?channel=b".len();
/// Position of the message in a write.
pub(crate) const WRITE_MESSAGE_AT: usize = WRITE_ROOM_AT + ROOM_DIGITS + "&message=".len();

/// Pong without a payload, masked with zeros.
pub(crate) const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

const CALLBACK_AT: usize = "GET /read?callback=cb".len();
const CALLBACK_DIGITS: usize = 5;
/// Position of the digits of the callback name in a JSONP body, after `/**/cb`.
const CALLBACK_IN_BODY_AT: usize = "/**/cb".len();

/// Position from which a reader continues.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Cursor {
    /// The first message.
    Start,
    NextId(u64),
    /// Cursor of nchan: the second of the last message, and the message's number in that second.
    Stamp {
        modified: String,
        etag: String,
    },
}

/// Content of the response to a read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Sequence numbers of the messages, in order.
    pub(crate) seqs: Vec<u32>,
    /// Id of the first message, if the server numbers messages.
    pub(crate) first_id: Option<u64>,
    pub(crate) cursor: Cursor,
}

/// One or several copies of a request, with the positions of their sequence numbers.
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    stride: usize,
    seq_at: usize,
}

impl Template {
    /// Puts a sequence number into the request at `index`.
    pub(crate) fn number(&mut self, index: usize, seq: u32) {
        let at = index * self.stride + self.seq_at;
        put_digits(&mut self.bytes[at..at + SEQ_DIGITS], seq);
    }
}

/// Returns the text of message `seq`.
pub(crate) fn message(seq: u32) -> [u8; MESSAGE_BYTES] {
    let mut text = [0; MESSAGE_BYTES];
    put_digits(&mut text[..SEQ_DIGITS], seq);
    text[SEQ_DIGITS..].copy_from_slice(FILLER);
    text
}

/// Writes `number` with leading zeros.
pub(crate) fn put_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Reads as many digits as `bytes` has.
pub(crate) fn digits(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum * 10 + u32::from(byte & 15))
}

/// Returns the room whose digits start at `at`.
pub(crate) fn room_at(request: &[u8], at: usize) -> usize {
    digits(&request[at..at + ROOM_DIGITS]) as usize
}

impl Dialect {
    /// Returns `copies` writes to a room, to be sent at once.
    pub(crate) fn write(self, room: u32, copies: usize) -> Template {
        let text = String::from_utf8_lossy(&message(0)).into_owned();
        let (one, seq_at) = match self {
            Dialect::Nchan => {
                let head = format!(
                    "POST /write?channel=b{room:05} HTTP/1.1\r\nHost: localhost\r\n\
                     Content-Length: {MESSAGE_BYTES}\r\n\r\n"
                );
                let seq_at = head.len();
                ((head + &text).into_bytes(), seq_at)
            }
            Dialect::Speak | Dialect::Fixed => {
                let target = format!("/write?channel=b{room:05}&message={text}");
                let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                (request.into_bytes(), WRITE_MESSAGE_AT)
            }
            Dialect::Ws | Dialect::SocketIo | Dialect::Pushpin => {
                let one = peer_wire::write(self, room, &text);
                let seq_at = memchr::memmem::find(&one, text.as_bytes());
                (one, seq_at.expect("a write has its text"))
            }
        };
        Template { stride: one.len(), seq_at, bytes: one.repeat(copies) }
    }

    /// Returns a read that waits for messages after `cursor`.
    pub(crate) fn poll(self, room: u32, cursor: &Cursor, form: Form) -> Vec<u8> {
        let callback = if form == Form::Jsonp { "callback=cb00000&" } else { "" };
        let (from_id, stamp) = match cursor {
            Cursor::Start if self == Dialect::Nchan => Default::default(),
            Cursor::Start => ("&from_id=1".to_owned(), String::new()),
            Cursor::NextId(id) => (format!("&from_id={id}"), String::new()),
            Cursor::Stamp { modified, etag } => {
                let stamp = format!("If-Modified-Since: {modified}\r\nIf-None-Match: {etag}\r\n");
                (String::new(), stamp)
            }
        };
        let headers = form.headers();
        let query = format!("{callback}channel=b{room:05}{from_id}");
        let target = match self {
            Dialect::SocketIo => "/socket.io/?EIO=4&transport=websocket".to_owned(),
            _ => format!("/read?{query}"),
        };
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{stamp}{headers}\r\n").into_bytes()
    }

    /// Returns `copies` reads that are answered at once.
    pub(crate) fn immediate_read(self, room: u32, from_id: u64, copies: usize) -> Vec<u8> {
        let query = match self {
            Dialect::Nchan => format!("channel=b{room:05}"),
            _ => {
                format!("timeout=0&channel=b{room:05}&from_id={from_id}")
            }
        };
        format!("GET /read?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes().repeat(copies)
    }

    /// Decodes the response to a read, or one item of a stream.
    pub(crate) fn decode(self, frame: &Item, form: Form) -> Result<Answer> {
        let status = if form.stays() { None } else { Some(200) };
        if frame.status != status {
            return Err(format!("a read was answered {}", frame.lossy()).into());
        }
        match (self, form) {
            (Dialect::Fixed, _) => Err("a fixed answer holds no messages".into()),
            (_, Form::Events) => self.decode_event(frame),
            (Dialect::Ws | Dialect::SocketIo | Dialect::Pushpin | Dialect::Nchan, Form::Frames) => {
                Answer::of_text(self.text_in_frame(frame)?, Cursor::Start)
            }
            (Dialect::Nchan, _) => decode_raw(frame),
            (Dialect::Ws | Dialect::SocketIo | Dialect::Pushpin, _) => {
                Err("this server is used with WebSockets only".into())
            }
            (Dialect::Speak, _) => decode_json(unwrapped(frame.body(), form)?),
        }
    }

    /// Decodes an event with a message. Other events have no message, or report lost messages.
    fn decode_event(self, frame: &Item) -> Result<Answer> {
        let wrong = || format!("not an event: {}", frame.lossy());
        let text = std::str::from_utf8(frame.body())?;
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let is_ready = match field("event") {
            Some(event) if event != "ready" => {
                return Err(format!("messages were lost: {text}").into());
            }
            event => event.is_some(),
        };
        let Some(data) = field("data").filter(|_| !is_ready) else {
            return Ok(Answer { seqs: Vec::new(), first_id: None, cursor: Cursor::Start });
        };
        if self == Dialect::Nchan {
            return Answer::of_text(data.as_bytes(), Cursor::Start);
        }
        let message: Value = serde_json::from_str(data)?;
        let id = message["id"].as_u64().ok_or_else(wrong)?;
        let cursor = field("id").and_then(|id| id.split_once(':')?.1.parse().ok());
        if cursor != Some(id + 1) {
            return Err(wrong().into());
        }
        let text = message["message"].as_str().ok_or_else(wrong)?;
        let answer = Answer::of_text(text.as_bytes(), Cursor::NextId(id + 1))?;
        Ok(Answer { first_id: Some(id), ..answer })
    }

    /// Returns the id that a write got, if the server returns one.
    pub(crate) fn written_id(self, frame: &Item) -> Result<Option<u64>> {
        let id = match self {
            Dialect::Nchan if matches!(frame.status, Some(201 | 202)) => return Ok(None),
            Dialect::Ws | Dialect::SocketIo | Dialect::Pushpin if self.acknowledges(frame) => {
                return Ok(None);
            }
            Dialect::Speak if frame.status == Some(200) => frame
                .body()
                .strip_prefix(b"{\"id\":")
                .and_then(|rest| rest.strip_suffix(b"}"))
                .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok()),
            _ => None,
        };
        let wrong = || format!("a write was answered {}", frame.lossy());
        Ok(Some(id.ok_or_else(wrong)?))
    }
}

impl Answer {
    /// Returns an answer with one message, known only by its text.
    fn of_text(text: &[u8], cursor: Cursor) -> Result<Self> {
        let seq = seq_of(text)
            .ok_or_else(|| format!("not a message of ours: {}", String::from_utf8_lossy(text)))?;
        Ok(Self { seqs: vec![seq], first_id: None, cursor })
    }
}

/// Checks the head of a stream.
pub(crate) fn check_opening(frame: &Item, form: Form) -> Result<()> {
    let head = frame.head()?;
    let kind = head.field("content-type").unwrap_or_default();
    let opens = match form {
        Form::Plain | Form::Jsonp => false,
        Form::Events => head.status == 200 && kind.starts_with("text/event-stream"),
        Form::Frames => head.status == 101 && head.field("sec-websocket-accept") == Some(ACCEPT),
    };
    if opens { Ok(()) } else { Err(format!("a stream was answered {}", frame.lossy()).into()) }
}

/// Names the reader in a JSONP poll.
pub(crate) fn put_callback(poll: &mut [u8], reader: u32) {
    put_digits(&mut poll[CALLBACK_AT..CALLBACK_AT + CALLBACK_DIGITS], reader);
}

/// Returns whether two JSONP responses differ only in the callback name, and `answer` has that of
/// `reader`.
pub(crate) fn same_but_for_callback(
    answer: &[u8],
    other: &[u8],
    head_bytes: usize,
    reader: u32,
) -> bool {
    let start = head_bytes + CALLBACK_IN_BODY_AT;
    let end = start + CALLBACK_DIGITS;
    answer.len() == other.len()
        && answer.len() > end
        && digits(&answer[start..end]) == reader
        && answer[..start] == other[..start]
        && answer[end..] == other[end..]
}

/// Takes the JSON out of `/**/cb00000(…);`.
fn unwrapped(body: &[u8], form: Form) -> Result<&[u8]> {
    if form != Form::Jsonp {
        return Ok(body);
    }
    body.get(CALLBACK_IN_BODY_AT + CALLBACK_DIGITS..)
        .filter(|_| body.starts_with(b"/**/cb"))
        .and_then(|rest| rest.strip_prefix(b"(")?.strip_suffix(b");"))
        .ok_or_else(|| format!("not JSONP: {}", String::from_utf8_lossy(body)).into())
}

fn decode_json(body: &[u8]) -> Result<Answer> {
    let wrong = || format!("not an answer: {}", String::from_utf8_lossy(body));
    let value: Value = serde_json::from_slice(body).map_err(|_| wrong())?;
    if value.get("missed").is_some() || value.get("reset").is_some() {
        return Err(format!("messages were lost: {value}").into());
    }
    let next_id = value["next_id"].as_u64().ok_or_else(wrong)?;
    let messages = value["messages"].as_array().ok_or_else(wrong)?;
    let mut seqs = Vec::with_capacity(messages.len());
    for (place, message) in messages.iter().enumerate() {
        let id = message["id"].as_u64().ok_or_else(wrong)?;
        if id + (messages.len() - place) as u64 != next_id {
            return Err(format!("ids have a gap: {value}").into());
        }
        let text = message["message"].as_str().ok_or_else(wrong)?;
        seqs.push(seq_of(text.as_bytes()).ok_or_else(wrong)?);
    }
    Ok(Answer {
        first_id: (!seqs.is_empty()).then(|| next_id - seqs.len() as u64),
        seqs,
        cursor: Cursor::NextId(next_id),
    })
}

fn decode_raw(frame: &Item) -> Result<Answer> {
    let wrong = || format!("not an answer of nchan: {}", frame.lossy());
    let head = frame.head()?;
    let modified = head.field("last-modified").ok_or_else(wrong)?;
    let etag = head.field("etag").ok_or_else(wrong)?;
    Answer::of_text(
        frame.body(),
        Cursor::Stamp { modified: modified.to_owned(), etag: etag.to_owned() },
    )
}

/// Returns the sequence number of a message, if the text is complete and written by this bench.
fn seq_of(text: &[u8]) -> Option<u32> {
    let (head, rest) = text.split_at_checked(SEQ_DIGITS)?;
    let space = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
    let whole = rest.iter().map(space).eq(FILLER.iter().map(space));
    (whole && head.iter().all(u8::is_ascii_digit)).then(|| digits(head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use support::http::Framing;
    use support::incoming::{Cutter, Mode};
    use support::ws::{TEXT, client_frame_with};

    fn framed(text: &str) -> Vec<u8> {
        format!(
            "HTTP/1.1 200 OK\r\nLast-Modified: now\r\nEtag: 3\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        )
        .into_bytes()
    }

    fn entry(id: u64, seq: u32) -> String {
        let text = String::from_utf8(message(seq).to_vec()).unwrap().replace('+', " ");
        format!(r#"{{"id":{id},"type":"message","time":1,"message":"{text}"}}"#)
    }

    #[test]
    fn a_write_carries_its_number_where_the_baseline_looks_for_it() {
        let mut write = Dialect::Speak.write(12, 2);
        write.number(1, 345);
        let second = &write.bytes[write.stride..];
        assert_eq!(room_at(second, WRITE_ROOM_AT), 12);
        let text = &second[WRITE_MESSAGE_AT..WRITE_MESSAGE_AT + MESSAGE_BYTES];
        assert_eq!(text, message(345));
    }

    #[test]
    fn reads_carry_their_room_where_the_baseline_looks_for_it() {
        let poll = Dialect::Speak.poll(77, &Cursor::NextId(5), Form::Plain);
        assert_eq!(room_at(&poll, READ_ROOM_AT), 77);
        let read = Dialect::Speak.immediate_read(78, 1, 1);
        assert_eq!(room_at(&read, IMMEDIATE_ROOM_AT), 78);
    }

    #[test]
    fn an_answer_with_a_gap_or_with_lost_messages_is_an_error() {
        let decode = |body: String| {
            let bytes = framed(&body);
            let frame = Cutter::default().next(&bytes).unwrap().unwrap();
            Dialect::Speak.decode(&frame, Form::Plain).map(|answer| (answer.seqs, answer.first_id))
        };
        let (one, two) = (entry(4, 9), entry(5, 8));
        let whole = format!(r#"{{"messages":[{one},{two}],"next_id":6,"epoch":"x"}}"#);
        assert_eq!(decode(whole).unwrap(), (vec![9, 8], Some(4)));
        let gap = format!(r#"{{"messages":[{one},{two}],"next_id":7,"epoch":"x"}}"#);
        assert!(decode(gap).is_err());
        let missed = format!(r#"{{"messages":[{two}],"next_id":6,"epoch":"x","missed":true}}"#);
        assert!(decode(missed).is_err());
        let cut = format!(r#"{{"messages":[{}],"next_id":6}}"#, two.replace("lazy", ""));
        assert!(decode(cut).is_err());
    }

    #[test]
    fn an_event_gives_its_message_and_a_gap_is_an_error() {
        let decode = |dialect: Dialect, text: &str| {
            let frame = Cutter::new(Mode::Events).next(text.as_bytes()).unwrap().unwrap();
            dialect.decode(&frame, Form::Events).map(|answer| (answer.seqs, answer.first_id))
        };
        let speak = |text: &str| decode(Dialect::Speak, text);
        let entry = entry(4, 9);
        assert_eq!(speak(&format!("id: e:5\ndata: {entry}\n\n")).unwrap(), (vec![9], Some(4)));
        let ready = "retry: 1000\nid: e:1\nevent: ready\ndata: {}\n\n";
        for silent in [ready, ":\n"] {
            assert_eq!(speak(silent).unwrap(), (vec![], None), "{silent}");
        }
        let cut = format!("id: e:5\ndata: {}\n\n", entry.replace("lazy", ""));
        let ahead = format!("id: e:6\ndata: {entry}\n\n");
        for wrong in ["event: missed\ndata: {}\n\n", cut.as_str(), ahead.as_str()] {
            assert!(speak(wrong).is_err(), "{wrong}");
        }
        let text = String::from_utf8(message(9).to_vec()).unwrap();
        let chunk = format!("{:x}\r\nid: e:5\ndata: {entry}\n\n\r\n", entry.len() + 16);
        let mut cutter = Cutter::of_events(Framing::Chunked);
        let frame = cutter.next(chunk.as_bytes()).unwrap().unwrap();
        assert_eq!(Dialect::Speak.decode(&frame, Form::Events).unwrap().seqs, [9]);
        let of_nchan = decode(Dialect::Nchan, &format!("id: 17:0\ndata: {text}\n\n"));
        assert_eq!(of_nchan.unwrap(), (vec![9], None));
    }

    #[test]
    fn a_frame_holds_what_an_answer_holds() {
        let json = format!(r#"{{"messages":[{}],"next_id":5,"epoch":"x"}}"#, entry(4, 9));
        let mut bytes = vec![0x81, 126, 0, json.len() as u8];
        bytes.extend_from_slice(json.as_bytes());
        let frame = Cutter::new(Mode::Frames).next(&bytes).unwrap().unwrap();
        let answer = Dialect::Speak.decode(&frame, Form::Frames).unwrap();
        assert_eq!((answer.seqs, answer.first_id), (vec![9], Some(4)));
    }

    #[test]
    fn an_answer_of_nchan_gives_message_and_cursor() {
        let bytes = framed(std::str::from_utf8(&message(31)).unwrap());
        let frame = Cutter::default().next(&bytes).unwrap().unwrap();
        let answer = Dialect::Nchan.decode(&frame, Form::Plain).unwrap();
        assert_eq!(answer.seqs, [31]);
        let poll = Dialect::Nchan.poll(1, &answer.cursor, Form::Plain);
        let poll = String::from_utf8(poll).unwrap();
        assert!(poll.contains("If-Modified-Since: now\r\nIf-None-Match: 3\r\n"));
    }

    #[test]
    fn a_jsonp_answer_must_name_its_own_reader() {
        let json = format!(r#"{{"messages":[{}],"next_id":2,"epoch":"x"}}"#, entry(1, 3));
        let answer = |name: u32| framed(&format!("/**/cb{name:05}({json});"));
        let (mine, other) = (answer(7), answer(9));
        let frame = Cutter::default().next(&mine).unwrap().unwrap();
        assert_eq!(Dialect::Speak.decode(&frame, Form::Jsonp).unwrap().seqs, [3]);
        let head = mine.len() - frame.body().len();
        assert!(same_but_for_callback(&mine, &other, head, 7));
        assert!(!same_but_for_callback(&mine, &other, head, 9));
    }

    /// Passes a frame with `text`, as a server sends it.
    fn with_frame<T>(text: &str, use_it: impl FnOnce(&Item) -> T) -> T {
        let mut bytes = client_frame_with(TEXT, text.as_bytes(), [0; 4]);
        bytes[1] &= 0x7f;
        bytes.drain(2..6);
        use_it(&Cutter::new(Mode::Frames).next(&bytes).unwrap().unwrap())
    }

    #[test]
    fn each_server_gives_the_text_of_a_message_and_nothing_else() {
        let text = String::from_utf8(message(5).to_vec()).unwrap();
        for (dialect, frame) in [
            (Dialect::Ws, text.clone()),
            (Dialect::Pushpin, text.clone()),
            (Dialect::SocketIo, format!(r#"42["message","{text}"]"#)),
        ] {
            let answer = with_frame(&frame, |item| dialect.decode(item, Form::Frames)).unwrap();
            assert_eq!(answer.seqs, [5]);
            let cut = frame.replace("lazy", "");
            assert!(with_frame(&cut, |item| dialect.decode(item, Form::Frames)).is_err());
        }
        assert!(with_frame("ok", |item| Dialect::Ws.written_id(item)).is_ok());
        assert!(with_frame("430[]", |item| Dialect::SocketIo.written_id(item)).is_ok());
        assert!(with_frame(&text, |item| Dialect::Ws.written_id(item)).is_err());
    }

    #[test]
    fn writes_carry_their_number() {
        for dialect in [Dialect::Ws, Dialect::SocketIo, Dialect::Pushpin] {
            let mut write = dialect.write(3, 1);
            write.number(0, 1234);
            let text = String::from_utf8_lossy(&write.bytes).into_owned();
            let message = String::from_utf8(message(1234).to_vec()).unwrap();
            assert!(text.contains(&message) && text.contains("b00003"), "{text}");
        }
    }
}

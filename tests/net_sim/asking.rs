//! What clients ask: requests of every kind and form, and what is to become of them.

use std::fmt::Write;

use crate::network::Segment;
use crate::peer::{Kind, Request, Since};
use crate::plan::Step;
use crate::world::World;

/// Base64 of any sixteen bytes.
pub(crate) const SOCKET_KEY: &str = "AAECAwQFBgcICQoLDA0ODw==";

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// A call before it has a form: its path, its parameters, and what is to come of it.
struct Call {
    name: &'static str,
    parameters: Vec<(&'static str, String)>,
    request: Request,
}

impl World {
    /// A client asks something. Returns what it sends.
    pub(crate) fn ask(&mut self, peer: usize, step: Step) -> Vec<u8> {
        let is_socket =
            self.peers[peer].following.as_ref().is_some_and(|following| following.is_frames);
        match step {
            Step::Nonsense if is_socket => self.speak_nonsense(peer),
            Step::Nonsense => self.nonsense(peer),
            Step::Lookup if !is_socket => self.lookup(peer),
            _ => {
                let step = if is_socket
                    && matches!(step, Step::Events | Step::Frames | Step::Poll | Step::ReadNow)
                {
                    Step::Write
                } else {
                    step
                };
                let call = self.call(peer, step);
                if is_socket { self.framed(peer, call) } else { self.dressed(peer, call) }
            }
        }
    }

    fn request(kind: Kind) -> Request {
        Request {
            kind,
            end: 0,
            text: None,
            channels: Vec::new(),
            since: Vec::new(),
            carries: None,
            closes: false,
            is_script: false,
            is_frame: false,
            arrived_at: None,
            waits_since: None,
            seen: Vec::new(),
        }
    }

    fn call(&mut self, peer: usize, step: Step) -> Call {
        let mut parameters = Vec::new();
        let channel = self.random.index(self.plan.channels);
        let carries = if self.random.once_in(2) || step == Step::Goodbye {
            self.any_connection()
        } else {
            None
        };
        let (name, kind) = match step {
            Step::ReadNow => ("read", Kind::ReadNow),
            Step::Poll => {
                let longest = self.plan.numbers.poll_timeout;
                let wait_s = self.random.pick(&[1, 3, 60]);
                parameters.push(("timeout", format!("{wait_s}")));
                ("read", Kind::Poll { wait_ms: (wait_s * 1000).min(longest) })
            }
            Step::Events => ("read", Kind::Events),
            Step::Frames => ("read", Kind::Frames),
            Step::Introduce => ("introduce", Kind::Introduce),
            Step::Goodbye if carries.is_some() && self.random.once_in(2) => {
                ("goodbye", Kind::GoodbyeToOne)
            }
            Step::Goodbye if carries.is_some() => ("goodbye", Kind::Goodbye),
            Step::Lookup => ("members", Kind::Plain(200)),
            _ => ("write", Kind::Write),
        };
        let mut request = Self::request(kind);
        request.channels = vec![channel];
        match kind {
            Kind::ReadNow | Kind::Poll { .. } | Kind::Events | Kind::Frames => {
                if kind == Kind::ReadNow {
                    parameters.push(("timeout", "0".to_owned()));
                }
                let several = 1 + self.random.index(self.plan.channels);
                if self.random.once_in(3) {
                    request.channels = self.random.places(self.plan.channels, several);
                }
                self.put_since(peer, &mut request, &mut parameters);
            }
            Kind::Write | Kind::Introduce => {
                let bytes = self.random.pick(&self.plan.message_bytes.clone());
                let (number, text) = self.ledger.new_text(bytes);
                request.text = Some(number);
                parameters.push(("message", text));
            }
            Kind::Goodbye => request.channels.clear(),
            _ => {}
        }
        for channel in &request.channels {
            parameters.push(("channel", format!("c{channel}")));
        }
        if let Some(place) = carries.filter(|_| name != "members") {
            let connection = &mut self.ledger.connections[place];
            parameters.push(("connection", connection.number.to_string()));
            parameters.push(("auth", connection.auth.clone()));
            request.carries = Some(place);
            match kind {
                Kind::Goodbye => connection.asked_to_leave = true,
                Kind::GoodbyeToOne => drop(connection.asked_to_leave_one.insert(channel)),
                _ => {}
            }
        }
        Call { name, parameters, request }
    }

    fn put_since(
        &mut self,
        peer: usize,
        request: &mut Request,
        parameters: &mut Vec<(&'static str, String)>,
    ) {
        let form = self.random.below(5);
        for channel in &request.channels {
            let cursor = self.peers[peer].cursors[*channel];
            let since = match form {
                0 => Since::Now,
                1 => Since::All,
                2 => Since::Last(1 + self.random.below(3)),
                _ if cursor == 0 => Since::All,
                3 => Since::Id(1 + self.random.below(cursor)),
                _ => Since::Id(cursor),
            };
            request.since.push(since);
            match since {
                Since::Now => {}
                Since::All => parameters.push(("from_id", "0".to_owned())),
                Since::Last(count) => parameters.push(("from_id", format!("-{count}"))),
                Since::Id(id) => parameters.push(("from_id", id.to_string())),
            }
        }
    }

    /// Somebody who is introduced, as far as anybody knows, or was.
    fn any_connection(&mut self) -> Option<usize> {
        let connections = &self.ledger.connections;
        if connections.is_empty() {
            return None;
        }
        // Those that came last are likelier to be there still; mostly it is one that is.
        let newest = connections.len().min(6);
        let last = connections.len() - 1;
        let living =
            (0..newest).map(|back| last - back).find(|place| !self.ledger.is_ended(*place));
        let place = match living {
            Some(living) if !self.random.once_in(3) => living,
            _ => last - self.random.index(newest),
        };
        (!connections[place].auth.is_empty()).then_some(place)
    }

    fn lookup(&mut self, peer: usize) -> Vec<u8> {
        let (line, status) = self.random.pick(&[
            ("GET /members?channel=c0", 200),
            ("GET /create", 200),
            ("GET /health", 200),
            ("GET /image-test", 200),
            ("GET /nowhere", 404),
            ("PUT /write", 405),
            ("get /health", 501),
            ("OPTIONS /write", 204),
            ("GET /write?channel=c0", 400),
            ("GET /write?channel=~r0&message=x", 400),
        ]);
        let kind = if status == 501 { Kind::Fatal(status) } else { Kind::Plain(status) };
        let mut request = Self::request(kind);
        let head = self.head(&mut request, line, "");
        self.enqueue(peer, request, head.into_bytes())
    }

    /// The lines of a head, whose end is left to the caller's fields.
    fn head(&mut self, request: &mut Request, line: &str, fields: &str) -> String {
        match self.random.below(12) {
            0 => {
                request.closes = true;
                format!("{line} HTTP/1.0\r\n{fields}\r\n")
            }
            1 => format!("{line} HTTP/1.0\r\nConnection: keep-alive\r\n{fields}\r\n"),
            2 => {
                request.closes = true;
                format!("{line} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n{fields}\r\n")
            }
            _ => format!("{line} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n"),
        }
    }

    /// A call in one of the forms of HTTP.
    fn dressed(&mut self, peer: usize, call: Call) -> Vec<u8> {
        let Call { name, parameters, mut request } = call;
        let mut form = String::new();
        for (name, value) in &parameters {
            let and = if form.is_empty() { "" } else { "&" };
            write!(form, "{and}{name}={value}").expect("a String takes everything");
        }
        match request.kind {
            Kind::Events => {
                let bytes = format!(
                    "GET /read?{form} HTTP/1.1\r\nHost: sim\r\nAccept: text/event-stream\r\n\r\n"
                );
                return self.enqueue(peer, request, bytes.into_bytes());
            }
            Kind::Frames => {
                let bytes = format!(
                    "GET /read?{form} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {SOCKET_KEY}\r\n\r\n"
                );
                return self.enqueue(peer, request, bytes.into_bytes());
            }
            _ => {}
        }
        let is_long = form.len() > 1000;
        match self.random.below(6) {
            0 | 1 if !is_long => {
                let head = self.head(&mut request, &format!("GET /{name}?{form}"), "");
                self.enqueue(peer, request, head.into_bytes())
            }
            2 if !is_long && !matches!(request.kind, Kind::Goodbye | Kind::GoodbyeToOne) => {
                request.is_script = true;
                let head = self.head(&mut request, &format!("GET /{name}?{form}&callback=f"), "");
                self.enqueue(peer, request, head.into_bytes())
            }
            3 => {
                let fields = format!("{FORM}Transfer-Encoding: chunked\r\n");
                let mut bytes = format!("POST /{name} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
                let cut = self.random.index(form.len());
                for part in [&form[..cut], &form[cut..]].into_iter().filter(|part| !part.is_empty())
                {
                    write!(bytes, "{:x}\r\n{part}\r\n", part.len())
                        .expect("a String takes everything");
                }
                bytes.push_str("0\r\n\r\n");
                self.enqueue(peer, request, bytes.into_bytes())
            }
            4 => {
                let fields =
                    format!("{FORM}Expect: 100-continue\r\nContent-Length: {}\r\n", form.len());
                let head = format!("POST /{name} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n");
                if self.random.once_in(2) {
                    return self.enqueue(peer, request, [head, form].concat().into_bytes());
                }
                // It waits to be asked for the body, or until it is tired of waiting.
                request.end = self.peers[peer].sent + (head.len() + form.len()) as u64;
                self.peers[peer].rest = Some(form.into_bytes());
                self.peers[peer].sent += head.len() as u64;
                self.peers[peer].ends.push_back(request.end);
                self.peers[peer].outstanding.push_back(request);
                head.into_bytes()
            }
            _ => {
                let fields = format!("{FORM}Content-Length: {}\r\n", form.len());
                let head = self.head(&mut request, &format!("POST /{name}"), &fields);
                self.enqueue(peer, request, [head, form].concat().into_bytes())
            }
        }
    }

    fn enqueue(&mut self, peer: usize, mut request: Request, bytes: Vec<u8>) -> Vec<u8> {
        let peer = &mut self.peers[peer];
        peer.sent += bytes.len() as u64;
        // A frame that is none is refused by its first bytes.
        request.end = if request.kind == Kind::Fatal(0) {
            peer.sent + 1 - bytes.len() as u64
        } else {
            peer.sent
        };
        peer.ends.push_back(peer.sent);
        peer.outstanding.push_back(request);
        bytes
    }

    /// A call in frames of a WebSocket.
    fn framed(&mut self, peer: usize, call: Call) -> Vec<u8> {
        let Call { name, parameters, mut request } = call;
        request.is_frame = true;
        let number = self.references;
        self.references += 1;
        let mut json = format!("{{\"call\":\"{name}\",\"ref\":{number}");
        for (name, value) in &parameters {
            write!(json, ",\"{name}\":").expect("a String takes everything");
            match *name {
                "connection" => write!(json, "{value}"),
                _ => write!(json, "\"{value}\""),
            }
            .expect("a String takes everything");
        }
        json.push('}');
        let bytes = if self.random.once_in(4) {
            let cut = self.random.index(json.len());
            let mut bytes = masked(0x01, &json.as_bytes()[..cut]);
            if self.random.once_in(2) {
                bytes.extend(masked(0x8a, b"amid"));
            }
            bytes.extend(masked(0x80, &json.as_bytes()[cut..]));
            bytes
        } else {
            masked(0x81, json.as_bytes())
        };
        self.enqueue(peer, request, bytes)
    }

    fn nonsense(&mut self, peer: usize) -> Vec<u8> {
        let long = "x".repeat(5_000);
        let (bytes, status) = match self.random.below(5) {
            0 => ("\u{1}nonsense\r\n\r\n".to_owned(), 400),
            1 => ("GET /health HTTP/2.0\r\nHost: sim\r\n\r\n".to_owned(), 505),
            2 => (
                "POST /write?channel=c0 HTTP/1.1\r\nHost: sim\r\nContent-Length: 999999\r\n\r\n"
                    .to_owned(),
                413,
            ),
            3 => (format!("GET /health HTTP/1.1\r\nHost: sim\r\nX: {long}\r\n\r\n"), 431),
            _ => (format!("GET /{long} HTTP/1.1\r\nHost: sim\r\n\r\n"), 414),
        };
        self.peers[peer].is_spoilt = true;
        let mut bytes = self.enqueue(peer, Self::request(Kind::Fatal(status)), bytes.into_bytes());
        let junk = self.random.pick(&[0, 0, 100, 100_000]);
        self.peers[peer].sent += junk as u64;
        bytes.resize(bytes.len() + junk, b'x');
        bytes
    }

    /// A frame that is none, or the farewell.
    fn speak_nonsense(&mut self, peer: usize) -> Vec<u8> {
        let bytes = match self.random.below(4) {
            0 => vec![0x81, 0x01, b'x'],
            1 => masked(0x82, b"binary"),
            2 => masked(0x88, &1000u16.to_be_bytes()),
            _ => masked(0x81, b"\xff"),
        };
        self.peers[peer].is_spoilt = true;
        self.enqueue(peer, Self::request(Kind::Fatal(0)), bytes)
    }

    /// The beginning of something.
    pub(crate) fn truncated(&mut self, peer: usize) -> Vec<u8> {
        let is_socket = self.peers[peer].following.is_some();
        // A text may also end with a frame that is whole, and is not its last.
        let is_fragment = is_socket && self.random.once_in(3);
        let whole = if is_socket {
            masked(if is_fragment { 0x01 } else { 0x81 }, b"{\"call\":")
        } else {
            b"GET /write?channel=c0&message=half".to_vec()
        };
        let length = if is_fragment { whole.len() } else { 1 + self.random.index(whole.len() - 1) };
        self.peers[peer].is_spoilt = true;
        self.peers[peer].sent += length as u64;
        whole[..length].to_vec()
    }

    /// Puts bytes on the wire, in pieces.
    pub(crate) fn transmit(&mut self, peer: usize, mut bytes: Vec<u8>) {
        let mut net = self.net.borrow_mut();
        let is_witness = self.peers[peer].is_witness;
        while !bytes.is_empty() {
            let is_cut = !is_witness && self.plan.cuts > 0 && self.random.once_in(self.plan.cuts);
            let rest = if is_cut {
                bytes.split_off(1 + self.random.index(bytes.len()))
            } else {
                Vec::new()
            };
            let delay_ms = if is_witness || self.is_healed {
                0
            } else {
                self.random.below(self.plan.delay_ms_max + 1)
            };
            net.send(peer, Segment::Bytes(bytes), delay_ms);
            bytes = rest;
        }
    }
}

/// A frame as clients send it.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 0x7e);
            frame.extend(
                u16::try_from(length).expect("frames of the simulation are short").to_be_bytes(),
            );
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

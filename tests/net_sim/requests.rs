//! Requests of every kind and form, and the expectations of their clients.

use serde_json::{Map, Value};
use support::http::{form, request};
use support::reader::{Reader, Since, Subscription, Terms};
use support::text::Text;
use support::ws::{HANDSHAKE, client_frame};

use crate::network::Segment;
use crate::peer::{Kind, Request};
use crate::plan::Step;
use crate::world::World;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

const MULTIPART: &str = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 4\r\n";

/// A call before it has a form: its path, its parameters, and the expectation.
struct Call {
    name: &'static str,
    parameters: Vec<(&'static str, String)>,
    request: Request,
}

fn head(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n")
}

impl World {
    /// A client asks something. Returns the bytes.
    pub(crate) fn ask(&mut self, peer: usize, step: Step) -> Vec<u8> {
        let is_socket =
            self.peers[peer].following.as_ref().is_some_and(|following| following.is_frames);
        match step {
            Step::Nonsense if is_socket => self.nonsense_frame(peer),
            Step::Nonsense => self.nonsense(peer),
            Step::Truncated => self.truncated(peer),
            Step::Lookup if !is_socket => self.lookup(peer),
            _ => {
                let is_read =
                    matches!(step, Step::Events | Step::Frames | Step::Poll | Step::ReadNow);
                let call = self.call(peer, if is_socket && is_read { Step::Write } else { step });
                if is_socket { self.in_frames(peer, call) } else { self.in_http(peer, call) }
            }
        }
    }

    fn call(&mut self, peer: usize, step: Step) -> Call {
        let mut parameters = Vec::new();
        let channel = self.random.index(self.plan.channels);
        let carries =
            if self.random.once_in(2) || step == Step::Goodbye { self.any_session() } else { None };
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
            Step::Lookup => {
                let after = self.number_before_members();
                parameters.push(("from", after.to_string()));
                ("members", Kind::Members { after })
            }
            _ => ("write", Kind::Write),
        };
        let mut request = Request::new(kind);
        request.channels = vec![channel];
        match kind {
            Kind::ReadNow | Kind::Poll { .. } | Kind::Events | Kind::Frames => {
                if kind == Kind::ReadNow {
                    parameters.push(("timeout", "0".to_owned()));
                }
                let several = 1 + self.random.index(self.plan.channels);
                if self.random.once_in(3) {
                    request.channels = self.random.indexes(self.plan.channels, several);
                }
                request.reader = Some(self.reader(peer, &request, &mut parameters));
                request.grace = self.grace(&mut parameters);
            }
            Kind::Write | Kind::Introduce => {
                let filler = self.random.pick(&self.plan.message_bytes.clone()) as u32;
                let sender = &mut self.peers[peer];
                sender.texts += 1;
                let (from, channel) = (carries.unwrap_or(0), channel as u32);
                let text = Text { sender: peer as u32, seq: sender.texts, channel, from, filler };
                self.model.ledger.forbid(text, "its request has not arrived").unwrap();
                request.text = Some(text);
                parameters.push(("message", text.write()));
            }
            Kind::Goodbye => request.channels.clear(),
            _ => {}
        }
        for channel in &request.channels {
            parameters.push(("channel", format!("c{channel}")));
        }
        if let Some(number) = carries.filter(|_| name != "members") {
            parameters.push(("connection", number.to_string()));
            parameters.push(("auth", self.model.known(number).auth.clone()));
            request.carries = Some(number);
            let session = self.model.session(number);
            match kind {
                Kind::Goodbye => session.may_leave = true,
                Kind::GoodbyeToOne => session.leaves.push(channel),
                _ => {}
            }
        }
        Call { name, parameters, request }
    }

    /// Returns the time that a session survives the closing of a read, which may ask for some.
    fn grace(&mut self, parameters: &mut Vec<(&'static str, String)>) -> u64 {
        let numbers = self.plan.numbers;
        let grace_s = self.random.pick(&[None, None, Some(0), Some(1), Some(3), Some(60)]);
        parameters.extend(grace_s.map(|grace_s| ("grace", grace_s.to_string())));
        let its = grace_s.unwrap_or(0) * 1000;
        numbers.grace.max(its.min(numbers.connection_timeout))
    }

    fn reader(
        &mut self,
        peer: usize,
        request: &Request,
        parameters: &mut Vec<(&'static str, String)>,
    ) -> Reader {
        let form = self.random.below(5);
        let mut subscriptions = Vec::new();
        for channel in &request.channels {
            let cursor = self.peers[peer].cursors[*channel];
            let since = match form {
                0 => Since::Next(0),
                1 => Since::All,
                2 => Since::Last(1 + self.random.below(3)),
                _ if cursor == 0 => Since::All,
                3 => Since::Id(1 + self.random.below(cursor)),
                _ => Since::Id(cursor),
            };
            match since {
                Since::Next(_) => {}
                Since::All => parameters.push(("from_id", "0".to_owned())),
                Since::Last(count) => parameters.push(("from_id", format!("-{count}"))),
                Since::Id(id) => parameters.push(("from_id", id.to_string())),
            }
            subscriptions.push(Subscription::new(*channel, format!("c{channel}"), since));
        }
        let mut reader = Reader::new(subscriptions);
        reader.terms = Terms { is_stream: request.kind.is_stream(), may_be_ahead: false };
        reader
    }

    /// Returns a session that lives, as far as its clients know, or did.
    fn any_session(&mut self) -> Option<u64> {
        let newest: Vec<u64> = self.model.known.keys().rev().take(6).copied().collect();
        // The newest are likelier to live still; mostly it is one that does.
        let living = newest.iter().find(|number| !self.model.is_ended(**number));
        match living {
            Some(living) if !self.random.once_in(3) => Some(*living),
            _ => self.random.pick_any(&newest),
        }
    }

    fn number_before_members(&mut self) -> u64 {
        let session = if self.random.once_in(2) { self.any_session() } else { None };
        session.unwrap_or(0)
    }

    fn lookup(&mut self, peer: usize) -> Vec<u8> {
        if self.random.once_in(5) {
            let after = self.number_before_members();
            let mut request = Request::new(Kind::Members { after });
            let line = format!("GET /members?channel=c0&from={after}");
            let head = self.head(&mut request, &line, "");
            return self.enqueue(peer, request, head.into_bytes());
        }
        let (line, fields, body, status) = self.random.pick(&[
            ("GET /create", "", "", 200),
            ("GET /health", "", "", 200),
            ("GET /image-test", "", "", 200),
            ("GET /nowhere", "", "", 404),
            ("PUT /write", "", "", 405),
            ("get /health", "", "", 501),
            ("OPTIONS /write", "Access-Control-Request-Headers: a\r\n", "", 204),
            ("GET /write?channel=c0", "", "", 400),
            ("GET /write?channel=~r0&message=x", "", "", 400),
            ("GET /write?channel=c0&message=x", "Sec-Purpose: prefetch\r\n", "", 403),
            ("POST /write?channel=c0", MULTIPART, "text", 415),
        ]);
        let kind = if status == 501 { Kind::Fatal(status) } else { Kind::Plain(status) };
        let mut request = Request::new(kind);
        let head = self.head(&mut request, line, fields);
        self.enqueue(peer, request, (head + body).into_bytes())
    }

    /// Returns a head with these fields, in one of the versions of HTTP.
    fn head(&mut self, request: &mut Request, line: &str, fields: &str) -> String {
        let form = self.random.below(12);
        request.closes = matches!(form, 0 | 2);
        match form {
            0 => format!("{line} HTTP/1.0\r\n{fields}\r\n"),
            1 => format!("{line} HTTP/1.0\r\nConnection: keep-alive\r\n{fields}\r\n"),
            2 => head(line, &format!("Connection: close\r\n{fields}")),
            _ => head(line, fields),
        }
    }

    /// Returns a call in one of the forms of HTTP.
    fn in_http(&mut self, peer: usize, call: Call) -> Vec<u8> {
        let Call { name, parameters, request: mut asked } = call;
        let form = form(&parameters);
        let fields: &[_] = match asked.kind {
            Kind::Events => &[("Accept", "text/event-stream")],
            Kind::Frames => &HANDSHAKE,
            _ => &[],
        };
        if !fields.is_empty() {
            if asked.kind == Kind::Events && self.random.once_in(4) {
                asked.closes = true;
                let (name, value) = fields[0];
                let bytes = format!("GET /read?{form} HTTP/1.0\r\n{name}: {value}\r\n\r\n");
                return self.enqueue(peer, asked, bytes.into_bytes());
            }
            let bytes = request("GET", &format!("/read?{form}"), fields, None);
            return self.enqueue(peer, asked, bytes);
        }
        let is_long = form.len() > 1000;
        let length = format!("Content-Length: {}\r\n", form.len());
        let bytes = match self.random.below(6) {
            0 | 1 if !is_long => self.head(&mut asked, &format!("GET /{name}?{form}"), ""),
            2 if !is_long && !matches!(asked.kind, Kind::Goodbye | Kind::GoodbyeToOne) => {
                asked.is_script = true;
                self.head(&mut asked, &format!("GET /{name}?{form}&callback=f"), "")
            }
            3 => {
                let fields = format!("{FORM}Transfer-Encoding: chunked\r\n");
                let (one, other) = form.split_at(self.random.index(form.len()));
                let parts = [one, other].into_iter().filter(|part| !part.is_empty());
                let chunks = parts.map(|part| format!("{:x}\r\n{part}\r\n", part.len()));
                let chunks = chunks.collect::<Vec<_>>().concat();
                head(&format!("POST /{name}"), &fields) + &chunks + "0\r\n\r\n"
            }
            4 => {
                let fields = format!("{FORM}Expect: 100-continue\r\n{length}");
                let head = head(&format!("POST /{name}"), &fields);
                let mut bytes = self.enqueue(peer, asked, (head + &form).into_bytes());
                if !self.random.once_in(2) {
                    // The body waits for `100 Continue`, or for some time.
                    let peer = &mut self.peers[peer];
                    peer.rest = Some(bytes.split_off(bytes.len() - form.len()));
                    peer.sent -= form.len() as u64;
                }
                return bytes;
            }
            _ => {
                let fields = format!("{FORM}{length}");
                self.head(&mut asked, &format!("POST /{name}"), &fields) + &form
            }
        };
        self.enqueue(peer, asked, bytes.into_bytes())
    }

    pub(crate) fn enqueue(&mut self, peer: usize, mut request: Request, bytes: Vec<u8>) -> Vec<u8> {
        let peer = &mut self.peers[peer];
        peer.sent += bytes.len() as u64;
        // A wrong frame is refused by its first bytes.
        request.end = if request.kind == Kind::Fatal(0) {
            peer.sent + 1 - bytes.len() as u64
        } else {
            peer.sent
        };
        peer.ends.push_back(peer.sent);
        peer.outstanding.push_back(request);
        bytes
    }

    /// Returns a call in frames of a WebSocket.
    fn in_frames(&mut self, peer: usize, call: Call) -> Vec<u8> {
        let Call { name, parameters, mut request } = call;
        request.is_frame = true;
        let number = self.references;
        self.references += 1;
        let mut json = Map::new();
        json.insert("call".to_owned(), name.into());
        json.insert("ref".to_owned(), number.into());
        for (name, value) in parameters {
            let is_number = matches!(name, "connection" | "from");
            let number = value.parse::<u64>().ok().filter(|_| is_number);
            let value = number.map_or_else(|| Value::from(value), Value::from);
            json.insert(name.to_owned(), value);
        }
        let json = Value::Object(json).to_string();
        let bytes = if self.random.once_in(4) {
            let cut = self.random.index(json.len());
            let mut bytes = client_frame(0x01, &json.as_bytes()[..cut]);
            if self.random.once_in(2) {
                bytes.extend(client_frame(0x8a, b"between"));
            }
            bytes.extend(client_frame(0x80, &json.as_bytes()[cut..]));
            bytes
        } else {
            client_frame(0x81, json.as_bytes())
        };
        self.enqueue(peer, request, bytes)
    }

    fn nonsense(&mut self, peer: usize) -> Vec<u8> {
        let long = "x".repeat(5_000);
        let (bytes, status) = match self.random.below(5) {
            0 => ("\u{1}nonsense\r\n\r\n".to_owned(), 400),
            1 => ("GET /health HTTP/2.0\r\nHost: sim\r\n\r\n".to_owned(), 505),
            2 => (head("POST /write?channel=c0", "Content-Length: 999999\r\n"), 413),
            3 => (head("GET /health", &format!("X: {long}\r\n")), 431),
            _ => (head(&format!("GET /{long}"), ""), 414),
        };
        self.peers[peer].is_spoilt = true;
        let mut bytes = self.enqueue(peer, Request::new(Kind::Fatal(status)), bytes.into_bytes());
        let junk = self.random.pick(&[0, 0, 100, 100_000]);
        self.peers[peer].sent += junk as u64;
        bytes.resize(bytes.len() + junk, b'x');
        bytes
    }

    /// Returns a frame that is wrong, or a Close.
    fn nonsense_frame(&mut self, peer: usize) -> Vec<u8> {
        let bytes = match self.random.below(4) {
            0 => vec![0x81, 0x01, b'x'],
            1 => client_frame(0x82, b"binary"),
            2 => client_frame(0x88, 1000u16.to_be_bytes()),
            _ => client_frame(0x81, b"\xff"),
        };
        self.peers[peer].is_spoilt = true;
        self.enqueue(peer, Request::new(Kind::Fatal(0)), bytes)
    }

    /// Returns the beginning of a request or a frame.
    fn truncated(&mut self, peer: usize) -> Vec<u8> {
        let is_socket = self.peers[peer].following.is_some();
        // A text may also lack its last frame.
        let is_fragment = is_socket && self.random.once_in(3);
        let whole = if is_socket {
            client_frame(if is_fragment { 0x01 } else { 0x81 }, b"{\"call\":")
        } else {
            b"GET /write?channel=c0&message=half".to_vec()
        };
        let length = if is_fragment { whole.len() } else { 1 + self.random.index(whole.len() - 1) };
        self.peers[peer].is_spoilt = true;
        self.peers[peer].sent += length as u64;
        whole[..length].to_vec()
    }

    /// Puts bytes on the wire, in records if the client speaks TLS.
    pub(crate) fn transmit(&mut self, peer: usize, bytes: Vec<u8>) {
        if self.peers[peer].tls.is_some() {
            self.transmit_sealed(peer, &bytes);
        } else {
            self.transmit_raw(peer, bytes);
        }
    }

    /// Puts bytes on the wire, in segments.
    pub(crate) fn transmit_raw(&mut self, peer: usize, mut bytes: Vec<u8>) {
        let mut net = self.net.borrow_mut();
        let is_observer = self.peers[peer].is_observer;
        while !bytes.is_empty() {
            let is_cut = !is_observer && self.plan.cuts > 0 && self.random.once_in(self.plan.cuts);
            let rest = if is_cut {
                bytes.split_off(1 + self.random.index(bytes.len()))
            } else {
                Vec::new()
            };
            let delay_ms = if is_observer || self.faults_stopped {
                0
            } else {
                self.random.below(self.plan.delay_ms_max + 1)
            };
            net.send(peer, Segment::Bytes(bytes), delay_ms);
            bytes = rest;
        }
    }
}

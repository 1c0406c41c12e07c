//! A WebSocket as bytes: frames made by hand, so that they may be wrong.

use serde_json::Value;

use super::{Client, Params, Server, request, secrets, target};

/// The handshake of RFC 6455, section 1.3.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

/// What answers its key.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// First bytes of whole frames.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A WebSocket that is open.
pub struct Socket {
    pub client: Client,
    /// The pings that were met, and answered, on the way to other frames.
    pub pings: usize,
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// The bytes of a frame as a client has to send it: masked.
pub fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | u8::try_from(length).expect("below 126")),
        length @ 126..0x1_0000 => {
            frame.push(0xfe);
            frame.extend(u16::try_from(length).expect("below 2^16").to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The bytes that ask for a WebSocket.
pub fn handshake(params: &Params, headers: &[(&str, &str)]) -> Vec<u8> {
    request("GET", &target("/read", params), &[&HANDSHAKE, headers].concat(), None)
}

impl Socket {
    #[track_caller]
    pub fn open(mut client: Client, params: &Params, headers: &[(&str, &str)]) -> Self {
        client.send(handshake(params, headers));
        Self::opened(client)
    }

    /// After the handshake was sent: reads the answer, and checks that it is one.
    #[track_caller]
    pub fn opened(mut client: Client) -> Self {
        let head = client.head();
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(ACCEPT));
        Self { client, pings: 0 }
    }

    #[track_caller]
    pub fn send(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        secrets::keep_json(payload.as_ref());
        self.client.send(masked(first, payload));
    }

    /// Sends a call, as text.
    #[track_caller]
    pub fn ask(&mut self, call: &Value) {
        self.send(TEXT, call.to_string());
    }

    /// Sends a call, and reads the frame behind it.
    #[track_caller]
    pub fn call(&mut self, call: &Value) -> Value {
        self.ask(call);
        self.json()
    }

    /// The next frame, whatever it is. None if the server closes first.
    #[track_caller]
    pub fn maybe_frame(&mut self) -> Option<Frame> {
        let first = self.client.take_maybe(2)?;
        assert_eq!(first[1] & 0x80, 0, "a server masks nothing");
        let length_bytes = match first[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = usize::from(first[1]);
        if length_bytes > 0 {
            let bytes = self.client.take_maybe(length_bytes)?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        }
        Some(Frame { first: first[0], payload: self.client.take_maybe(length)? })
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.maybe_frame().expect("a frame, not an end")
    }

    /// The text of the next frame; pings before it are answered. None if the server closes first.
    #[track_caller]
    pub fn maybe_text(&mut self) -> Option<String> {
        loop {
            let frame = self.maybe_frame()?;
            match frame.first {
                TEXT => return Some(String::from_utf8(frame.payload).expect("a text in UTF-8")),
                PING => {
                    self.pings += 1;
                    self.send(PONG, frame.payload);
                }
                _ => panic!("no text: {frame:?}"),
            }
        }
    }

    #[track_caller]
    pub fn text(&mut self) -> String {
        self.maybe_text().expect("a text, not an end")
    }

    #[track_caller]
    pub fn json(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    /// The texts of the messages of the next frame, which is about one channel.
    #[track_caller]
    pub fn texts(&mut self) -> Vec<String> {
        let answer = self.json();
        let messages =
            answer["messages"].as_array().unwrap_or_else(|| panic!("no messages: {answer}"));
        messages.iter().map(|it| it["message"].as_str().expect("a text").to_owned()).collect()
    }

    /// Claims that the server says farewell with this code, and closes.
    #[track_caller]
    pub fn ends_with(&mut self, code: u16) {
        let frame = self.frame();
        assert_eq!(
            frame,
            Frame { first: CLOSE, payload: code.to_be_bytes().to_vec() },
            "not {code}"
        );
        self.client.is_closed();
    }
}

impl Server {
    #[track_caller]
    pub fn socket(&self, params: &Params) -> Socket {
        Socket::open(self.client(), params, &[])
    }
}

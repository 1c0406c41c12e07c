//! A WebSocket as bytes: frames made by hand, so that they may be wrong.

use serde_json::Value;
use support::http::{Params, request, target};
use support::ws::{ACCEPT, CLOSE, HANDSHAKE, PING, PONG, TEXT, client_frame, server_frame};

use super::client::Client;
use super::secrets;
use super::server::Server;

/// A WebSocket that is open.
pub struct Socket {
    pub client: Client,
    /// Number of Pings that came, and were answered, before other frames.
    pub pings: usize,
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// Returns the request for a WebSocket.
pub fn handshake(params: &Params, headers: &[(&str, &str)]) -> Vec<u8> {
    request("GET", &target("/read", params), &[&HANDSHAKE, headers].concat(), None)
}

impl Socket {
    #[track_caller]
    pub fn open(mut client: Client, params: &Params, headers: &[(&str, &str)]) -> Self {
        client.send(handshake(params, headers));
        Self::opened(client)
    }

    /// Reads the response to a handshake that was sent, and checks it.
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
        self.client.send(client_frame(first, payload));
    }

    /// Sends a call, as text.
    #[track_caller]
    pub fn ask(&mut self, call: &Value) {
        self.send(TEXT, call.to_string());
    }

    /// Sends a call, and reads the next frame.
    #[track_caller]
    pub fn call(&mut self, call: &Value) -> Value {
        self.ask(call);
        self.json()
    }

    /// Reads the next frame, whatever it is. `None` if the server closes first.
    #[track_caller]
    pub fn maybe_frame(&mut self) -> Option<Frame> {
        self.client.take_or_end("a frame", |received| {
            let frame = server_frame(received).expect("a frame of a server");
            frame.map(|(frame, length)| {
                (Frame { first: frame.first, payload: frame.payload.to_vec() }, length)
            })
        })
    }

    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        self.maybe_frame().expect("a frame, not an end")
    }

    /// Reads the text of the next frame, and answers Pings before it.
    /// `None` if the server closes first.
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

    /// Reads the texts of the messages of the next frame, which is about one channel.
    #[track_caller]
    pub fn texts(&mut self) -> Vec<String> {
        let answer = self.json();
        let messages =
            answer["messages"].as_array().unwrap_or_else(|| panic!("no messages: {answer}"));
        messages.iter().map(|it| it["message"].as_str().expect("a text").to_owned()).collect()
    }

    /// Claims that the server sends a Close with this code, and closes.
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

//! Paths to calls.

use super::error::Error;
use crate::http::Method;
use crate::web::{self, File};

/// The calls that answer in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Write,
    Read,
    Introduce,
    Goodbye,
    Members,
    Create,
    Health,
}

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Call(Call),
    ImageTest,
    File(&'static File),
    /// `/` where there is no demo.
    Root,
    /// `OPTIONS *`: the server as a whole.
    Asterisk,
}

impl Call {
    const ALL: [Self; 7] = [
        Self::Read,
        Self::Write,
        Self::Introduce,
        Self::Goodbye,
        Self::Members,
        Self::Create,
        Self::Health,
    ];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Write => "/write",
            Self::Read => "/read",
            Self::Introduce => "/introduce",
            Self::Goodbye => "/goodbye",
            Self::Members => "/members",
            Self::Create => "/create",
            Self::Health => "/health",
        }
    }

    /// Whether it adds messages: those that `allow-origin` guards, and whose body may be the message.
    pub(super) fn adds_messages(self) -> bool {
        matches!(self, Self::Write | Self::Introduce | Self::Goodbye)
    }

    /// The call of that name in a frame of a WebSocket.
    pub(super) fn of_frame(name: &str) -> Option<Self> {
        match Self::ALL.into_iter().find(|call| call.path()[1..] == *name)? {
            Self::Health => None,
            call => Some(call),
        }
    }

    fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|call| call.path() == path)
    }
}

impl Route {
    /// # Errors
    ///
    /// [`Error::NotFound`], also for the demo's files where it is off.
    pub(super) fn of(path: &str, has_demo: bool) -> Result<Self, Error> {
        if let Some(call) = Call::from_path(path) {
            return Ok(Self::Call(call));
        }
        match path {
            "/image-test" => Ok(Self::ImageTest),
            "*" => Ok(Self::Asterisk),
            "/" if !has_demo => Ok(Self::Root),
            _ => web::file(path, has_demo).map(Self::File).ok_or(Error::NotFound),
        }
    }

    /// The methods it takes, as `Allow` lists them.
    pub(super) fn allow(self) -> &'static str {
        match self {
            Self::Call(Call::Health) => "GET, HEAD, POST, OPTIONS",
            Self::Call(_) => "GET, POST, OPTIONS",
            Self::ImageTest | Self::File(_) | Self::Root => "GET, HEAD, OPTIONS",
            Self::Asterisk => "OPTIONS",
        }
    }

    /// # Errors
    ///
    /// [`Error::MethodNotAllowed`], with those that are.
    pub(super) fn check_method(self, method: Method) -> Result<(), Error> {
        let is_allowed = match method {
            Method::Options => true,
            Method::Get => !matches!(self, Self::Asterisk),
            Method::Head => {
                !matches!(self, Self::Call(call) if call != Call::Health)
                    && !matches!(self, Self::Asterisk)
            }
            Method::Post => matches!(self, Self::Call(_)),
            Method::Other => false,
        };
        if is_allowed { Ok(()) } else { Err(Error::MethodNotAllowed(self.allow())) }
    }
}

//! Paths and methods.

use super::calls::Call;
use super::error::Error;
use crate::http::Method;
use crate::web::{self, File};

/// Resource of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Call(Call),
    ImageTest,
    File(&'static File),
    /// `OPTIONS *`: the server as a whole.
    Asterisk,
}

impl Route {
    /// Returns the resource of a path.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also for the files of the demo if it is off.
    pub(super) fn of(path: &str, has_demo: bool) -> Result<Self, Error> {
        if let Some(call) = Call::from_path(path) {
            return Ok(Self::Call(call));
        }
        match path {
            "/image-test" => Ok(Self::ImageTest),
            "*" => Ok(Self::Asterisk),
            _ => web::file(path, has_demo).map(Self::File).ok_or(Error::NotFound),
        }
    }

    /// Returns the value of `Allow`.
    pub(super) fn allowed_methods(self) -> &'static str {
        match self {
            Self::Call(call) if call.allows_head() => "GET, HEAD, POST, OPTIONS",
            Self::Call(_) => "GET, POST, OPTIONS",
            Self::ImageTest | Self::File(_) => "GET, HEAD, OPTIONS",
            Self::Asterisk => "OPTIONS",
        }
    }

    /// Checks that the resource allows this method.
    ///
    /// # Errors
    ///
    /// [`Error::MethodNotAllowed`], with the methods that are allowed.
    pub(super) fn check_method(self, method: Method) -> Result<(), Error> {
        let is_allowed = match (method, self) {
            (Method::Options, _) => true,
            (Method::Other, _) | (_, Self::Asterisk) => false,
            (Method::Head, Self::Call(call)) => call.allows_head(),
            (Method::Get | Method::Head, _) => true,
            (Method::Post, _) => matches!(self, Self::Call(_)),
        };
        if is_allowed { Ok(()) } else { Err(Error::MethodNotAllowed(self.allowed_methods())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_as_a_whole_allows_only_options() {
        let route = Route::of("*", true).unwrap();
        assert_eq!(route.allowed_methods(), "OPTIONS");
        assert!(route.check_method(Method::Options).is_ok());
        assert!(route.check_method(Method::Get).is_err());
    }
}

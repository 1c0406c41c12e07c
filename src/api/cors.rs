//! CORS: pages that may read responses, and pages that may add messages.

use super::error::Error;
use crate::http::Request;

/// `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// `*`: all pages.
    Any,
    /// Only pages of these origins, in lower case.
    List(Vec<String>),
}

/// Permission to read a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CorsGrant {
    /// Every page may read the response.
    Any,
    /// Pages of the origin at this index of the list may.
    Listed(u16),
    /// No page may: the origin is not listed, or the request has no origin.
    None,
}

impl AllowOrigin {
    #[inline]
    pub(super) fn cors_grant(&self, origin: Option<&[u8]>) -> CorsGrant {
        match (self, origin) {
            (Self::Any, _) => CorsGrant::Any,
            (Self::List(_), None) => CorsGrant::None,
            (Self::List(list), Some(origin)) => list
                .iter()
                .position(|listed| listed.as_bytes().eq_ignore_ascii_case(origin))
                .map_or(CorsGrant::None, |index| CorsGrant::Listed(index as u16)),
        }
    }

    /// Returns the value of `Access-Control-Allow-Origin`.
    pub(super) fn header(&self, grant: CorsGrant) -> Option<&str> {
        match (self, grant) {
            (Self::Any, _) => Some("*"),
            (Self::List(list), CorsGrant::Listed(index)) => Some(&list[usize::from(index)]),
            (Self::List(_), _) => None,
        }
    }

    /// Checks the origin of a call that adds messages: the page must be listed.
    ///
    /// Browsers send the origin of the page in `Origin`. For an image or a script tag they send no
    /// `Origin`, but `Sec-Fetch-Site` is `cross-site` for a page of another site.
    ///
    /// # Errors
    ///
    /// [`Error::BadOrigin`].
    pub(super) fn check_origin(&self, request: &Request<'_>) -> Result<(), Error> {
        let is_foreign = match (self, request.origin) {
            (Self::Any, _) => false,
            (Self::List(_), None) => request.is_cross_site,
            (Self::List(_), origin) => self.cors_grant(origin) == CorsGrant::None,
        };
        if is_foreign { Err(Error::BadOrigin) } else { Ok(()) }
    }
}

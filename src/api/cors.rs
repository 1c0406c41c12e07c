//! Which pages may read answers, and which may send messages.

use super::error::Error;
use crate::http::Request;

/// `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// `*`: every page.
    Any,
    /// These alone, in lower case.
    List(Vec<String>),
}

/// What an answer tells a browser about the page that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CorsGrant {
    /// Everybody may read it.
    Any,
    /// The page on this place of the list may.
    Listed(u16),
    /// The page is not on the list, or said nothing of itself.
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
                .map_or(CorsGrant::None, |place| CorsGrant::Listed(place as u16)),
        }
    }

    /// The value of `Access-Control-Allow-Origin`.
    pub(super) fn header(&self, permission: CorsGrant) -> Option<&str> {
        match (self, permission) {
            (Self::Any, _) => Some("*"),
            (Self::List(list), CorsGrant::Listed(place)) => Some(&list[usize::from(place)]),
            (Self::List(_), _) => None,
        }
    }

    /// Refuses a call that adds messages from a page that is not listed. Browsers name the page in `Origin`
    /// wherever they send one, and tell by `Sec-Fetch-Site` of a mere image or script tag that it is foreign.
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

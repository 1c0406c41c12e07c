//! CORS: pages that may read responses, and pages that may add messages.

use super::error::Error;
use crate::http::Request;

/// `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowOrigin {
    /// `*`: all pages.
    Any,
    /// Only pages of these origins, in lower case. `https://*.HOST` stands for all subdomains.
    List(Vec<String>),
}

/// Permission to read a response. `T` is the text of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CorsGrant<T> {
    /// Every page may read the response.
    Any,
    /// Pages of the origin at this index of the list may.
    Listed(u16),
    /// Pages of this origin may: the list has its subdomains.
    Subdomain(T),
    /// No page may: the origin is not listed, or the request has no origin.
    None,
    /// No page may, whatever the list has: a response of the admin listener.
    Private,
}

impl<T> CorsGrant<T> {
    /// Converts the text of the origin.
    pub(super) fn convert<'a, U>(&'a self, convert: impl FnOnce(&'a T) -> U) -> CorsGrant<U> {
        match self {
            Self::Any => CorsGrant::Any,
            Self::Listed(index) => CorsGrant::Listed(*index),
            Self::Subdomain(origin) => CorsGrant::Subdomain(convert(origin)),
            Self::None => CorsGrant::None,
            Self::Private => CorsGrant::Private,
        }
    }
}

impl AllowOrigin {
    #[inline]
    pub(super) fn cors_grant<'o>(&self, origin: Option<&'o [u8]>) -> CorsGrant<&'o str> {
        match self {
            Self::Any => CorsGrant::Any,
            Self::List(list) => listed_grant(list, origin),
        }
    }

    /// Returns the value of `Access-Control-Allow-Origin`.
    pub(super) fn header<'a>(&'a self, grant: CorsGrant<&'a str>) -> Option<&'a str> {
        match (self, grant) {
            (_, CorsGrant::Private) => None,
            (Self::Any, _) => Some("*"),
            (Self::List(list), CorsGrant::Listed(index)) => Some(&list[usize::from(index)]),
            (Self::List(_), CorsGrant::Subdomain(origin)) => Some(origin),
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

/// Returns the grant for a page of `origin`, if only the origins of `list` may read responses. Not
/// inlined: most servers have no list.
#[inline(never)]
fn listed_grant<'o>(list: &[String], origin: Option<&'o [u8]>) -> CorsGrant<&'o str> {
    let Some(origin) = origin.filter(|origin| !origin.contains(&b'*')) else {
        return CorsGrant::None;
    };
    let is_it = |listed: &String| listed.as_bytes().eq_ignore_ascii_case(origin);
    if let Some(index) = list.iter().position(is_it) {
        return CorsGrant::Listed(index as u16);
    }
    match str::from_utf8(origin) {
        Ok(origin) if list.iter().any(|listed| is_subdomain(listed, origin)) => {
            CorsGrant::Subdomain(origin)
        }
        _ => CorsGrant::None,
    }
}

/// Returns whether `listed` is `SCHEME://*.HOST`, and `origin` the origin of a subdomain of the
/// host. The result is true only for text that a header field may have.
fn is_subdomain(listed: &str, origin: &str) -> bool {
    let Some((scheme, host)) = listed.split_once('*') else { return false };
    let Some(bytes) = origin.len().checked_sub(scheme.len() + host.len()) else { return false };
    let origin = origin.as_bytes();
    let (begin, rest) = origin.split_at(scheme.len());
    let (labels, end) = rest.split_at(bytes);
    let is_in_label = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    begin.eq_ignore_ascii_case(scheme.as_bytes())
        && end.eq_ignore_ascii_case(host.as_bytes())
        && labels.split(|byte| *byte == b'.').all(|it| !it.is_empty() && it.iter().all(is_in_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_takes_all_subdomains_and_nothing_else() {
        let list = AllowOrigin::List(vec![
            "https://*.example.org".into(),
            "http://*.dev.example:8080".into(),
            "https://exact.example".into(),
        ]);
        let cases = [
            ("https://a.example.org", true),
            ("https://a.b-c.xn--d_1.example.org", true),
            ("HTTPS://A.Example.ORG", true),
            ("http://a.dev.example:8080", true),
            ("https://exact.example", true),
            ("https://example.org", false),
            ("https://.example.org", false),
            ("https://a..example.org", false),
            ("https://evilexample.org", false),
            ("https://a.example.org.evil.example", false),
            ("https://a.example.org:8443", false),
            ("http://a.example.org", false),
            ("http://a.dev.example", false),
            ("http://a.dev.example:80801", false),
            ("https://evil.example/.example.org", false),
            ("https://evil.example:1.example.org", false),
            ("https://evil.example?.example.org", false),
            ("https://user@a.example.org", false),
            ("https://a b.example.org", false),
            ("https://\u{fc}.example.org", false),
            ("https://*.example.org", false),
            ("https://a.exact.example", false),
            ("https:/", false),
            ("null", false),
            ("", false),
        ];
        for (origin, is_listed) in cases {
            let grant = list.cors_grant(Some(origin.as_bytes()));
            assert_eq!(grant != CorsGrant::None, is_listed, "{origin}");
            if let CorsGrant::Subdomain(_) = grant {
                assert_eq!(list.header(grant), Some(origin));
            }
        }
        assert_eq!(list.cors_grant(None), CorsGrant::None);
        assert_eq!(list.cors_grant(Some(b"https://\xff.example.org")), CorsGrant::None);
    }
}

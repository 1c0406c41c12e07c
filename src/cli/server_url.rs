//! URLs of servers: `http://HOST:PORT`, `https://…`, `unix:PATH`. A path in the URL precedes the
//! paths of the calls, for a server that a proxy serves under a path.

use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub scheme: Scheme,
    /// Path before `/read`: empty, or for example `/chat`.
    pub path_prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http(Authority),
    Https(Authority),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// Name or IP address, without brackets.
    pub name: String,
    pub port: u16,
}

impl ServerUrl {
    /// Parses an argument of the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let error = || {
            format!(
                "'{text}' is not a server's URL: give http://HOST:PORT, https://HOST or unix:PATH"
            )
        };
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self { scheme: Scheme::Unix(path.into()), path_prefix: String::new() });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(error)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"<>\\".contains(&byte))
        };
        if !is_plain(rest) {
            return Err(error());
        }
        let port = if scheme == "https" { 443 } else { 80 };
        let host = Authority::parse(authority, port).ok_or_else(error)?;
        let scheme = match scheme {
            "http" => Scheme::Http(host),
            "https" => Scheme::Https(host),
            _ => return Err(error()),
        };
        Ok(Self { scheme, path_prefix: path.trim_end_matches('/').to_owned() })
    }

    /// Returns the URL of another port of the same host, without a path, and with `scheme`: http or
    /// https. None for a Unix socket.
    pub fn with_port(&self, port: u16, scheme: fn(Authority) -> Scheme) -> Option<Self> {
        let (Scheme::Http(host) | Scheme::Https(host)) = &self.scheme else { return None };
        let host = Authority { name: host.name.clone(), port };
        Some(Self { scheme: scheme(host), path_prefix: String::new() })
    }

    /// Returns the value of `Host` in requests.
    pub fn host_field(&self) -> String {
        match &self.scheme {
            Scheme::Http(host) if host.port == 80 => host.bracketed(),
            Scheme::Https(host) if host.port == 443 => host.bracketed(),
            Scheme::Http(host) | Scheme::Https(host) => {
                format!("{}:{}", host.bracketed(), host.port)
            }
            Scheme::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.scheme {
            Scheme::Http(_) => "http",
            Scheme::Https(_) => "https",
            Scheme::Unix(path) => return write!(f, "unix:{}", path.display()),
        };
        write!(f, "{scheme}://{}{}", self.host_field(), self.path_prefix)
    }
}

impl Authority {
    fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
        };
        let port = match rest {
            "" => default_port,
            _ => rest.strip_prefix(':')?.parse().ok().filter(|port| *port != 0)?,
        };
        // `openssl` would take a name that begins with a hyphen for an option.
        let is_name = !name.is_empty() && !name.starts_with('-');
        is_name.then(|| Self { name: name.to_owned(), port })
    }

    /// Returns the host as in a URL: an IPv6 address has brackets.
    pub fn bracketed(&self) -> String {
        if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsed_url_is_displayed_as_it_was_given() {
        let same = [
            "http://localhost:8080",
            "https://example.org",
            "https://[::1]:8443/chat",
            "unix:/run/speak.sock",
        ];
        for text in same {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ServerUrl::parse("http://a:80/b/").unwrap().to_string(), "http://a/b");
        let invalid = [
            "",
            "example.org",
            "a:8080",
            "ftp://a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:x",
            "unix:",
            "http://a/?b",
            "http://-a",
            "http://u@a",
            "http://[::1",
            "http://a b",
        ];
        for text in invalid {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}

//! Where a server is: `http://HOST:PORT`, `https://…`, `unix:PATH`, with a path before the calls where a proxy wants one.

use std::fmt;
use std::path::PathBuf;

/// A server as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerUrl {
    pub place: Scheme,
    /// What stands before `/read`: nothing, or `/chat`.
    pub path_prefix: String,
}

/// How it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Plain(Authority),
    Tls(Authority),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// A name or an address, without brackets.
    pub name: String,
    pub port: u16,
}

impl ServerUrl {
    /// Reads what was given on the command line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "'{text}' is no address of a server: give http://HOST:PORT, https://HOST or unix:PATH"
            )
        };
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self { place: Scheme::Unix(path.into()), path_prefix: String::new() });
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(fault)?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let is_plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\"<>\\".contains(&byte))
        };
        if !is_plain(rest) {
            return Err(fault());
        }
        let port = if scheme == "https" { 443 } else { 80 };
        let host = Authority::parse(authority, port).ok_or_else(fault)?;
        let place = match scheme {
            "http" => Scheme::Plain(host),
            "https" => Scheme::Tls(host),
            _ => return Err(fault()),
        };
        Ok(Self { place, path_prefix: path.trim_end_matches('/').to_owned() })
    }

    /// The same host by another port, in plain HTTP and without a path. None for a Unix socket.
    pub fn with_port(&self, port: u16) -> Option<Self> {
        let (Scheme::Plain(host) | Scheme::Tls(host)) = &self.place else { return None };
        let host = Authority { name: host.name.clone(), port };
        Some(Self { place: Scheme::Plain(host), path_prefix: String::new() })
    }

    /// The field `Host` of requests.
    pub fn host_field(&self) -> String {
        match &self.place {
            Scheme::Plain(host) if host.port == 80 => host.bracketed(),
            Scheme::Tls(host) if host.port == 443 => host.bracketed(),
            Scheme::Plain(host) | Scheme::Tls(host) => {
                format!("{}:{}", host.bracketed(), host.port)
            }
            Scheme::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match &self.place {
            Scheme::Plain(_) => "http",
            Scheme::Tls(_) => "https",
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
        // A name that begins with a hyphen could pass for an option of the program that speaks TLS.
        let is_name = !name.is_empty() && !name.starts_with('-');
        is_name.then(|| Self { name: name.to_owned(), port })
    }

    pub fn bracketed(&self) -> String {
        if self.name.contains(':') { format!("[{}]", self.name) } else { self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_read_and_told_alike() {
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
        let strange = [
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
        for text in strange {
            assert!(ServerUrl::parse(text).is_err(), "{text}");
        }
    }
}

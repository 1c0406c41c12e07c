//! URLs of the Redis that nodes share, as `--cluster` takes them.
//!
//! ```text
//! redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]
//! redis-sentinel://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…]/MASTER
//! redis+unix:PATH
//! ```
//!
//! `rediss://` and `rediss-sentinel://` are the same over TLS.
//!
//! Each may end with a query: `?prefix=NAME`, `db=NUMBER` and `user=NAME`, joined by `&`. A URL has
//! secrets, and a typing error can put one anywhere. So no error quotes a part of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use percent_encoding::percent_decode_str;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// Longest prefix in bytes: each key contains it.
const PREFIX_MAX: usize = 64;
const DEFAULT_PREFIX: &str = "speak";

/// Parsed value of `--cluster`. Its `Debug` and `Display` have no user and no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterUrl {
    servers: Servers,
    is_tls: bool,
    login: Login,
    database: u32,
    prefix: Box<str>,
}

/// Place of the Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server by TCP.
    Tcp(Host),
    /// One server by a Unix socket.
    Unix(PathBuf),
    /// The primary that these Sentinels name.
    Sentinels {
        /// Sentinels, in the order in which they are asked.
        hosts: Vec<Host>,
        /// Name of the primary.
        master: Box<str>,
    },
}

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or IP address, without brackets.
    pub name: Box<str>,
    /// TCP port.
    pub port: u16,
}

/// User and password for `AUTH`. Not printed by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// User of an ACL. `None` for the default user.
    pub user: Option<Box<[u8]>>,
    /// Password. `None` if the server asks for none.
    pub password: Option<Box<[u8]>>,
}

/// Error: the text is no URL of a cluster, or says something twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(&'static str);

const FORMS: BadUrl = BadUrl(
    "not the URL of a Redis: give redis://[USER[:PASSWORD]@]HOST[:PORT][/DB], \
     redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER or redis+unix:PATH, rediss:// or \
     rediss-sentinel:// for TLS, and ?prefix=NAME if several clusters share a Redis",
);
const BAD_HOST: BadUrl = BadUrl(
    "the URL has no valid HOST[:PORT]; in a password, write / as %2F, ? as %3F, # as %23 and % as \
     %25",
);
const BAD_ESCAPE: BadUrl = BadUrl("the URL has a % without two hexadecimal digits: write % as %25");
const BAD_DATABASE: BadUrl = BadUrl("the database is not a number: give redis://HOST/0");
const NO_MASTER: BadUrl =
    BadUrl("the URL names no primary: give redis-sentinel://HOST[:PORT],HOST[:PORT]/MASTER");
const BAD_QUERY: BadUrl = BadUrl("after ?, the URL may have prefix=NAME, db=NUMBER and user=NAME");
const BAD_PREFIX: BadUrl =
    BadUrl("the prefix needs 1 to 64 ASCII letters, digits, hyphens, underscores, dots or colons");
const GIVEN_TWICE: BadUrl = BadUrl("the URL has the database, the user or the prefix twice");
const PASSWORD_TWICE: BadUrl = BadUrl(
    "the password is given twice: use one of the URL, SPEAK_CLUSTER_PASSWORD and \
     SPEAK_CLUSTER_PASSWORD_FILE",
);

impl ClusterUrl {
    /// Parses the value of `--cluster`.
    ///
    /// # Errors
    ///
    /// [`BadUrl`], which quotes nothing of `text`.
    pub fn parse(text: &str) -> Result<Self, BadUrl> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut parts = Parts::default();
        parts.add_query(query)?;
        let mut is_tls = false;
        let servers = if let Some(path) = place.strip_prefix("redis+unix:") {
            if path.is_empty() {
                return Err(FORMS);
            }
            Servers::Unix(path.into())
        } else {
            let (scheme, rest) = place.split_once("://").ok_or(FORMS)?;
            let rest = parts.take_login(rest)?;
            let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
            is_tls = scheme.starts_with("rediss");
            match scheme {
                "redis" | "rediss" => {
                    if !path.is_empty() {
                        parts.set_database(path)?;
                    }
                    Servers::Tcp(Host::parse(hosts, REDIS_PORT)?)
                }
                "redis-sentinel" | "rediss-sentinel" => {
                    let master = decode_text(path).filter(|it| !it.is_empty()).ok_or(NO_MASTER)?;
                    let hosts = hosts.split(',').map(|host| Host::parse(host, SENTINEL_PORT));
                    Servers::Sentinels { hosts: hosts.collect::<Result<_, _>>()?, master }
                }
                _ => return Err(FORMS),
            }
        };
        let prefix = parts.prefix.unwrap_or_else(|| DEFAULT_PREFIX.into());
        let database = parts.database.unwrap_or(0);
        Ok(Self { servers, is_tls, login: parts.login, database, prefix })
    }

    /// Sets a password that is not in the URL.
    ///
    /// # Errors
    ///
    /// [`BadUrl`] if there is a password already.
    pub fn set_password(&mut self, password: &[u8]) -> Result<(), BadUrl> {
        match self.login.password.replace(password.into()) {
            None => Ok(()),
            Some(_) => Err(PASSWORD_TWICE),
        }
    }

    /// Place of the server.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Whether the servers, and the Sentinels, speak TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// User and password.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Number of the database, for `SELECT`.
    #[must_use]
    pub fn database(&self) -> u32 {
        self.database
    }

    /// Beginning of the names of all keys: `speak`, unless the URL has another one.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// What the parts of a URL may each say once.
#[derive(Default)]
struct Parts {
    login: Login,
    database: Option<u32>,
    prefix: Option<Box<str>>,
}

impl Parts {
    /// Takes user and password from the front. Returns the rest. The last `@` separates them from
    /// the hosts, so a password may have one.
    fn take_login<'a>(&mut self, rest: &'a str) -> Result<&'a str, BadUrl> {
        let authority = rest.split('/').next().unwrap_or(rest);
        let Some((login, _)) = authority.rsplit_once('@') else { return Ok(rest) };
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        if !user.is_empty() {
            self.set_user(user)?;
        }
        self.login.password = password.map(decode).transpose()?;
        Ok(&rest[login.len() + 1..])
    }

    fn add_query(&mut self, query: &str) -> Result<(), BadUrl> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').ok_or(BAD_QUERY)? {
                ("prefix", value) => self.set_prefix(value)?,
                ("db", value) => self.set_database(value)?,
                ("user", value) => self.set_user(value)?,
                _ => return Err(BAD_QUERY),
            }
        }
        Ok(())
    }

    fn set_user(&mut self, text: &str) -> Result<(), BadUrl> {
        set_once(&mut self.login.user, decode(text)?)
    }

    fn set_database(&mut self, text: &str) -> Result<(), BadUrl> {
        set_once(&mut self.database, parse_number(text).ok_or(BAD_DATABASE)?)
    }

    /// A brace would begin or end the hash tag that keeps all keys together.
    fn set_prefix(&mut self, text: &str) -> Result<(), BadUrl> {
        let prefix = decode_text(text).ok_or(BAD_PREFIX)?;
        let is_valid = (1..=PREFIX_MAX).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
        if !is_valid {
            return Err(BAD_PREFIX);
        }
        set_once(&mut self.prefix, prefix)
    }
}

impl Host {
    fn parse(text: &str, default_port: u16) -> Result<Self, BadUrl> {
        let (name, rest) = match text.strip_prefix('[') {
            Some(inner) => inner.split_once(']').ok_or(BAD_HOST)?,
            None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => default_port,
            Some(port) => parse_number(port).filter(|port| *port != 0).ok_or(BAD_HOST)?,
            None => return Err(BAD_HOST),
        };
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || b":.".contains(&byte);
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_valid = if text.starts_with('[') {
            name.contains(':') && name.bytes().all(is_address)
        } else {
            name.bytes().all(is_name)
        };
        if name.is_empty() || !is_valid {
            return Err(BAD_HOST);
        }
        Ok(Self { name: name.into(), port })
    }
}

/// Parses digits alone: the standard library also accepts a plus sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), BadUrl> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(GIVEN_TWICE),
    }
}

/// Decodes escapes. A broken one is an error: the library would keep it, and a password would be
/// wrong.
fn decode(text: &str) -> Result<Box<[u8]>, BadUrl> {
    let is_whole = |escape: &str| {
        escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_whole) {
        return Err(BAD_ESCAPE);
    }
    Ok(percent_decode_str(text).collect())
}

fn decode_text(text: &str) -> Option<Box<str>> {
    let decoded = decode(text).ok()?;
    String::from_utf8(decoded.into()).ok().map(String::into_boxed_str)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for ClusterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.is_tls { "s" } else { "" };
        match &self.servers {
            Servers::Tcp(host) => write!(f, "redis{tls}://{host}/{}", self.database),
            Servers::Unix(path) => write!(f, "redis+unix:{}", Path::display(path)),
            Servers::Sentinels { hosts, master } => {
                let hosts: Vec<_> = hosts.iter().map(Host::to_string).collect();
                write!(f, "redis{tls}-sentinel://{}/{master}", hosts.join(","))
            }
        }
    }
}

impl fmt::Debug for ClusterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ClusterUrl {
        ClusterUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn login(text: &str) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let url = parse(text);
        let owned = |part: &Option<Box<[u8]>>| part.as_ref().map(|bytes| bytes.to_vec());
        (owned(&url.login.user), owned(&url.login.password))
    }

    #[test]
    fn each_form_is_displayed_in_full_and_without_a_login() {
        let cases = [
            ("redis://cache", "redis://cache:6379/0"),
            ("redis://cache/", "redis://cache:6379/0"),
            ("redis://ann:secret@cache:7000/3?prefix=talk", "redis://cache:7000/3"),
            ("redis://:secret@[::1]/2", "redis://[::1]:6379/2"),
            ("redis://[2001:db8::7]:1", "redis://[2001:db8::7]:1/0"),
            ("redis+unix:/run/redis/a.sock", "redis+unix:/run/redis/a.sock"),
            ("redis+unix:/run/a?db=2&user=ann", "redis+unix:/run/a"),
            ("redis-sentinel://a,b:5,[::1]/main", "redis-sentinel://a:26379,b:5,[::1]:26379/main"),
            ("rediss://ann:secret@cache", "rediss://cache:6379/0"),
            ("rediss-sentinel://a/main", "rediss-sentinel://a:26379/main"),
            ("redis-sentinel://ann:secret@a/main%201", "redis-sentinel://a:26379/main 1"),
        ];
        for (text, shown) in cases {
            let url = parse(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?} {:?}", url.login()), format!("{shown} Login"));
            assert_eq!(url.is_tls(), text.starts_with("rediss"));
        }
    }

    #[test]
    fn database_and_prefix_have_defaults_and_may_be_in_the_query() {
        let url = parse("redis://a");
        assert_eq!((url.database(), url.prefix()), (0, "speak"));
        let url = parse("redis://a/4?prefix=team-1.a_b:c");
        assert_eq!((url.database(), url.prefix()), (4, "team-1.a_b:c"));
        let url = parse("redis-sentinel://a/m?db=5&prefix=x");
        assert_eq!((url.database(), url.prefix()), (5, "x"));
    }

    #[test]
    fn user_and_password_are_decoded() {
        let some = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(login("redis://a"), (None, None));
        assert_eq!(login("redis://ann@a"), (some("ann"), None));
        assert_eq!(login("redis://:p@a"), (None, some("p")));
        assert_eq!(login("redis://:@a"), (None, some("")));
        assert_eq!(login("redis://a%40b:c%3ad%2Fe+f@a"), (some("a@b"), some("c:d/e+f")));
        assert_eq!(login("redis://ann:x@y:z@a"), (some("ann"), some("x@y:z")));
        assert_eq!(login("redis://:%ff%00@a").1, Some(vec![0xff, 0]));
        assert_eq!(login("redis+unix:/a?user=a%20b"), (some("a b"), None));
    }

    #[test]
    fn a_password_is_given_once() {
        let mut url = parse("redis://ann@a");
        assert_eq!(url.set_password(b"one"), Ok(()));
        assert_eq!(url.login().password.as_deref(), Some(&b"one"[..]));
        assert_eq!(url.set_password(b"two"), Err(PASSWORD_TWICE));
        assert_eq!(parse("redis://:x@a").set_password(b"y"), Err(PASSWORD_TWICE));
    }

    #[test]
    fn what_is_wrong_is_named_but_not_quoted() {
        let cases = [
            ("", FORMS),
            ("hunter2", FORMS),
            ("http://hunter2", FORMS),
            ("redis+unix:", FORMS),
            ("redis+unix:?prefix=hunter2", FORMS),
            ("redis://", BAD_HOST),
            ("redis://:hunter2@", BAD_HOST),
            ("redis://:hunter2/x@a", BAD_DATABASE),
            ("redis://hunter2:x", BAD_HOST),
            ("redis://a:0", BAD_HOST),
            ("redis://a:65536", BAD_HOST),
            ("redis://a:+1", BAD_HOST),
            ("redis://::1", BAD_HOST),
            ("redis://[::1", BAD_HOST),
            ("redis://[::1]6", BAD_HOST),
            ("redis://[hunter2]", BAD_HOST),
            ("redis://a b", BAD_HOST),
            ("redis://a,b", BAD_HOST),
            ("redis://a#hunter2", BAD_HOST),
            ("redis://:hunter%2@a", BAD_ESCAPE),
            ("redis://:hunter2%@a", BAD_ESCAPE),
            ("redis://a/hunter2", BAD_DATABASE),
            ("redis://a/+1", BAD_DATABASE),
            ("redis://a/4294967296", BAD_DATABASE),
            ("redis://a/1?db=1", GIVEN_TWICE),
            ("redis://ann@a?user=ann", GIVEN_TWICE),
            ("redis://a?prefix=b&prefix=b", GIVEN_TWICE),
            ("redis://a?hunter2", BAD_QUERY),
            ("redis://a?password=hunter2", BAD_QUERY),
            ("redis://a?prefix=", BAD_PREFIX),
            ("redis://a?prefix={hunter2}", BAD_PREFIX),
            ("redis-sentinel://a", NO_MASTER),
            ("redis-sentinel://a/", NO_MASTER),
            ("redis-sentinel:///main", BAD_HOST),
            ("redis-sentinel://a,,b/main", BAD_HOST),
            ("rediss://:hunter2@a:x", BAD_HOST),
            ("rediss+unix:/hunter2", FORMS),
            ("redisss://hunter2", FORMS),
        ];
        for (text, expected) in cases {
            let error = ClusterUrl::parse(text).expect_err(text);
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("hunter"));
        }
        let long = format!("redis://a?prefix={}", "x".repeat(PREFIX_MAX + 1));
        assert_eq!(ClusterUrl::parse(&long), Err(BAD_PREFIX));
    }
}

//! The first commands of a connection, and what their replies tell about the server.

use std::collections::VecDeque;

use super::connection::{Failure, ServerInfo};
use super::resp::push_command;
use super::url::{ClusterUrl, Login};
use super::value::{ErrorKind, Value};

/// Oldest version with all commands that Speak uses.
const VERSION_MIN: (u32, u32, u32) = (6, 2, 0);
/// Name of the connection in `CLIENT LIST`.
const CLIENT_NAME: &[u8] = b"speak";
/// Characters of an error that are quoted.
const QUOTE_MAX: usize = 200;

/// A handshake, which waits for replies.
#[derive(Debug)]
pub struct Handshake {
    login: Login,
    /// Commands without a reply.
    steps: VecDeque<Step>,
    /// Reply of `INFO`, all sections one after the other.
    info: String,
}

/// A command of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Auth,
    Select,
    SetName,
    Info(&'static str),
    Time,
}

impl Handshake {
    /// Appends all commands of the handshake to `out`: the server executes them in order, so it
    /// takes one round trip.
    #[must_use]
    pub fn start(url: &ClusterUrl, out: &mut Vec<u8>) -> Self {
        let login = url.login().clone();
        let mut steps = VecDeque::new();
        // A user without a password gets an empty one, which `nopass` accepts.
        let password = login.password.as_deref().unwrap_or_default();
        match &login.user {
            Some(user) => {
                push_command(out, &[b"AUTH", user, password]);
                steps.push_back(Step::Auth);
            }
            None if login.password.is_some() => {
                push_command(out, &[b"AUTH", password]);
                steps.push_back(Step::Auth);
            }
            None => {}
        }
        if url.database() != 0 {
            push_command(out, &[b"SELECT", url.database().to_string().as_bytes()]);
            steps.push_back(Step::Select);
        }
        push_command(out, &[b"CLIENT", b"SETNAME", CLIENT_NAME]);
        steps.push_back(Step::SetName);
        // Several sections in one command need Redis 7.
        for section in ["server", "memory", "persistence", "replication"] {
            push_command(out, &[b"INFO", section.as_bytes()]);
            steps.push_back(Step::Info(section));
        }
        push_command(out, &[b"TIME"]);
        steps.push_back(Step::Time);
        Self { login, steps, info: String::new() }
    }

    /// Handles a reply. Returns the server after the last one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the server is of no use.
    pub fn on_reply(&mut self, reply: &Value) -> Result<Option<ServerInfo>, Failure> {
        let Some(step) = self.steps.pop_front() else { return Err(not_redis()) };
        if let Value::Error(text) = reply {
            // Only a label for the operator: an ACL may forbid it, and another step reports that
            // the password is missing.
            let kind = reply.error_kind();
            let is_harmless = matches!(kind, Some(ErrorKind::NoPermission | ErrorKind::NoAuth));
            if step == Step::SetName && is_harmless {
                return Ok(None);
            }
            return Err(self.explain(step, text, kind.unwrap_or(ErrorKind::Other)));
        }
        match (step, reply) {
            (Step::Info(_), Value::Text(text)) => {
                self.info.push_str(&String::from_utf8_lossy(text));
                self.info.push('\n');
                Ok(None)
            }
            (Step::Time, reply) => {
                let unix_ms = unix_ms(reply).ok_or_else(not_redis)?;
                self.server_info(unix_ms).map(Some)
            }
            (_, Value::Text(_)) => Ok(None),
            _ => Err(not_redis()),
        }
    }

    fn server_info(&self, unix_ms: u64) -> Result<ServerInfo, Failure> {
        if self.field("loading")? == "1" {
            return Err(Failure::transient("Redis is loading its data".to_owned()));
        }
        // Valkey has another name for the field from 9.1 on, unless it is told to be like Redis.
        if self.field("redis_mode").or_else(|_| self.field("server_mode"))? == "cluster" {
            return Err(Failure::permanent(
                "Redis is in cluster mode: Speak needs a single one, with replicas if you like"
                    .to_owned(),
            ));
        }
        let version = version(self.field("redis_version")?);
        if version < VERSION_MIN {
            let (major, minor, patch) = version;
            return Err(Failure::permanent(format!(
                "Redis is of version {major}.{minor}.{patch}: Speak needs 6.2 or later"
            )));
        }
        Ok(ServerInfo {
            run_id: self.field("run_id")?.into(),
            version,
            unix_ms,
            evicts: self.field("maxmemory_policy")? != "noeviction",
            is_writable: self.field("role")? == "master",
        })
    }

    /// Returns a field of the replies to `INFO`.
    fn field(&self, name: &str) -> Result<&str, Failure> {
        let fields = self.info.lines().filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(its, _)| *its == name).map(|(_, value)| value.trim_end());
        values.next().ok_or_else(not_redis)
    }

    /// Describes an error, and what can be done.
    fn explain(&self, step: Step, text: &str, kind: ErrorKind) -> Failure {
        let command = match step {
            Step::Auth => "AUTH".to_owned(),
            Step::Select => "SELECT".to_owned(),
            Step::SetName => "CLIENT SETNAME".to_owned(),
            Step::Info(section) => format!("INFO {section}"),
            Step::Time => "TIME".to_owned(),
        };
        match kind {
            ErrorKind::WrongPassword => Failure::permanent(
                "Redis refuses the user or the password: correct the URL of --cluster, \
                 SPEAK_CLUSTER_PASSWORD or SPEAK_CLUSTER_PASSWORD_FILE"
                    .to_owned(),
            ),
            ErrorKind::NoAuth => Failure::permanent(
                "Redis wants a password: set SPEAK_CLUSTER_PASSWORD_FILE or \
                 SPEAK_CLUSTER_PASSWORD"
                    .to_owned(),
            ),
            ErrorKind::NoPermission => Failure::permanent(format!(
                "Redis forbids this user {command}: allow it in the ACL"
            )),
            ErrorKind::Loading => Failure::transient("Redis is loading its data".to_owned()),
            _ => {
                let reason = format!("Redis refuses {command}: {}", self.quote(text));
                // The other reasons are of the moment, as too many clients.
                let is_permanent = text.starts_with("DENIED")
                    || text.starts_with("ERR AUTH")
                    || (step == Step::Select && kind == ErrorKind::Other);
                Failure { reason, needs_operator: is_permanent }
            }
        }
    }

    /// Returns the beginning of an error. Only its first word if it may quote the login: some
    /// servers and proxies repeat a command that they do not know.
    fn quote(&self, text: &str) -> String {
        let Login { user, password } = &self.login;
        let has = |secret: &Option<Box<[u8]>>| {
            secret.as_deref().is_some_and(|secret| {
                !secret.is_empty() && text.contains(&*String::from_utf8_lossy(secret))
            })
        };
        let quoted = if has(user) || has(password) {
            text.split(' ').next().filter(|word| word.bytes().all(|byte| byte.is_ascii_uppercase()))
        } else {
            Some(text)
        };
        quoted.unwrap_or("an error").chars().filter(|it| !it.is_control()).take(QUOTE_MAX).collect()
    }
}

fn not_redis() -> Failure {
    Failure::permanent("the server is not a Redis that Speak knows".to_owned())
}

/// Parses `7.0.15`. A part that is missing or no number is 0.
fn version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Parses the reply of `TIME`: seconds and microseconds.
fn unix_ms(reply: &Value) -> Option<u64> {
    let [seconds, micros] = reply.as_array()? else { return None };
    let number = |value: &Value| std::str::from_utf8(value.as_text()?).ok()?.parse::<u64>().ok();
    number(seconds)?.checked_mul(1000)?.checked_add(number(micros)? / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# A\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:4f1\r\n\
        maxmemory_policy:noeviction\r\nloading:0\r\nrole:master\r\n";

    fn text(text: &str) -> Value {
        Value::Text(text.as_bytes().into())
    }

    fn error(text: &str) -> Value {
        Value::Error(text.into())
    }

    fn start(url: &str) -> (Handshake, String) {
        let mut out = Vec::new();
        let handshake = Handshake::start(&ClusterUrl::parse(url).unwrap(), &mut out);
        (handshake, String::from_utf8(out).unwrap())
    }

    /// Replies `info` to the first INFO, and what a Redis does to all else.
    fn finish(handshake: &mut Handshake, info: &str) -> Result<ServerInfo, Failure> {
        let mut info = Some(text(info));
        loop {
            let reply = match handshake.steps.front().expect("no result") {
                Step::Info(_) => info.take().unwrap_or_else(|| text("")),
                Step::Time => Value::Array(vec![text("1700000000"), text("123999")]),
                _ => text("OK"),
            };
            if let Some(server) = handshake.on_reply(&reply)? {
                assert_eq!(handshake.on_reply(&text("OK")), Err(not_redis()));
                return Ok(server);
            }
        }
    }

    #[test]
    fn commands_depend_on_the_url() {
        let (_, bytes) = start("redis://a");
        assert!(bytes.starts_with("*3\r\n$6\r\nCLIENT\r\n") && !bytes.contains("SELECT"));
        let (_, bytes) = start("redis://:p@a/3");
        assert!(
            bytes.starts_with("*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n")
        );
        let (_, bytes) = start("redis://u:p@a");
        assert!(bytes.starts_with("*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n"));
        let (_, bytes) = start("redis://u@a");
        assert!(bytes.starts_with("*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$0\r\n\r\n"));
    }

    #[test]
    fn the_server_is_described() {
        let (mut handshake, _) = start("redis://u:p@a/1");
        let server = finish(&mut handshake, INFO).unwrap();
        let expected = ServerInfo {
            run_id: "4f1".into(),
            version: (7, 0, 15),
            unix_ms: 1_700_000_000_123,
            evicts: false,
            is_writable: true,
        };
        assert_eq!(server, expected);
        let info = INFO.replace("noeviction", "allkeys-lru").replace("master", "slave");
        let server = finish(&mut start("redis://a").0, &info).unwrap();
        assert!(server.evicts && !server.is_writable);
    }

    /// As Valkey 9.1.2 replies. It claims to be of the last version of Redis with its licence.
    #[test]
    fn valkey_is_known_by_the_names_of_its_fields() {
        let names = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n\
            valkey_release_stage:ga\r\nserver_mode:standalone";
        let info = INFO.replace("redis_version:7.0.15\r\nredis_mode:standalone", names);
        let server = finish(&mut start("redis://a").0, &info).unwrap();
        assert_eq!((server.version, &*server.run_id), ((7, 2, 4), "4f1"));
        let info = info.replace("standalone", "cluster");
        let failure = finish(&mut start("redis://a").0, &info).unwrap_err();
        assert!(failure.reason.contains("cluster mode"), "{failure}");
    }

    #[test]
    fn a_server_of_no_use_is_refused() {
        let cases = [
            ("7.0.15", "6.0.16", "6.2 or later", true),
            ("standalone", "cluster", "cluster mode", true),
            ("loading:0", "loading:1", "loading its data", false),
            ("run_id", "id", "not a Redis", true),
        ];
        for (from, to, reason, needs_operator) in cases {
            let failure = finish(&mut start("redis://a").0, &INFO.replace(from, to)).unwrap_err();
            assert!(failure.reason.contains(reason), "{failure}");
            assert_eq!(failure.needs_operator, needs_operator);
        }
    }

    #[test]
    fn an_error_says_what_to_do_and_never_the_login() {
        let cases = [
            ("WRONGPASS invalid", "refuses the user or the password", true),
            ("NOPERM this user has no permissions", "forbids this user AUTH", true),
            ("NOAUTH Authentication required.", "wants a password", true),
            ("LOADING Redis is loading", "is loading", false),
            ("ERR max number of clients reached", "ERR max number of clients", false),
            ("DENIED Redis is in protected mode", "protected mode", true),
            ("ERR AUTH called without any password", "without any", true),
            ("ERR unknown command, with args: 'ann' 'hunter2'", "refuses AUTH: ERR", false),
            ("hunter2 is wrong", "refuses AUTH: an error", false),
        ];
        for (reply, reason, needs_operator) in cases {
            let (mut handshake, _) = start("redis://ann:hunter2@a");
            let failure = handshake.on_reply(&error(reply)).unwrap_err();
            assert!(failure.reason.contains(reason), "{failure}");
            assert!(!failure.reason.contains("hunter2") && !failure.reason.contains("ann"));
            assert_eq!(failure.needs_operator, needs_operator, "{reply}");
        }
        let (mut handshake, _) = start("redis://a/99");
        let failure = handshake.on_reply(&error("ERR DB index is out of range")).unwrap_err();
        assert!(failure.needs_operator && failure.reason.contains("SELECT: ERR DB"));
        let failure = start("redis://a").0.on_reply(&error(&"x\n".repeat(999))).unwrap_err();
        assert!(failure.reason.len() < 2 * QUOTE_MAX && !failure.reason.contains('\n'));
    }

    #[test]
    fn a_name_that_is_forbidden_does_no_harm() {
        let (mut handshake, _) = start("redis://a");
        assert_eq!(handshake.on_reply(&error("NOPERM no")), Ok(None));
        assert!(finish(&mut handshake, INFO).is_ok());
        let (mut handshake, _) = start("redis://a");
        assert_eq!(handshake.on_reply(&Value::Nil), Err(not_redis()));
    }
}

//! The question for the primary that Sentinels watch.

use std::net::{IpAddr, SocketAddr};

use super::connection::Failure;
use super::resp::push_command;
use super::value::{ErrorKind, Value};

/// Appends the question for the primary of this name.
pub fn push_question(out: &mut Vec<u8>, master: &str) {
    push_command(out, &[b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()]);
}

/// Returns the address of the primary in the answer of a Sentinel.
///
/// # Errors
///
/// [`Failure`] if the Sentinel knows no primary, or answers something else.
pub fn primary_in(reply: &Value) -> Result<SocketAddr, Failure> {
    match reply {
        Value::Array(parts) => address(parts).ok_or_else(|| {
            Failure::permanent(
                "the Sentinel does not give an IP address: unset its announce-hostnames".to_owned(),
            )
        }),
        Value::Nil => Err(Failure::permanent(
            "the Sentinel knows no primary of this name: correct the URL of --cluster".to_owned(),
        )),
        // It asks for a password of its own, which the URL has no place for.
        _ if matches!(reply.error_kind(), Some(ErrorKind::NoAuth | ErrorKind::NoPermission)) => {
            Err(Failure::permanent(
                "the Sentinel wants a password, which Speak does not support: let its default \
                 user call SENTINEL get-master-addr-by-name"
                    .to_owned(),
            ))
        }
        Value::Error(_) => {
            Err(Failure::permanent("the server is not a Sentinel that Speak knows".to_owned()))
        }
        _ => Err(Failure::permanent("the server is not a Sentinel".to_owned())),
    }
}

fn address(parts: &[Value]) -> Option<SocketAddr> {
    let [ip, port] = parts else { return None };
    let text = |value: &Value| value.as_text().and_then(|text| String::from_utf8(text.into()).ok());
    let ip: IpAddr = text(ip)?.parse().ok()?;
    Some(SocketAddr::new(ip, text(port)?.parse().ok().filter(|port| *port != 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(parts: &[&str]) -> Value {
        Value::Array(parts.iter().map(|part| Value::Text(part.as_bytes().into())).collect())
    }

    #[test]
    fn an_answer_is_an_address_or_says_what_to_do() {
        let primary = |parts: &[&str]| primary_in(&answer(parts)).map(|it| it.to_string());
        assert_eq!(primary(&["10.0.0.1", "7000"]), Ok("10.0.0.1:7000".to_owned()));
        assert_eq!(primary(&["::1", "7000"]), Ok("[::1]:7000".to_owned()));
        for parts in [&["cache", "7000"][..], &["10.0.0.1", "0"], &["10.0.0.1"], &[]] {
            assert!(primary(parts).unwrap_err().reason.contains("announce-hostnames"));
        }
        let reason = |reply: &Value| primary_in(reply).unwrap_err().reason;
        assert!(reason(&Value::Nil).contains("no primary of this name"));
        assert!(reason(&Value::Error("NOAUTH x".into())).contains("wants a password"));
        assert!(reason(&Value::Error("ERR unknown".into())).contains("not a Sentinel"));
        assert!(reason(&Value::Int(1)).contains("not a Sentinel"));
    }
}

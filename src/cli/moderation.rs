//! `speak create`, `speak remove CHANNEL ID` and `speak kick CHANNEL CONNECTION`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use serde_json::Value;

use super::cli_options::{CliOptions, Kind};
use super::client::Client;
use super::exit_status::{ExitStatus, Failure};
use super::http::{Request, form};
use super::output::print;
use super::tls::Verify;

/// Time for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Prints the two names of a new pair, a line each: what the name is for, and the name. The secret
/// one comes first.
pub(super) fn create(options: &CliOptions, _: &[OsString]) -> Result<ExitStatus, Failure> {
    let (kind, keys) = match options.kind {
        Kind::Inbox => ("inbox", ["read", "write"]),
        Kind::Feed => ("feed", ["write", "read"]),
        Kind::Room => ("room", ["owner", "channel"]),
    };
    let names = call(options, "/create", &[("kind", kind.as_bytes())])?;
    let mut lines = String::new();
    for key in keys {
        // A server of an earlier version makes an inbox, whatever it is asked for.
        let name = names[key].as_str().filter(|name| is_plain(name));
        let name = name.ok_or_else(|| {
            Failure::Error(format!("{}: this server makes no {kind}", options.server))
        })?;
        let _ = writeln!(lines, "{key} {name}");
    }
    print(&lines)?;
    Ok(ExitStatus::Success)
}

/// Returns whether a name can be printed on a terminal, and is one word.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Removes a message, and prints the id of the removal.
pub(super) fn remove(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let [channel, id] = operands else { unreachable!("the table asks for two") };
    let answer =
        call(options, "/remove", &[("channel", channel.as_bytes()), ("id", id.as_bytes())])?;
    let id = answer["id"]
        .as_u64()
        .ok_or_else(|| Failure::Error(format!("{}: the response has no id", options.server)))?;
    print(&format!("{id}\n"))?;
    Ok(ExitStatus::Success)
}

/// Sends a connection away.
pub(super) fn kick(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let [channel, connection] = operands else { unreachable!("the table asks for two") };
    let seconds = options.away.as_secs() + u64::from(options.away.subsec_nanos() > 0);
    let seconds = seconds.to_string();
    let mut parameters = vec![
        ("channel", channel.as_bytes()),
        ("connection", connection.as_bytes()),
        ("seconds", seconds.as_bytes()),
    ];
    parameters.extend(options.message.as_ref().map(|text| ("message", text.as_bytes())));
    call(options, "/kick", &parameters)?;
    Ok(ExitStatus::Success)
}

/// Makes one call, and returns its JSON.
fn call(options: &CliOptions, path: &str, parameters: &[(&str, &[u8])]) -> Result<Value, Failure> {
    let mut client = Client::new(options.server.clone(), Verify::Yes);
    let form = form(parameters);
    let response = client
        .call(&Request::form(path, &form), RESPONSE_TIMEOUT)
        .map_err(|error| Failure::Error(format!("{}: {error}", options.server)))?;
    match response.rejection() {
        None => Ok(response.json()),
        Some(rejection) => Err(Failure::Error(rejection)),
    }
}

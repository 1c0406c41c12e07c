//! `--check`: does what a start does, in its order and up to its first error, and leaves nothing
//! behind. No socket listens, no file is created or changed, no lock is kept.
//!
//! A running Speak with the same options is no error: an upgrade takes over what it has, and a
//! restart frees it. Everything else that stops a start stops the check, with the same line.

use std::fmt::Arguments;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::bind::{check_addresses, check_tls};
use super::challenge_dir::ChallengeDir;
use super::clock::unix_ms;
use super::clustering::ClusterSockets;
use super::start_error::StartError;
use super::startup::state_file_error;
use super::tls::ServerTls;
use super::{journaling, rlimit};
use crate::hub::Config;
use crate::journal::Checked;
use crate::options::{ListenAddr, Options};
use crate::sandbox::{OutgoingPorts, Sandbox};
use crate::service::hub_config;
use crate::snapshot::{LoadError, StateFile};

const SECONDS_PER_DAY: u64 = 86_400;
/// A certificate with less time is a warning. ACME clients renew 30 days before the end.
const DAYS_LEFT_MIN: u64 = 14;

/// Checks what a start with these options needs, and prints a line for each finding on standard
/// output. Drops the privileges of the process, as a start does. `random` fills a buffer.
///
/// # Errors
///
/// [`StartError`] with the line of the start's first error.
pub(super) fn check(
    options: &Options,
    sandbox: Sandbox,
    random: fn(&mut [u8]),
) -> Result<(), StartError> {
    report("ok", "options", format_args!("all are valid"));
    let files = rlimit::raise_file_limit();
    let config = hub_config(options, random);
    // First, since a running server would be using the journal, too. Reported in the start's order.
    let mut addresses = Vec::new();
    let bound = check_addresses(options, &mut |address, owner| {
        addresses.push((address.to_string(), owner));
    });
    let is_running = addresses.iter().any(|(_, owner)| owner.is_some());
    check_journal(options, is_running, &config)?;
    let state = options.state.clone().map(StateFile::new);
    state.as_ref().map_or(Ok(()), |file| check_state(file, &config))?;
    let tls = ServerTls::start(options, unix_ms() / 1000)?;
    for file in &options.tls_cert {
        report("ok", "tls", format_args!("{} fits its key", file.display()));
    }
    bound?;
    for (address, owner) in &addresses {
        match owner {
            None => report("ok", "listen", format_args!("{address} is free")),
            Some(owner) => {
                let note = "an upgrade takes it over, a restart frees it";
                report("ok", "listen", format_args!("{address} is in use by {owner}: {note}"));
            }
        }
    }
    check_tls(tls.is_some(), options.listen.iter().any(|it| matches!(it, ListenAddr::Tls(_))))?;
    let limits = files.accept_limits(options.max_clients, addresses.len());
    report("ok", "limits", format_args!("{} clients at once", limits.clients));
    let cluster = ClusterSockets::check(options)?;
    if let Some(cluster) = &cluster {
        report("ok", "cluster", format_args!("the host of its Redis is known"));
        for (address, expires_s) in &cluster.certificates {
            check_certificate(*address, expires_s)?;
        }
    }
    let outgoing = cluster.map_or(OutgoingPorts::Only(Vec::new()), |cluster| cluster.outgoing);
    check_confined(options, sandbox, &outgoing, state.as_ref(), tls.as_ref())
}

/// Reports the certificate of a Redis, or the reason why there is none. A start waits for a Redis
/// that is away, and fails if a certificate is wrong.
fn check_certificate(address: SocketAddr, expires_s: &io::Result<u64>) -> Result<(), StartError> {
    let name = "cluster";
    match expires_s {
        Ok(expires_s) => {
            let days = expires_s.saturating_sub(unix_ms() / 1000) / SECONDS_PER_DAY;
            let verdict = if days < DAYS_LEFT_MIN { "warn" } else { "ok" };
            let text = format_args!("{address}: {days} days left of the certificate of its Redis");
            report(verdict, name, text);
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(StartError(format!("--cluster: {address}: {error}")));
        }
        Err(error) => {
            report("warn", name, format_args!("{address}: {error}; a start waits for its Redis"));
        }
    }
    Ok(())
}

/// Drops the privileges, and checks what has to work without them.
fn check_confined(
    options: &Options,
    sandbox: Sandbox,
    outgoing: &OutgoingPorts,
    state: Option<&StateFile>,
    tls: Option<&ServerTls>,
) -> Result<(), StartError> {
    let journal = options.journal.as_deref().and_then(|it| Some((it, fs::metadata(it).ok()?)));
    let status = sandbox.drop_privileges(&[], outgoing).map_err(StartError)?;
    report("ok", "sandbox", format_args!("{status}"));
    if let Some(file) = state {
        file.check_access().map_err(|error| state_file_error(file, "write", &error))?;
    }
    if let Some(path) = &options.acme_challenges {
        ChallengeDir::new(path.clone())?;
        report("ok", "challenges", format_args!("{}", path.display()));
    }
    if let Some(tls) = tls {
        tls.check_readable();
    }
    // The start gives the journal that root has created to the user.
    match journal {
        Some((path, about)) if about.uid() != 0 => check_journal_access(path),
        _ => Ok(()),
    }
}

/// Prints a line as those of `speak doctor`. `verdict` is "ok" or "warn".
// Not inlined: a dozen places call it.
#[inline(never)]
fn report(verdict: &str, name: &str, text: Arguments<'_>) {
    // Fails only if standard output is closed.
    let _ = writeln!(io::stdout(), "{verdict:<5} {name:<10} {text}");
}

fn check_journal(options: &Options, is_running: bool, config: &Config) -> Result<(), StartError> {
    let Some(checked) = journaling::check(options, is_running, config)? else { return Ok(()) };
    let path = options.journal.as_deref().unwrap_or(Path::new("")).display();
    match checked {
        Checked::New => report("ok", "journal", format_args!("{path} is to be created")),
        Checked::Read { records } => {
            report("ok", "journal", format_args!("{path}: {records} records after its snapshot"));
        }
        Checked::InUse => {
            let text = "is in use by the running server, so it was not read";
            report("ok", "journal", format_args!("{path} {text}"));
        }
    }
    Ok(())
}

fn check_state(file: &StateFile, config: &Config) -> Result<(), StartError> {
    let path = file.path().display();
    let read = file.read(config, unix_ms());
    if let Err(LoadError::Io(error)) = &read {
        return Err(state_file_error(file, "read", error));
    }
    file.check_access().map_err(|error| state_file_error(file, "write", &error))?;
    match read {
        Ok(None) => report("ok", "state", format_args!("{path}: none, a start begins empty")),
        Ok(Some((hub, _))) => {
            let gauges = hub.gauges();
            let (channels, connections) = (gauges.channels, gauges.sessions);
            let text = format_args!("{path}: channels={channels} connections={connections}");
            report("ok", "state", text);
        }
        Err(reason) => {
            let text = "a start renames the file and begins empty";
            report("warn", "state", format_args!("{path}: {reason}; {text}"));
        }
    }
    Ok(())
}

/// Checks that the user that the process has switched to can write the journal.
fn check_journal_access(path: &Path) -> Result<(), StartError> {
    let change = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, path, change, AtFlags::EACCESS).map_err(|error| {
        let error = io::Error::from(error);
        StartError(format!("cannot write the journal {}: {error}", path.display()))
    })
}

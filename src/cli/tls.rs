//! TLS by `openssl s_client`, a child whose pipes are the connection.
//!
//! A TLS library would double the program, for the sake of two commands. OpenSSL is on nearly every machine that has `https` at
//! all, and knows whom that machine trusts (`SSL_CERT_FILE` adds to it).

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::server_url::Authority;
use super::tcp::connect_tcp;

/// Whether a certificate has to be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// It has to.
    Yes,
    /// Whoever answers is taken: for a look at what else there is, never with a secret.
    No,
}

/// The child, ended and reaped when dropped.
pub(super) struct Tls {
    child: Child,
    stderr: ChildStderr,
    host: Authority,
    stderr_text: Vec<u8>,
}

impl Tls {
    /// Starts it; whether a connection comes about shows when something is read.
    pub fn start(host: &Authority, trust: Verify) -> Result<(Self, OwnedFd, OwnedFd), ClientError> {
        let mut command = Command::new("openssl");
        // Quiet, so that no line of ours is taken for one of its own commands; brief, to be told what came about.
        command.args(["s_client", "-quiet", "-brief", "-alpn", "http/1.1", "-connect"]);
        command.arg(format!("{}:{}", host.bracketed(), host.port));
        let is_address = host.name.parse::<IpAddr>().is_ok();
        if is_address {
            command.arg("-noservername");
        } else {
            command.args(["-servername", &host.name]);
        }
        if trust == Verify::Yes {
            command.arg("-verify_return_error");
            command.args([if is_address { "-verify_ip" } else { "-verify_hostname" }, &host.name]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => ClientError::NoOpenssl,
            _ => ClientError::Tls(format!("openssl does not start: {error}")),
        })?;
        let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
            unreachable!("all three were asked for")
        };
        Ok((
            Self { child, stderr, host: host.clone(), stderr_text: Vec::new() },
            stdout.into(),
            stdin.into(),
        ))
    }

    /// What it has told so far, a line each.
    pub fn stderr_text(&mut self) -> Vec<String> {
        let mut buffer = [0; 4096];
        if rustix::io::ioctl_fionbio(&self.stderr, true).is_ok() {
            while let Ok(count) = self.stderr.read(&mut buffer) {
                self.stderr_text.extend_from_slice(&buffer[..count]);
                if count == 0 {
                    break;
                }
            }
        }
        String::from_utf8_lossy(&self.stderr_text).lines().map(str::to_owned).collect()
    }

    /// The version of TLS that came about, if it did.
    pub fn version(&mut self) -> Option<String> {
        self.stderr_text()
            .iter()
            .find_map(|line| Some(line.strip_prefix("Protocol version: ")?.to_owned()))
    }

    /// Why there was an end before any answer.
    pub fn take_error(&mut self) -> ClientError {
        // It has closed its output, so it is about to leave.
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let lines = self.stderr_text();
        if lines.iter().any(|line| line == "CONNECTION ESTABLISHED") {
            return ClientError::ClosedBeforeResponse;
        }
        if let Some(fault) = lines.iter().rev().find_map(|line| certificate(line)) {
            return fault;
        }
        if let Err(fault) = connect_tcp(&self.host, Instant::now() + Duration::from_secs(5)) {
            return fault;
        }
        let reason =
            lines.iter().find_map(|line| line.split(":SSL routines:").nth(1)?.split(':').nth(1));
        ClientError::Tls(reason.unwrap_or("nothing there speaks TLS").to_owned())
    }
}

/// `verify error:num=18:self-signed certificate`.
fn certificate(line: &str) -> Option<ClientError> {
    let (code, words) = line.split_once("verify error:num=")?.1.split_once(':')?;
    Some(ClientError::Certificate(code.parse().ok()?, words.to_owned()))
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! TLS by `openssl s_client`: a child process whose pipes are the connection.
//!
//! A TLS library would double the size of the program for three commands. OpenSSL is on nearly
//! every machine that uses `https`, and knows the authorities that the machine trusts
//! (`SSL_CERT_FILE` adds others).

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::server_url::Authority;
use super::tcp::connect_tcp;

/// Check of the server's certificate: valid, trusted, and for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Yes,
    /// Accept any server. Only for checks that send no secret.
    No,
}

/// Returns the arguments of `s_client` for a server and its name.
pub(super) fn connect_arguments(host: &Authority) -> Vec<String> {
    let address = format!("{}:{}", host.bracketed(), host.port);
    let mut arguments = vec!["-connect".to_owned(), address];
    if is_address(host) {
        arguments.push("-noservername".to_owned());
    } else {
        arguments.extend(["-servername".to_owned(), host.name.clone()]);
    }
    arguments
}

fn is_address(host: &Authority) -> bool {
    host.name.parse::<IpAddr>().is_ok()
}

/// The child process. Dropping it kills and reaps the child.
pub(super) struct Tls {
    child: Child,
    stderr: ChildStderr,
    host: Authority,
    /// Output on standard error so far.
    stderr_text: Vec<u8>,
}

impl Tls {
    /// Starts the child. The first read shows whether it could connect.
    pub fn start(
        host: &Authority,
        verify: Verify,
    ) -> Result<(Self, OwnedFd, OwnedFd), ClientError> {
        let mut command = Command::new("openssl");
        // `-quiet`: no line of input is a command of s_client. `-brief`: it reports the connection.
        command.args(["s_client", "-quiet", "-brief", "-alpn", "http/1.1"]);
        command.args(connect_arguments(host));
        let is_address = is_address(host);
        if verify == Verify::Yes {
            command.arg("-verify_return_error");
            command.args([if is_address { "-verify_ip" } else { "-verify_hostname" }, &host.name]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => ClientError::NoOpenssl,
            _ => ClientError::Tls(format!("openssl cannot be started: {error}")),
        })?;
        let pipes = (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let (Some(stdout), Some(stdin), Some(stderr)) = pipes else {
            unreachable!("all three are piped")
        };
        Ok((
            Self { child, stderr, host: host.clone(), stderr_text: Vec::new() },
            stdout.into(),
            stdin.into(),
        ))
    }

    /// Returns the lines on standard error so far.
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

    /// Returns the version of TLS. None before the handshake.
    pub fn version(&mut self) -> Option<String> {
        self.stderr_text()
            .iter()
            .find_map(|line| Some(line.strip_prefix("Protocol version: ")?.to_owned()))
    }

    /// Returns the error for a connection that ended before any response.
    pub fn take_error(&mut self) -> ClientError {
        // The child has closed its output, so it exits soon.
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let lines = self.stderr_text();
        if lines.iter().any(|line| line == "CONNECTION ESTABLISHED") {
            return ClientError::ClosedBeforeResponse;
        }
        if let Some(error) = lines.iter().rev().find_map(|line| parse_certificate_error(line)) {
            return error;
        }
        if let Err(error) = connect_tcp(&self.host, Instant::now() + Duration::from_secs(5)) {
            return error;
        }
        let reason =
            lines.iter().find_map(|line| line.split(":SSL routines:").nth(1)?.split(':').nth(1));
        ClientError::Tls(reason.unwrap_or("the server does not speak TLS").to_owned())
    }
}

/// Parses a line such as `verify error:num=18:self-signed certificate`.
fn parse_certificate_error(line: &str) -> Option<ClientError> {
    let (code, text) = line.split_once("verify error:num=")?.1.split_once(':')?;
    Some(ClientError::Certificate(code.parse().ok()?, text.to_owned()))
}

impl Drop for Tls {
    fn drop(&mut self) {
        // Both fail only if the child has exited and was reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

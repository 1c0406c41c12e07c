//! The certificate of a server, as `openssl` prints it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::target::RESPONSE_TIMEOUT;
use crate::cli::server_url::Authority;
use crate::cli::tls::connect_arguments;

const SECONDS_PER_DAY: u64 = 86_400;

/// Marks of a certificate in PEM.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What a server shows of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerCertificate {
    /// Names and addresses for which it is valid.
    names: String,
    /// Kind and size of the key.
    key: String,
    /// Certificates that the server sends.
    chain_length: usize,
    begin: SystemTime,
    end: SystemTime,
}

impl ServerCertificate {
    /// Asks a server. `None` if it gives no certificate in time.
    pub fn get(host: &Authority) -> Option<Self> {
        let mut connect = Command::new("openssl");
        connect.args(["s_client", "-showcerts"]).args(connect_arguments(host));
        let shown = output_of(connect, "")?;
        let chain: Vec<_> = shown.match_indices(BEGIN).map(|(at, _)| at).collect();
        let first = &shown[*chain.first()?..];
        let first = &first[..first.find(END)? + END.len()];
        let mut print = Command::new("openssl");
        print.args(["x509", "-noout", "-text"]);
        // s_client also repeats the server's own certificate, after the chain.
        let chain_length = chain.len().saturating_sub(1).max(1);
        Self::parse(&output_of(print, first)?, chain_length)
    }

    /// Parses the output of `openssl x509 -text`.
    fn parse(text: &str, chain_length: usize) -> Option<Self> {
        let after = |mark: &str| {
            let (_, rest) = text.split_once(mark)?;
            Some(rest.lines().next()?.trim())
        };
        let algorithm = after("Public Key Algorithm: ")?;
        let algorithm = match algorithm {
            "id-ecPublicKey" => "ECDSA",
            "rsaEncryption" => "RSA",
            other => other,
        };
        let size = after("Public-Key: (").and_then(|size| size.strip_suffix(')'));
        let key = size.map_or(algorithm.to_owned(), |size| format!("{algorithm} {size}"));
        // The line after the name of the extension. Without it, no browser accepts the certificate.
        let names = text
            .split_once("Subject Alternative Name:")
            .map_or("no name", |(_, rest)| rest.lines().nth(1).unwrap_or_default().trim());
        Some(Self {
            names: names.replace("DNS:", "").replace("IP Address:", ""),
            key,
            chain_length,
            begin: parse_time(after("Not Before: ")?)?,
            end: parse_time(after("Not After : ")?)?,
        })
    }

    /// Returns the facts in one line.
    pub fn describe(&self, now: SystemTime) -> String {
        let Self { names, key, chain_length, .. } = self;
        let days = self.left(now).as_secs() / SECONDS_PER_DAY;
        format!("{days} days left, {key}, chain of {chain_length}, for {names}")
    }

    /// Returns whether a renewal is overdue: a sixth of the lifetime is left, which is two weeks
    /// for 90 days. ACME clients renew when a third is left.
    pub fn is_overdue(&self, now: SystemTime) -> bool {
        let life = self.end.duration_since(self.begin).unwrap_or_default();
        self.left(now) < life / 6
    }

    fn left(&self, now: SystemTime) -> Duration {
        self.end.duration_since(now).unwrap_or_default()
    }
}

/// Parses a time as `Nov  9 08:49:37 2026 GMT`. With the name of its day, that is a form of HTTP's
/// dates (RFC 9110, section 5.6.7).
fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix(" GMT")?;
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    days.iter().find_map(|day| httpdate::parse_http_date(&format!("{day} {text}")).ok())
}

/// Returns what a program prints for this input. `None` if it takes too long.
fn output_of(mut command: Command, input: &str) -> Option<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    // Less than a pipe holds. The end of the input ends s_client after the handshake.
    child.stdin.take()?.write_all(input.as_bytes()).ok()?;
    let deadline = Instant::now() + RESPONSE_TIMEOUT;
    let has_ended = loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(status) => break status.is_some(),
            Err(_) => break false,
        }
    };
    if !has_ended {
        // Both fail only if it has ended just now.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut output = String::new();
    child.stdout.take()?.read_to_string(&mut output).ok()?;
    Some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_what_openssl_prints() {
        let lines = [
            "            Not Before: Nov  9 14:55:40 2026 GMT",
            "            Not After : Dec 29 14:55:40 2026 GMT",
            "            Public Key Algorithm: id-ecPublicKey",
            "                Public-Key: (256 bit)",
            "            X509v3 Subject Alternative Name: ",
            "                DNS:localhost, IP Address:127.0.0.1",
            "    Signature Algorithm: ecdsa-with-SHA256",
        ];
        let text = &lines.join("\n");
        let certificate = ServerCertificate::parse(text, 2).unwrap();
        let at = |days| certificate.begin + Duration::from_secs(days * SECONDS_PER_DAY);
        assert_eq!(
            certificate.describe(at(20)),
            "30 days left, ECDSA 256 bit, chain of 2, for localhost, 127.0.0.1"
        );
        assert!(!certificate.is_overdue(at(40)) && certificate.is_overdue(at(42)));
        assert!(certificate.is_overdue(at(60)));
        assert_eq!(ServerCertificate::parse("nothing", 1), None);
    }
}

//! The values of listeners that speak TLS.

use super::prometheus::{Kind, Page};

/// Results of handshakes: with a certificate and a signature; with a ticket of an earlier
/// connection; without an agreement; plain HTTP; closed or timed out before the end.
const RESULTS: [&str; 5] = ["full", "resumed", "refused", "plain_text", "abandoned"];

/// Values of TLS at one moment. All empty without it.
#[derive(Debug, Default)]
pub struct TlsStats {
    /// Numbers of handshakes, by result.
    pub handshakes: [u64; RESULTS.len()],
    /// End of the certificate that ends first, in Unix seconds.
    pub expires_s: Option<u64>,
    /// Pairs of files that could not be used when they were read again.
    pub reload_failures: u64,
}

impl TlsStats {
    /// Appends the values. A server without TLS has no time at which its certificate expires:
    /// that would be in 1970.
    pub(super) fn write(&self, page: &mut Page<'_>) {
        let help = "Handshakes of TLS, by result.";
        let mut family = page.family("speak_tls_handshakes_total", Kind::Counter, help);
        for (result, count) in std::iter::zip(RESULTS, self.handshakes) {
            family.labelled_sample(&[("result", &result)], count);
        }
        let name = "speak_tls_certificate_expiry_timestamp_seconds";
        let help = "End of the certificate that expires first, in seconds since 1970.";
        let mut family = page.family(name, Kind::Gauge, help);
        if let Some(expires_s) = self.expires_s {
            family.sample(expires_s);
        }
        let help = "Certificates that could not be read again; the server keeps the old ones.";
        page.counter("speak_tls_reload_failures_total", help, self.reload_failures);
    }
}

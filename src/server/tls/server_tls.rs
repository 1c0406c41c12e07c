//! The certificates of the server, read from their files, and what its listeners need of them.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::api::reject_plain_http;
use crate::metrics::TlsStats;
use crate::options::Options;
use crate::server::os_socket::OsSocket;
use crate::server::start_error::StartError;
use crate::tls::{Certificate, Certificates, Outcome, PemFiles, TlsContext, TlsSocket};

/// Socket of a client, with TLS or without.
pub(in crate::server) type ClientSocket = TlsSocket<OsSocket>;

/// What a listener needs for clients that speak TLS.
#[derive(Clone)]
pub(in crate::server) struct TlsAcceptor(Rc<TlsContext>);

impl TlsAcceptor {
    /// Wraps the socket of a client that begins with a handshake.
    ///
    /// # Errors
    ///
    /// The kernel gives no random bytes.
    pub(in crate::server) fn accept(&self, socket: OsSocket) -> io::Result<ClientSocket> {
        TlsSocket::accept(socket, &self.0).ok_or_else(|| io::Error::other("no random bytes"))
    }
}

/// Certificates of the server, and the state that its clients with TLS share.
pub(in crate::server) struct ServerTls {
    context: Rc<TlsContext>,
    files: Vec<CertificateFiles>,
    reload_failures: Rc<Cell<u64>>,
}

/// Files of a certificate.
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl CertificateFiles {
    /// Reads both files. They may be replaced while that happens: then they do not match, and the
    /// signal that follows reads them again.
    fn read(&self) -> Result<Certificate, String> {
        let Self { certificate, key } = self;
        let [certificate_file, key_file] = [certificate, key].map(|path| path.display());
        let read = |path| fs::read(path).map_err(|error| error.to_string());
        let pem = read(certificate)
            .map_err(|error| format!("cannot read the certificate {certificate_file}: {error}"))?;
        let key_pem =
            read(key).map_err(|error| format!("cannot read the key {key_file}: {error}"))?;
        let files = PemFiles {
            certificate_file: &certificate_file.to_string(),
            certificate: &pem,
            key_file: &key_file.to_string(),
            key: &key_pem,
        };
        Certificate::parse_untimed(&files).map_err(|error| error.to_string())
    }

    fn check_time(&self, certificate: &Certificate, unix_s: u64) -> Result<(), String> {
        let file = self.certificate.display().to_string();
        certificate.check_time(&file, unix_s).map_err(|error| error.to_string())
    }
}

impl ServerTls {
    /// Reads the certificates of the options. `None` if there are none.
    ///
    /// A certificate that has expired is only logged: this server may be the one that answers the
    /// challenges for the next one.
    ///
    /// # Errors
    ///
    /// [`StartError`] for a pair of files that cannot be used.
    pub(in crate::server) fn start(
        options: &Options,
        unix_s: u64,
    ) -> Result<Option<Self>, StartError> {
        let files: Vec<_> = std::iter::zip(&options.tls_cert, &options.tls_key)
            .map(|(certificate, key)| CertificateFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            })
            .collect();
        let mut certificates = Vec::with_capacity(files.len());
        for pair in &files {
            let certificate =
                pair.read().map_err(|error| StartError(format!("cannot start: {error}")))?;
            if let Err(error) = pair.check_time(&certificate, unix_s) {
                log::warn!("{error}; clients will refuse it");
            }
            certificates.push(certificate);
        }
        Ok(Certificates::new(certificates).map(|certificates| Self {
            context: TlsContext::new(certificates, reject_plain_http, unix_s),
            files,
            reload_failures: Rc::default(),
        }))
    }

    /// Returns what a listener needs.
    pub(in crate::server) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor(Rc::clone(&self.context))
    }

    /// Sets the time, once a turn.
    pub(in crate::server) fn begin_turn(&self, unix_s: u64) {
        self.context.set_time(unix_s);
    }

    /// Logs which files cannot be read again. Call with the privileges that the process keeps.
    pub(in crate::server) fn check_readable(&self) {
        for path in self.files.iter().flat_map(|pair| [&pair.certificate, &pair.key]) {
            if let Err(error) = File::open(path) {
                log::warn!(
                    "cannot read a certificate again file={}: {error}; SIGHUP and upgrades will \
                     fail until the user of the server may read it",
                    path.display()
                );
            }
        }
    }

    /// Reads all certificates again, for handshakes from now on. For a pair that cannot be used,
    /// the certificate before it stays.
    pub(in crate::server) fn reload(&self, unix_s: u64) {
        let mut certificates = Vec::with_capacity(self.files.len());
        self.context.visit_certificates(|certificate| certificates.push(certificate.clone()));
        let mut failures = 0;
        for (pair, certificate) in std::iter::zip(&self.files, &mut certificates) {
            let read = pair.read().and_then(|new| pair.check_time(&new, unix_s).map(|()| new));
            match read {
                Ok(new) => *certificate = new,
                Err(error) => {
                    failures += 1;
                    log::error!("{error}; the certificate before it stays in use");
                }
            }
        }
        self.reload_failures.update(|count| count + failures);
        let replaced = self.files.len() as u64 - failures;
        let certificates = Certificates::new(certificates).expect("as many as before");
        self.context.set_certificates(certificates);
        log::info!("read certificates again replaced={replaced} kept={failures}");
    }

    /// Returns a function that reads the values of the metrics.
    pub(in crate::server) fn stats_reader(&self) -> impl FnMut() -> TlsStats + 'static {
        let (context, failures) = (Rc::clone(&self.context), Rc::clone(&self.reload_failures));
        move || {
            let mut expires_s = None;
            context.visit_certificates(|certificate| {
                let its = certificate.expires_s();
                expires_s = Some(expires_s.map_or(its, |first: u64| first.min(its)));
            });
            // In the order of the labels.
            let handshakes = Outcome::ALL.map(|outcome| context.count(outcome));
            TlsStats { handshakes, expires_s, reload_failures: failures.get() }
        }
    }

    /// Returns the keys of the tickets, for a successor. They are secret.
    pub(in crate::server) fn ticket_keys(&self) -> Vec<u8> {
        self.context.export_ticket_keys()
    }

    /// Continues with the keys of a predecessor's tickets.
    pub(in crate::server) fn set_ticket_keys(&self, keys: &[u8]) {
        if !self.context.import_ticket_keys(keys) {
            log::warn!("the old process sent no keys of tickets: clients need full handshakes");
        }
    }

    /// Wraps a socket of the predecessor, with the state that it has exported. `None` if that is
    /// something else.
    pub(in crate::server) fn adopt(&self, socket: OsSocket, state: &[u8]) -> Option<ClientSocket> {
        if state.is_empty() {
            TlsSocket::accept(socket, &self.context)
        } else {
            TlsSocket::import(socket, state)
        }
    }
}

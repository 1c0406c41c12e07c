//! Certificates that `openssl` makes, and clients of rustls that trust them.
//!
//! With `SPEAK_TEST_TLS=1`, the public listener of each server speaks TLS, and so do its clients.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::folder::Folder;

/// Environment variable that makes servers speak TLS whose tests did not ask for it.
const TLS_ENV: &str = "SPEAK_TEST_TLS";

/// Listeners that speak TLS because of [`TLS_ENV`].
static WITH_TLS: Mutex<Option<HashSet<SocketAddr>>> = Mutex::new(None);

/// The certificate of these servers, and the configuration of their clients.
static SHARED: LazyLock<(Pair, Arc<ClientConfig>)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let pair = Pair::in_folder(folder, &format!("{}", std::process::id()));
    pair.make_files("all", &ECDSA, "30");
    let config = trusting(&[&pair]);
    (pair, config)
});

/// Returns the command of a server, whose listeners on any port speak TLS if this run of the tests
/// asks for it.
pub fn add_tls(server: Command) -> Command {
    let is_any = |before: &str, argument: &str| before == "--listen" && argument == "127.0.0.1:0";
    let arguments: Vec<_> =
        server.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let has_any = arguments.iter().zip(arguments.iter().skip(1)).any(|(a, b)| is_any(a, b));
    if std::env::var_os(TLS_ENV).is_none() || !has_any {
        return server;
    }
    let mut command = Command::new(server.get_program());
    let mut before = "";
    for argument in &arguments {
        let prefix = if is_any(before, argument) { "tls:" } else { "" };
        command.arg(format!("{prefix}{argument}"));
        before = argument;
    }
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(SHARED.0.options());
    command
}

/// Notes the URL of a listener.
pub fn note_listener(url: &str) {
    if std::env::var_os(TLS_ENV).is_some()
        && let Some(address) = url.strip_prefix("https://")
    {
        let address = address.parse().expect("an address with a port");
        let mut all = WITH_TLS.lock().expect("no panic while noting");
        all.get_or_insert_default().insert(address);
    }
}

/// Returns the configuration for a client of this listener. `None` if that is without TLS, or the
/// test itself cares for it.
pub fn config_for(address: SocketAddr) -> Option<&'static Arc<ClientConfig>> {
    let all = WITH_TLS.lock().expect("no panic while noting");
    all.as_ref().is_some_and(|all| all.contains(&address)).then(|| &SHARED.1)
}

/// Kind of a key, as arguments of `openssl`.
pub const ECDSA: [&str; 3] = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const RSA: [&str; 1] = ["rsa:2048"];

/// Files of a certificate that signs itself.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// Makes a certificate for a name of `test` and for 127.0.0.1, for so many days.
    #[track_caller]
    pub fn make(folder: &Folder, file: &str, name: &str, key: &[&str], days: &str) -> Self {
        let pair = Self::at(folder, file);
        pair.make_files(name, key, days);
        pair
    }

    #[track_caller]
    fn make_files(&self, name: &str, key: &[&str], days: &str) {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", days]);
        self.request(command, key, name);
    }

    /// Makes a certificate with a P-256 key for a month.
    #[track_caller]
    pub fn usual(folder: &Folder, name: &str) -> Self {
        Self::make(folder, name, name, &ECDSA, "30")
    }

    /// Makes a certificate that has expired yesterday.
    #[track_caller]
    pub fn expired(folder: &Folder, name: &str) -> Self {
        let pair = Self::at(folder, "expired");
        let mut command = Command::new("openssl");
        command.arg("req");
        pair.request(command, &ECDSA, name);
        let signed = folder.file("signed.pem");
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", "-1", "-copy_extensions", "copy", "-signkey"]);
        command.arg(&pair.key).arg("-in").arg(&pair.certificate);
        succeed(command.arg("-out").arg(&signed));
        fs::rename(signed, &pair.certificate).expect("its name");
        pair
    }

    /// Completes a command that makes the key and the certificate, or a request for one.
    #[track_caller]
    fn request(&self, mut command: Command, key: &[&str], name: &str) {
        command.args(["-nodes", "-subj", &format!("/CN={name}.test"), "-newkey"]).args(key);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", &format!("subjectAltName=DNS:{name}.test,IP:127.0.0.1")]);
        succeed(command.arg("-keyout").arg(&self.key).arg("-out").arg(&self.certificate));
    }

    /// Makes the certificate of an authority, which may issue those of servers.
    #[track_caller]
    pub fn authority(folder: &Folder, name: &str) -> Self {
        let pair = Self::at(folder, name);
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", "30", "-nodes", "-newkey"]).args(ECDSA);
        command.args(["-subj", &format!("/CN={name}"), "-addext", "keyUsage=keyCertSign"]);
        succeed(command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate));
        pair
    }

    /// Issues a certificate with this key of an authority. `names` are as in `DNS:a.test,IP:::1`;
    /// with less than no days, it has expired.
    #[track_caller]
    pub fn issue(
        &self,
        folder: &Folder,
        file: &str,
        names: &str,
        key: &[&str],
        days: &str,
    ) -> Self {
        let (pair, request) = (Self::at(folder, file), folder.file("request.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-nodes", "-subj", &format!("/CN={file}"), "-newkey"]).args(key);
        command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        command.args(["-addext", &format!("subjectAltName={names}")]);
        succeed(command.arg("-keyout").arg(&pair.key).arg("-out").arg(&request));
        let mut command = Command::new("openssl");
        command.args(["x509", "-req", "-days", days, "-copy_extensions", "copy", "-CA"]);
        command.arg(&self.certificate).arg("-CAkey").arg(&self.key).arg("-in").arg(&request);
        succeed(command.arg("-out").arg(&pair.certificate));
        pair
    }

    pub fn at(folder: &Folder, file: &str) -> Self {
        Self::in_folder(folder.path(), file)
    }

    fn in_folder(folder: &Path, file: &str) -> Self {
        let file = |end| folder.join(format!("{file}.{end}"));
        Self { certificate: file("pem"), key: file("key") }
    }

    /// Replaces the contents of these files by those of others.
    #[track_caller]
    pub fn become_like(&self, other: &Self) {
        fs::copy(&other.certificate, &self.certificate).expect("a new certificate");
        fs::copy(&other.key, &self.key).expect("a new key");
    }

    /// Returns the options for a server with this pair.
    pub fn options(&self) -> [&str; 4] {
        ["--tls-cert", text(&self.certificate), "--tls-key", text(&self.key)]
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).expect("a certificate in PEM")
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().expect("starting openssl, which this test needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the configuration of clients that trust these certificates. They share tickets.
pub fn trusting(pairs: &[&Pair]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for pair in pairs {
        roots.add(pair.der()).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

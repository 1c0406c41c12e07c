//! A certificate authority of ACME: pebble, with the DNS server that comes with it.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::common::{Folder, GUARD, Running, free_address, text, until_within};

/// A running authority. It validates hosts at one address, whatever their name.
pub struct Authority {
    /// Address of its directory (RFC 8555, section 7.1.1).
    pub url: String,
    /// The certificate of its own https server, which signs itself.
    pub own_certificate: PathBuf,
    management: SocketAddr,
    _processes: [Running; 2],
}

impl Authority {
    /// Starts an authority that validates by requests to `http`, and issues certificates for so
    /// many seconds. Its files are in `folder`.
    #[track_caller]
    pub fn start(folder: &Folder, http: SocketAddr, validity_s: u64) -> Self {
        let [api, management, dns] = [free_address(), free_address(), free_address()];
        let [certificate, key, config, log] =
            ["pebble.pem", "pebble.key", "pebble.json", "pebble.log"].map(|name| folder.file(name));
        make_certificate(&certificate, &key, &[api.ip(), management.ip()]);
        let settings = json!({"pebble": {
            "listenAddress": api.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": text(&certificate),
            "privateKey": text(&key),
            "httpPort": http.port(),
            "tlsPort": 1,
            "certificateValidityPeriod": validity_s,
        }});
        fs::write(&config, settings.to_string()).expect("a file");

        let log = File::create(log).expect("a file");
        let start = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a handle"));
            Running::start(command.stderr(log.try_clone().expect("a handle")))
        };
        let (dns, host) = (dns.to_string(), http.ip().to_string());
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-dns01", &dns, "-defaultIPv4", &host, "-defaultIPv6", "", "-http01", ""]);
        names.args(["-https01", "", "-tlsalpn01", "", "-management", &free_address().to_string()]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-config", text(&config), "-dnsserver", &dns]);
        // Every renewal is validated, at once. No request is refused at random: certbot would give
        // up after two refusals in a row.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        pebble.env("PEBBLE_AUTHZREUSE", "0");
        let processes = [start(&mut names), start(&mut pebble)];
        // It makes its RSA keys first, which takes a busy machine longer than anything else here.
        for address in [api, management] {
            let is_there = || TcpStream::connect(address).is_ok();
            until_within(4 * GUARD, "pebble listens", is_there);
        }
        Self {
            url: format!("https://{api}/dir"),
            own_certificate: certificate,
            management,
            _processes: processes,
        }
    }

    /// Returns the root certificate of this run, as PEM.
    #[track_caller]
    pub fn root(&self) -> Vec<u8> {
        let url = format!("https://{}/roots/0", self.management);
        let mut command = Command::new("curl");
        command.args(["-sSf", "--max-time", "15", "--cacert", text(&self.own_certificate), &url]);
        let output = command.output().expect("starting curl, which this test needs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

#[track_caller]
fn make_certificate(certificate: &PathBuf, key: &PathBuf, addresses: &[IpAddr]) {
    let names: Vec<_> = addresses.iter().map(|ip| format!("IP:{ip}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"]);
    command.args(["ec_paramgen_curve:P-256", "-subj", "/CN=pebble", "-addext", &names]);
    command.arg("-out").arg(certificate).arg("-keyout").arg(key);
    let output = command.output().expect("starting openssl, which this test needs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

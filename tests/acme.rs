//! Certificates by ACME: the files of `dist/acme` as they are, with uacme, lego and certbot, and an
//! authority on this machine. Each begins with an empty folder.

#[path = "acme/authority.rs"]
mod authority;
mod common;

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use authority::Authority;
use base64ct::{Base64, Encoding};
use common::{Client, Folder, Pair, Running, Server, command, free_address, text, trusting, until};
use rustix::process::{Signal, getegid, geteuid};
use rustls::pki_types::CertificateDer;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/acme");

/// The name of the certificate, and another one that it is valid for.
const HOSTS: [&str; 2] = ["chat.example.test", "www.example.test"];

/// User and group that the server switches to if the tests run as root. No file mentions them.
const USER: &str = "65533:65532";
const GROUP: &str = "65532";

/// Validity of certificates that are always due, and of those that are not, in seconds. All three
/// tools renew 30 days before the end.
const HOUR: u64 = 3600;
const QUARTER: u64 = 90 * 86_400;

/// Runs with the certificates that the system trusts replaced by those of a file: neither uacme nor
/// its library takes them from elsewhere.
const TRUSTING: &str = "mount --bind \"$0\" /etc/ssl/certs/ca-certificates.crt && exec \"$@\"";

/// In place of systemd's: it takes the one call that `dist/acme/install` makes by default.
const SYSTEMCTL: &str = "#!/bin/sh\n[ \"$*\" = 'kill -s HUP speak' ] && kill -HUP \"$(cat PID)\"\n";

/// A machine with Speak, one of the tools and an authority.
struct Machine {
    tool: &'static str,
    /// Address at which Speak has plain HTTP.
    plain: SocketAddr,
    authority: Authority,
    /// In place of /var/lib/speak-acme.
    state: PathBuf,
    folder: Folder,
}

impl Machine {
    fn new(tool: &'static str, validity_s: u64) -> Self {
        let folder = Folder::new("acme");
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its rights");
        let plain = free_address();
        let authority = Authority::start(&folder, plain, validity_s);
        let state = folder.file("state");
        fs::create_dir_all(state.join("www/.well-known/acme-challenge")).expect("a folder");
        fs::create_dir(folder.file("bin")).expect("a folder");
        let pid = folder.file("pid");
        let machine = Self { tool, plain, authority, state, folder };
        machine.put_program("systemctl", &SYSTEMCTL.replace("PID", text(&pid)));
        machine
    }

    /// Puts a program in front of the others of this name.
    fn put_program(&self, name: &str, script: &str) {
        let path = self.folder.file("bin").join(name);
        fs::write(&path, script).expect("a file");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its rights");
    }

    /// Has the process that starts this program die.
    fn put_killer(&self, name: &str) {
        self.put_program(name, "#!/bin/sh\nkill -9 $PPID\n");
    }

    fn remove_program(&self, name: &str) {
        fs::remove_file(self.folder.file("bin").join(name)).expect("no file");
    }

    /// The one file that Speak reads.
    fn installed(&self) -> PathBuf {
        self.state.join(format!("tls/{}.pem", HOSTS[0]))
    }

    /// Files in which the tool keeps chain and key.
    fn kept(&self) -> [PathBuf; 2] {
        let [name, state] = [HOSTS[0], self.tool];
        let files = match self.tool {
            "uacme" => [format!("{name}/cert.pem"), format!("private/{name}/key.pem")],
            "lego" => ["crt", "key"].map(|end| format!("certificates/{name}.{end}")),
            _ => ["fullchain", "privkey"].map(|file| format!("live/{name}/{file}.pem")),
        };
        files.map(|file| self.state.join(state).join(file))
    }

    /// Returns a command with the environment that systemd gives to the service.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let bin = self.folder.file("bin");
        let group = if geteuid().is_root() { GROUP.into() } else { getegid().to_string() };
        let path = std::env::var("PATH").expect("a path");
        command.env_clear().env("PATH", format!("{}:{path}", text(&bin)));
        command.env("ACME_HOSTS", HOSTS.join(" ")).env("ACME_EMAIL", "admin@example.test");
        command.env("ACME_SERVER", &self.authority.url).env("ACME_DIR", &self.state);
        command.env("ACME_GROUP", group).stdin(Stdio::null());
        command
    }

    /// Returns a command that trusts the authority and ends in time.
    fn trusting_command(&self) -> Command {
        let mut command = self.command("timeout");
        command.args(["120", "unshare", "--mount"]);
        if !geteuid().is_root() {
            command.args(["--map-current-user", "--keep-caps"]);
        }
        command.args(["sh", "-c", TRUSTING, text(&self.authority.own_certificate)]);
        command
    }

    /// Runs `dist/acme/renew`, as the timer does.
    fn run_renew(&self) -> Output {
        let mut command = self.trusting_command();
        command.args([&format!("{FILES}/renew"), self.tool]);
        command.output().expect("starting timeout")
    }

    #[track_caller]
    fn renew(&self) {
        let output = self.run_renew();
        assert!(output.status.success(), "{}", self.shown(&output));
    }

    #[track_caller]
    fn renew_fails(&self) {
        let output = self.run_renew();
        assert!(!output.status.success(), "{}", self.shown(&output));
    }

    /// Runs `dist/acme/install`, as an operator does by hand.
    fn install(&self, chain: &Path, key: &Path) -> Output {
        let mut command = self.command(&format!("{FILES}/install"));
        command.arg(HOSTS[0]).args([chain, key]).output().expect("starting it")
    }

    fn shown(&self, output: &Output) -> String {
        let [own, errors] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        let log = fs::read_to_string(self.folder.file("pebble.log")).expect("a log");
        format!("{}\n{own}{errors}\npebble: {log}", self.tool)
    }

    /// Starts Speak, with what is there in each of both steps of docs/tls.md.
    fn serve(&self, listen: &[&str], options: &[&str]) -> Server {
        let mut command = command();
        for address in listen {
            command.args(["--listen", address]);
        }
        let challenges = self.state.join("www/.well-known/acme-challenge");
        command.arg("--acme-challenges").arg(challenges).args(options);
        if geteuid().is_root() {
            command.args(["--user", USER]);
        }
        let server = Server::spawn_node(command, listen.len());
        fs::write(self.folder.file("pid"), server.id().to_string()).expect("a file");
        server
    }

    /// Starts Speak without certificates.
    fn serve_plain(&self) -> Server {
        self.serve(&[&self.plain.to_string()], &[])
    }

    /// Starts Speak with the certificate that is installed. Its first listener speaks TLS.
    fn serve_tls(&self) -> Server {
        let (file, tls) = (self.installed(), format!("tls:{}:0", self.plain.ip()));
        let options = ["--tls-cert", text(&file), "--tls-key", text(&file), "--redirect-https"];
        let options = [&options[..], &["--poll-timeout", "1h"]].concat();
        self.serve(&[&tls, &self.plain.to_string()], &options)
    }

    /// Returns a pair of which only the certificate is there: that which clients have to trust.
    fn root(&self) -> Pair {
        let root = Pair::at(&self.folder, "root");
        fs::write(&root.certificate, self.authority.root()).expect("a file");
        root
    }

    /// Connects to `server`, without a ticket, and returns the certificate that it has.
    fn connect(&self, server: &Server) -> (Client, CertificateDer<'static>) {
        let config = trusting(&[&self.root()]);
        let mut client = Client::connect_tls(server.address_of(0), &config, HOSTS[1]);
        client.get("/health", &[]).ok();
        let chain = client.tls().peer_certificates().expect("a certificate");
        assert!(chain.len() > 1, "the chain is missing");
        let certificate = chain[0].clone().into_owned();
        (client, certificate)
    }

    /// Starts a read of curl that waits for the message after the first one.
    fn park(&self, server: &Server) -> Running {
        let (mut client, _) = self.connect(server);
        client.get("/write", &[("channel", "room"), ("message", "first")]).ok();
        let address = server.address_of(0);
        let port = address.port();
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "600", "--cacert", text(&self.root().certificate)]);
        curl.args(["--resolve", &format!("{}:{port}:{}", HOSTS[0], address.ip())]);
        curl.arg(format!("https://{}:{port}/read?channel=room&from_id=2", HOSTS[0]));
        let curl = Running::start(curl.stdout(Stdio::piped()));
        until("the read waits", || {
            let members = client.get("/members", &[("channel", "room")]).ok().json();
            members["readers"] == 1
        });
        curl
    }
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// From nothing to a certificate that is served and renewed, while a client waits.
fn goes_from_nothing_to_renewals(tool: &'static str) {
    let machine = Machine::new(tool, HOUR);
    let server = machine.serve_plain();
    machine.renew();
    until("the signal is ignored", || server.logged("ignoring SIGHUP") == 1);
    drop(server);
    let file = fs::metadata(machine.installed()).expect("a file");
    assert_eq!(file.mode() & 0o777, 0o640);
    let challenges = machine.state.join("www/.well-known/acme-challenge");
    assert_eq!(fs::read_dir(challenges).expect("a folder").count(), 0);

    let server = machine.serve_tls();
    assert_eq!(server.logged("cannot read a certificate again"), 0, "{:?}", server.log());
    let (mut open, mut before) = machine.connect(&server);
    let mut reader = machine.park(&server);
    for count in 1..=2 {
        // uacme names an old certificate by its second, and refuses to have two of one.
        sleep(Duration::from_millis(1_100));
        machine.renew();
        until("the certificate is read", || server.logged("replaced=1 kept=0") == count);
        let (_, after) = machine.connect(&server);
        assert_ne!(before, after);
        before = after;
    }
    assert!(reader.status().is_none(), "the reader has noticed");
    let params = [("channel", "room"), ("message", "second")];
    assert_eq!(open.get("/write", &params).ok().json()["id"], 2);
    assert!(reader.end("curl").success());
    let mut answer = String::new();
    reader.0.stdout.take().expect("a pipe").read_to_string(&mut answer).expect("its output");
    assert!(answer.contains("\"second\"") && !answer.contains("\"first\""), "{answer}");
    let mut plain = Client::connect(machine.plain);
    assert_eq!(plain.get("/create", &[]).status, 308);
}

#[test]
fn uacme_goes_from_nothing_to_renewals() {
    goes_from_nothing_to_renewals("uacme");
}

#[test]
fn lego_goes_from_nothing_to_renewals() {
    goes_from_nothing_to_renewals("lego");
}

#[test]
fn certbot_goes_from_nothing_to_renewals() {
    goes_from_nothing_to_renewals("certbot");
}

/// If something dies, there is a whole certificate or none, and the next run does the rest without
/// another certificate.
fn is_repaired_by_the_next_run(tool: &'static str) {
    let machine = Machine::new(tool, QUARTER);
    let server = machine.serve_plain();
    let [chain, _] = machine.kept();
    if tool == "uacme" {
        // The hook dies while it writes the file of the challenge.
        machine.put_killer("mv");
        machine.renew_fails();
        assert!(!chain.exists());
        machine.remove_program("mv");
    }
    for program in ["cat", "sync", "mv"] {
        machine.put_killer(program);
        machine.renew_fails();
        assert!(!machine.installed().exists(), "{program}");
        machine.remove_program(program);
    }
    let first = read(&chain);
    let systemctl = read(&machine.folder.file("bin/systemctl"));
    machine.put_program("systemctl", "#!/bin/sh\nexit 1\n");
    machine.renew_fails();
    assert!(read(&machine.installed()).starts_with(&first));
    assert_eq!(server.logged("ignoring SIGHUP"), 0);

    machine.put_program("systemctl", &String::from_utf8(systemctl).expect("text"));
    machine.renew();
    until("the signal is ignored", || server.logged("ignoring SIGHUP") == 1);
    // None of the runs after the first one got another certificate.
    assert_eq!(read(&chain), first);
    drop(server);
    machine.connect(&machine.serve_tls());
}

#[test]
fn a_run_of_uacme_that_dies_is_repaired_by_the_next_one() {
    is_repaired_by_the_next_run("uacme");
}

#[test]
fn a_run_of_lego_that_dies_is_repaired_by_the_next_one() {
    is_repaired_by_the_next_run("lego");
}

#[test]
fn a_run_of_certbot_that_dies_is_repaired_by_the_next_one() {
    is_repaired_by_the_next_run("certbot");
}

#[test]
fn a_key_of_another_certificate_is_not_installed_and_not_served() {
    let machine = Machine::new("lego", HOUR);
    let server = machine.serve_plain();
    machine.renew();
    drop(server);
    let server = machine.serve_tls();
    let (_, before) = machine.connect(&server);
    let good = read(&machine.installed());
    let [chain, key] = machine.kept();
    let other = Pair::usual(&machine.folder, "other");
    let nothing = machine.folder.file("nothing");
    fs::write(&nothing, "").expect("a file");
    for (chain, key) in [
        (&chain, &other.key),
        (&other.certificate, &key),
        (&nothing, &key),
        (&chain, &nothing),
        (&machine.folder.file("missing"), &key),
    ] {
        let output = machine.install(chain, key);
        assert_eq!(output.status.code(), Some(1), "{}", machine.shown(&output));
        assert_eq!(read(&machine.installed()), good);
    }
    assert_eq!(server.logged("read certificates again"), 0);

    // Another way than the script's own.
    fs::write(machine.installed(), [read(&chain), read(&other.key)].concat()).expect("a file");
    server.signal(Signal::HUP);
    until("the log tells", || server.logged("replaced=0 kept=1") == 1);
    assert_eq!(machine.connect(&server).1, before);
    let output = machine.install(&chain, &key);
    assert!(output.status.success(), "{}", machine.shown(&output));
    until("the certificate is read", || server.logged("replaced=1 kept=0") == 1);
    assert_eq!(read(&machine.installed()), good);
}

/// The authority reaches another server than the right one: it lacks the file of the challenge.
fn survives_a_challenge_that_fails(tool: &'static str) {
    let machine = Machine::new(tool, HOUR);
    let mut other = command();
    other.args(["--listen", &machine.plain.to_string()]);
    let other = Server::spawn_node(other, 1);
    machine.renew_fails();
    assert!(!machine.installed().exists());
    drop(other);
    let _server = machine.serve_plain();
    machine.renew();
    assert!(machine.installed().exists());
}

#[test]
fn uacme_survives_a_challenge_that_fails() {
    survives_a_challenge_that_fails("uacme");
}

#[test]
fn lego_survives_a_challenge_that_fails() {
    survives_a_challenge_that_fails("lego");
}

#[test]
fn certbot_survives_a_challenge_that_fails() {
    survives_a_challenge_that_fails("certbot");
}

/// Adds a zero in front of a P-256 key, as uacme does if its first bit is set: that is how it
/// writes an integer of DER. RFC 5915, section 3, wants 32 bytes.
fn lengthen(key: &Path) {
    let mut command = Command::new("openssl");
    let output = command.args(["pkey", "-traditional", "-outform", "DER", "-in"]).arg(key).output();
    let mut der = output.expect("starting openssl").stdout;
    // A sequence, version 1, and 32 bytes.
    assert_eq!(der[..7], [0x30, 0x77, 2, 1, 1, 4, 32]);
    (der[1], der[6]) = (0x78, 33);
    der.insert(7, 0);
    let pem = Base64::encode_string(&der);
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{pem}\n-----END EC PRIVATE KEY-----\n");
    fs::write(key, pem).expect("a file");
}

#[test]
fn a_key_as_uacme_writes_it_will_do() {
    let machine = Machine::new("uacme", HOUR);
    let server = machine.serve_plain();
    let pair = Pair::usual(&machine.folder, "a");
    lengthen(&pair.key);
    let output = machine.install(&pair.certificate, &pair.key);
    assert!(output.status.success(), "{}", machine.shown(&output));
    drop(server);
    let server = machine.serve_tls();
    let mut client = Client::connect_tls(server.address_of(0), &trusting(&[&pair]), "a.test");
    client.get("/health", &[]).ok();
}

/// The hook of operators who run certbot or lego by themselves.
#[test]
fn certbot_and_lego_call_install_as_their_hook() {
    let machine = Machine::new("", HOUR);
    let server = machine.serve_plain();
    let hook = format!("{FILES}/install");
    let www = machine.state.join("www");
    let [certbot, lego] = ["certbot", "lego"].map(|name| machine.folder.file(name));
    let (email, url) = ("admin@example.test", &*machine.authority.url);
    let certbot =
        [
            &[
                "certbot",
                "--config-dir",
                text(&certbot),
                "--work-dir",
                text(&certbot),
                "--logs-dir",
            ][..],
            &[
                text(&certbot),
                "--server",
                url,
                "--email",
                email,
                "--agree-tos",
                "--non-interactive",
            ],
            &["--webroot", "--webroot-path", text(&www), "--domain", HOSTS[0], "certonly"],
            &["--deploy-hook", &hook],
        ]
        .concat();
    let lego = [
        &["lego", "--accept-tos", "--email", email, "--server", url, "--path", text(&lego)][..],
        &["--domains", HOSTS[0], "--http", "--http.webroot", text(&www)],
    ]
    .concat();
    let first = [&lego[..], &["run", "--run-hook", &hook]].concat();
    let second = [&lego[..], &["renew", "--no-random-sleep", "--renew-hook", &hook]].concat();
    for (count, call) in (1..).zip([&certbot, &first, &second]) {
        let output = machine.trusting_command().args(call).output().expect("starting timeout");
        assert!(output.status.success(), "{}", machine.shown(&output));
        until("the signal comes", || server.logged("ignoring SIGHUP") == count);
        fs::remove_file(machine.installed()).expect("it was installed");
    }
    let output = machine.command(&hook).output().expect("starting it");
    assert_eq!(output.status.code(), Some(2), "{}", machine.shown(&output));
}

//! Offers and refusals of a listener with TLS, as `openssl` and `gnutls-cli` see them: each
//! version, suite, group and protocol by itself.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use common::{Folder, Pair, RSA, Running, Server, command, text};

/// A server with TLS, for `a.test`.
struct World {
    server: Server,
    pair: Pair,
    _folder: Folder,
}

impl World {
    fn start() -> Self {
        let folder = Folder::new("peers");
        let pair = Pair::usual(&folder, "a");
        Self::with(folder, pair)
    }

    fn with(folder: Folder, pair: Pair) -> Self {
        let mut command = command();
        command.args(["--listen", "tls:127.0.0.1:0"]).args(pair.options());
        Self { server: Server::spawn_node(command, 1), pair, _folder: folder }
    }

    /// Returns the output of `openssl s_client` about a connection on which nothing is sent.
    fn openssl(&self, options: &[&str]) -> String {
        let address = self.server.address_of(0).to_string();
        let fixed = ["60", "openssl", "s_client", "-connect", &address, "-servername", "a.test"];
        let trust = ["-CAfile", text(&self.pair.certificate), "-verify_return_error"];
        says(&[&fixed[..], &trust, options].concat())
    }

    /// Claims a handshake, with these words in what `openssl s_client` says.
    #[track_caller]
    fn openssl_gets(&self, options: &[&str], words: &[&str]) {
        let said = self.openssl(options);
        for word in [&["New, TLSv1.3, Cipher is ", "Verify return code: 0 (ok)"], words].concat() {
            assert!(said.contains(word), "no {word:?} with {options:?}: {said}");
        }
    }

    /// Claims that the server refuses, with an alert of this number (RFC 8446, section 6.2).
    #[track_caller]
    fn openssl_is_refused(&self, options: &[&str], alert: u8) {
        let said = self.openssl(options);
        let alert = format!("SSL alert number {alert}");
        assert!(said.contains(&alert), "no {alert} with {options:?}: {said}");
        assert!(said.contains("no peer certificate available"), "{options:?}: {said}");
    }

    /// Returns the arguments of a `gnutls-cli` that trusts the server.
    fn gnutls(&self, options: &[&str]) -> Vec<String> {
        let port = self.server.port(0).to_string();
        let file = text(&self.pair.certificate);
        let fixed = ["60", "gnutls-cli", "--x509cafile", file, "--sni-hostname", "a.test"];
        let rest = ["--verify-hostname", "a.test", "-p", &port, "127.0.0.1"];
        [&fixed[..], options, &rest].concat().into_iter().map(str::to_owned).collect()
    }

    /// Returns the output of `gnutls-cli` about a connection on which nothing is sent.
    fn gnutls_says(&self, options: &[&str]) -> String {
        let arguments = self.gnutls(options);
        says(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Runs a program without input, for at most so many seconds, and returns its output.
fn says(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("starting timeout");
    let said = [output.stdout, output.stderr].concat();
    // Statuses of `timeout`: the time is over; the program cannot be started; it is missing.
    let code = output.status.code();
    assert!(!matches!(code, Some(124 | 126 | 127)), "{}", String::from_utf8_lossy(&said));
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn tls_1_3_is_the_only_version() {
    let world = World::start();
    world.openssl_gets(&["-tls1_3"], &[]);
    world.openssl_gets(&[], &[]);
    // The hellos of the oldest two lack the list of signatures that a newer one has: handshake
    // failure. The other alert is protocol_version.
    for (version, alert) in [("-tls1", 40), ("-tls1_1", 40), ("-tls1_2", 70)] {
        // At this level, OpenSSL itself would allow each of them.
        world.openssl_is_refused(&[version, "-cipher", "ALL:@SECLEVEL=0"], alert);
    }
}

#[test]
fn three_suites_and_no_others() {
    let world = World::start();
    for suite in
        ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    {
        let words = format!("New, TLSv1.3, Cipher is {suite}");
        world.openssl_gets(&["-ciphersuites", suite], &[&words]);
    }
    // The other two of RFC 8446, appendix B.4.
    for suite in ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"] {
        world.openssl_is_refused(&["-ciphersuites", suite], 40);
    }
}

#[test]
fn two_groups_and_no_others() {
    let world = World::start();
    world.openssl_gets(&["-groups", "X25519"], &["Server Temp Key: X25519"]);
    world.openssl_gets(&["-groups", "P-256"], &["Server Temp Key: ECDH, prime256v1"]);
    for group in ["P-384", "P-521", "X448", "ffdhe2048", "ffdhe8192"] {
        world.openssl_is_refused(&["-groups", group], 40);
        // A client that guessed wrong is asked again.
        let both = format!("{group}:X25519");
        world.openssl_gets(&["-groups", &both], &["Server Temp Key: X25519"]);
    }
}

#[test]
fn http_1_1_is_the_only_protocol() {
    let world = World::start();
    world.openssl_gets(&["-alpn", "http/1.1"], &["ALPN protocol: http/1.1"]);
    world.openssl_gets(&["-alpn", "h2,http/1.1"], &["ALPN protocol: http/1.1"]);
    world.openssl_gets(&[], &["No ALPN negotiated"]);
    // no_application_protocol; acme-tls/1 is the challenge that Speak does not serve.
    for protocol in ["h2", "h3", "http/1.0", "acme-tls/1"] {
        world.openssl_is_refused(&["-alpn", protocol], 120);
    }
}

#[test]
fn signatures_are_those_of_the_key_and_never_sha_1() {
    let folder = Folder::new("peers");
    let rsa = Pair::make(&folder, "a", "a", &RSA, "30");
    let rsa = World::with(folder, rsa);
    let ecdsa = World::start();
    let words = ["Peer signature type: ECDSA", "Peer signing digest: SHA256"];
    ecdsa.openssl_gets(&["-sigalgs", "ecdsa_secp256r1_sha256"], &words);
    ecdsa.openssl_is_refused(&["-sigalgs", "rsa_pss_rsae_sha256"], 40);
    // PKCS#1 and SHA-1 are only for the certificates themselves (RFC 8446, section 4.2.3).
    for digest in ["256", "384", "512"] {
        let list = format!("rsa_pss_rsae_sha{digest}:RSA+SHA256");
        let words = ["Peer signature type: RSA-PSS", &format!("Peer signing digest: SHA{digest}")];
        rsa.openssl_gets(&["-sigalgs", &list], &words);
    }
    rsa.openssl_is_refused(&["-sigalgs", "RSA+SHA256", "-cipher", "ALL:@SECLEVEL=0"], 40);
    ecdsa.openssl_is_refused(&["-sigalgs", "ECDSA+SHA1", "-cipher", "ALL:@SECLEVEL=0"], 40);
}

#[test]
fn there_is_no_compression_no_early_data_and_no_request_for_a_certificate() {
    let world = World::start();
    let words = ["Compression: NONE", "No client certificate CA names sent"];
    world.openssl_gets(&["-comp"], &words);
    let folder = Folder::new("early");
    let session = folder.file("session");
    // The ticket comes after the handshake, with the first response.
    let mut client = Talker::start(&[
        "60",
        "openssl",
        "s_client",
        "-connect",
        &world.server.address_of(0).to_string(),
        "-servername",
        "a.test",
        "-sess_out",
        text(&session),
    ]);
    client.send("GET /health HTTP/1.1\r\nHost: h\r\n\r\n");
    client.hears("{\"status\":\"ok\"}");
    client.send("GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert!(client.rest().contains("Max Early Data: 0"));
    // That session continues, with a new exchange of keys and for the same name.
    let said = world.openssl(&["-sess_in", text(&session)]);
    assert!(said.contains("Reused, TLSv1.3") && said.contains("Server Temp Key"), "{said}");
}

/// A client program whose input and output the test has.
struct Talker {
    running: Running,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talker {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        let mut running = Running::start(&mut command);
        let input = running.0.stdin.take().expect("a pipe");
        let output = BufReader::new(running.0.stdout.take().expect("a pipe"));
        Self { running, input, output }
    }

    fn send(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("sent");
    }

    /// Reads its output up to these words.
    #[track_caller]
    fn hears(&mut self, words: &str) {
        let mut heard = Vec::new();
        let last = *words.as_bytes().last().expect("some words");
        while !heard.ends_with(words.as_bytes()) {
            let count = self.output.read_until(last, &mut heard).expect("its output");
            assert!(count > 0, "no {words:?} in {}", String::from_utf8_lossy(&heard));
        }
    }

    /// Returns the rest of its output, until its end.
    #[track_caller]
    fn rest(mut self) -> String {
        let mut heard = Vec::new();
        self.output.read_to_end(&mut heard).expect("its output");
        self.running.end("the client");
        String::from_utf8_lossy(&heard).into_owned()
    }
}

#[test]
fn gnutls_talks_and_changes_its_keys() {
    let world = World::start();
    let arguments = world.gnutls(&["--inline-commands"]);
    let mut client = Talker::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    client.hears("Handshake was completed");
    let write = "GET /write?channel=room&message=text HTTP/1.1\r\nHost: h\r\n";
    client.send(&format!("{write}\r\n"));
    client.hears("{\"id\":1}");
    // The first changes the keys of the client, the second asks for those of the server, too.
    for (command, id) in [("^rekey1^", 2), ("^rekey^", 3), ("^rekey^", 4)] {
        client.send(&format!("{command}\n"));
        client.hears("Rekey was completed");
        client.send(&format!("{write}\r\n"));
        client.hears(&format!("{{\"id\":{id}}}"));
    }
    client.send(&format!("{write}Connection: close\r\n\r\n"));
    client.hears("{\"id\":5}");
    // GnuTLS tells an end by close_notify from another one.
    assert!(client.rest().contains("Peer has closed the GnuTLS connection"));
}

#[test]
fn gnutls_gets_what_openssl_gets() {
    let world = World::start();
    let only = |rest: &str| world.gnutls_says(&["--priority", &format!("NORMAL{rest}")]);
    for rest in [
        "",
        ":-VERS-ALL:+VERS-TLS1.3",
        ":-CIPHER-ALL:+AES-256-GCM",
        ":-CIPHER-ALL:+CHACHA20-POLY1305",
        ":-GROUP-ALL:+GROUP-X25519",
        ":-GROUP-ALL:+GROUP-SECP256R1",
    ] {
        let said = only(rest);
        assert!(said.contains("Description: (TLS1.3-X.509)"), "{rest}: {said}");
        assert!(said.contains("The certificate is trusted."), "{rest}: {said}");
    }
    for (rest, alert) in [
        (":-VERS-ALL:+VERS-TLS1.2", "[70]"),
        (":-CIPHER-ALL:+AES-128-CCM", "[40]"),
        (":-GROUP-ALL:+GROUP-SECP384R1", "[40]"),
    ] {
        let said = only(rest);
        assert!(said.contains(&format!("Received alert {alert}")), "{rest}: {said}");
    }
    let said = world.gnutls_says(&["--resume"]);
    assert!(said.contains("This is a resumed session"), "{said}");
}

//! docs/debian.md, from an empty Debian to https: its settings and commands, with other folders,
//! ports and names. tests/acme.rs has the certificate, tests/package.rs the package, and
//! tests/conformance the configuration of Prometheus.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Client, Folder, Pair, Server, command, free_address, run, text, trusting, until};

/// Returns the block after the comment with this name.
fn block(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/debian.md");
    let page = fs::read_to_string(path).expect("the page");
    let (_, rest) = page.split_once(&format!("<!-- {name}: ")).expect("the comment");
    let (_, block) = rest.split_once(" -->\n```\n").expect("a block right after it");
    let (block, _) = block.split_once("```\n").expect("its end");
    block.to_owned()
}

/// Sets the variables of a block, with `replaced` in the place of parts of it.
fn set(command: &mut Command, block: &str, replaced: &[(&str, &str)]) {
    let lines = block.lines().filter(|line| !line.starts_with('#'));
    for (name, value) in lines.filter_map(|line| line.split_once('=')) {
        let put = |value: String, (old, new): &(&str, &str)| value.replace(old, new);
        command.env(name, replaced.iter().fold(value.to_owned(), put));
    }
}

/// Runs the commands of a block in a shell, with a program `speak`. Returns what they print.
#[track_caller]
fn shell(block: &str) -> String {
    let mut shell = Command::new("sh");
    shell.arg("-ec").arg(format!("speak() {{ \"$SPEAK\" \"$@\"; }}\n{block}"));
    shell.env("SPEAK", command().get_program());
    let output = shell.stdin(Stdio::null()).output().expect("a shell");
    assert!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_rules_of_the_firewall_are_valid() {
    let folder = Folder::new("debian");
    fs::write(folder.file("rules"), block("nftables")).expect("a file");
    // In a network of its own, which has no rules that could matter.
    let mut nft = Command::new("unshare");
    nft.args(["--map-root-user", "--net", "nft", "--check", "--file"]).arg(folder.file("rules"));
    run(nft).prints("");
}

#[test]
fn the_first_settings_serve_challenges() {
    let folder = Folder::new("debian");
    fs::write(folder.file("token"), "an answer").expect("a file");
    let mut speak = command();
    let challenges = "/var/lib/speak-acme/www/.well-known/acme-challenge";
    set(&mut speak, &block("first"), &[("80", "127.0.0.1:0"), (challenges, text(folder.path()))]);
    let server = Server::spawn(speak, 1);
    let answer = server.get("/.well-known/acme-challenge/token", &[]).ok();
    assert_eq!(answer.text(), "an answer");
}

#[test]
fn the_settings_are_valid_and_the_commands_of_the_operator_work() {
    let folder = Folder::new("debian");
    let acme = folder.file("acme");
    fs::create_dir_all(acme.join("tls")).expect("a folder");
    fs::create_dir_all(acme.join("www/.well-known/acme-challenge")).expect("a folder");
    let pair = Pair::usual(&folder, "chat");
    // As the hook writes it.
    let both = [&pair.certificate, &pair.key].map(|it| fs::read(it).expect("a file in PEM"));
    fs::write(acme.join("tls/chat.example.org.pem"), both.concat()).expect("a file with both");
    let [listen, admin] = [free_address(), free_address()].map(|it| it.to_string());
    let journal = folder.file("journal");
    let configured = || {
        let mut speak = command();
        let replaced = [
            ("/var/lib/speak-acme", text(&acme)),
            ("/var/lib/speak/journal", text(&journal)),
            ("127.0.0.1:9100", &admin),
        ];
        set(&mut speak, &block("settings"), &replaced);
        speak.env("SPEAK_LISTEN", format!("tls:{listen}"));
        speak
    };
    let mut check = configured();
    check.arg("--check");
    let checked = run(check);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.lines().all(|line| line.starts_with("ok ")), "{checked:?}");

    let server = Server::spawn(configured(), 2);
    let here = |block: &str| {
        let block = block.replace("localhost:9100", &admin);
        block.replace("/backup", text(&folder.file("backup")))
    };
    let config = trusting(&[&pair]);
    let connect = || Client::connect_tls(server.address_of(0), &config, "chat.test");
    connect().get("/write", &[("channel", "lobby"), ("message", "buy now")]).ok();
    for name in ["Ann", "Troll"] {
        connect().get("/introduce", &[("channel", "lobby"), ("message", name)]).ok();
    }
    assert!(shell(&here(&block("moderation"))).starts_with("4\n"));
    let read = [("channel", "lobby"), ("from_id", "0")];
    let messages = connect().get("/read", &read).ok();
    assert!(!messages.text().contains("buy now"), "{}", messages.text());
    assert!(messages.events().contains(&"goodbye removed".to_owned()), "{}", messages.text());
    let refused = connect().get("/write", &[("channel", "lobby"), ("message", "again")]);
    refused.fails_with(403, "removed");

    let doctor = shell(&here("speak doctor --admin http://localhost:9100\n"));
    assert!(doctor.ends_with("no problems found\n"), "{doctor}");
    // Twice, as every hour.
    for _ in 0..2 {
        let backup = here(&block("backup")).replace("/var/lib/speak/journal", text(&journal));
        fs::create_dir_all(folder.file("backup")).expect("a folder");
        let printed = shell(&backup);
        assert!(printed.contains("a start continues after record "), "{printed}");
    }
    let about = fs::metadata(folder.file("backup/speak")).expect("a copy");
    assert_eq!(about.permissions().mode() & 0o777, 0o700);
    until("the copy has a segment", || {
        let names = fs::read_dir(folder.file("backup/speak")).expect("a folder").flatten();
        names.filter(|it| it.file_name().to_string_lossy().starts_with("segment-")).count() == 1
    });
}

//! `speak write`, `speak read` and `speak generate`, as a shell uses them.

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;

use common::{ClosedPort, Finished, Folder, Running, Server, command, run, run_with};
use rustix::process::Signal;

/// A command that talks to `server`.
fn speak(server: &str, words: &[&str]) -> Command {
    let mut speak = command();
    speak.env("SPEAK_SERVER", server).args(words);
    speak
}

fn run_on(server: &Server, words: &[&str]) -> Finished {
    run(speak(server.url(0), words))
}

/// A command that runs during a test.
struct Follower {
    running: Running,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(&mut command);
        let lines = BufReader::new(running.0.stdout.take().expect("a pipe"));
        Self { running, lines }
    }

    fn signal(&self, signal: Signal) {
        let id = rustix::process::Pid::from_child(&self.running.0);
        rustix::process::kill_process(id, signal).expect("our own child");
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line of text");
        line
    }

    /// Waits for the end of the command. Returns its exit status and its standard error.
    #[track_caller]
    fn end(&mut self) -> (Option<i32>, String) {
        let code = self.running.end("the command").code();
        let stderr = self.running.0.stderr.take().expect("a pipe");
        (code, io::read_to_string(stderr).expect("text"))
    }
}

/// Runs `line` in a shell, with `$SPEAK` as the program.
fn shell(server: &Server, line: &str) -> Finished {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("SPEAK", command().get_program())
        .env("SPEAK_SERVER", server.url(0));
    run(shell)
}

/// Returns the output of `seq`.
fn numbers(last: u32) -> String {
    let numbers: Vec<_> = (1..=last).map(|number| number.to_string()).collect();
    numbers.join("\n") + "\n"
}

#[test]
fn read_prints_every_byte_of_a_message_that_was_written() {
    let server = Server::start();
    for (id, text) in
        ["howdy", "1 + 1 = 2 & ä%20\u{1f600}", "", "--", " spaced "].into_iter().enumerate()
    {
        run_on(&server, &["write", "--", "a room & more", text]).prints(&format!("{}\n", id + 1));
    }
    let all = "howdy\n1 + 1 = 2 & ä%20\u{1f600}\n\n--\n spaced \n";
    run_on(&server, &["read", "a room & more", "--from", "0"]).prints(all);
    run_on(&server, &["read", "a room & more", "--from=-1"]).prints(" spaced \n");
    run_on(&server, &["read", "a room & more", "--from", "-2"]).prints("--\n spaced \n");
    run_on(&server, &["read", "a room & more", "--from", "5"]).prints(" spaced \n");
    run_on(&server, &["read", "a room & more", "--from", "6"]).prints("");
    run_on(&server, &["read", "an empty room", "--from", "0"]).prints("");
}

#[test]
fn a_server_can_be_named_by_a_url_a_host_name_or_a_unix_socket() {
    let folder = Folder::new("cli");
    let unix = format!("unix:{}", folder.file("sock").display());
    let server = Server::on(&["127.0.0.1:0", &unix], &[]);
    let named = format!("http://localhost:{}", server.port(0));
    for (id, url) in [server.url(0), &unix, &named].into_iter().enumerate() {
        // The option wins over SPEAK_SERVER.
        run(speak("http://127.0.0.1:1", &["write", "--server", url, "room", "x"]))
            .prints(&format!("{}\n", id + 1));
    }
}

#[test]
fn each_line_of_standard_input_is_written_as_a_message() {
    let server = Server::with(&["--history", "3000"]);
    shell(&server, r#"printf 'a\n\nb c' | "$SPEAK" write room -"#).prints("1\n2\n3\n");
    shell(&server, r#"seq 2000 | "$SPEAK" write room - | tail -n 1"#).prints("2003\n");
    let read = shell(&server, r#""$SPEAK" read room --from 4 | cksum; seq 2000 | cksum"#);
    let sums: Vec<_> = read.stdout.lines().collect();
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn read_joins_several_responses() {
    let server = Server::with(&["--max-reply", "1k", "--history", "500"]);
    shell(&server, r#"seq 300 | "$SPEAK" write room - | tail -n 1"#).prints("300\n");
    let all = numbers(300);
    run_on(&server, &["read", "room", "--from", "0"]).prints(&all);
}

#[test]
fn write_stops_at_the_first_line_that_is_refused() {
    let server = Server::with(&["--max-message", "3"]);
    let finished = shell(&server, r#"printf 'one\ntoo long\nwas\n' | "$SPEAK" write room -"#);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), "1\n"), "{finished:?}");
    assert!(finished.stderr.starts_with("speak: line 2: 413 message_too_large"), "{finished:?}");
    run_on(&server, &["read", "room", "--from", "0"]).prints("one\n");
    let finished = shell(&server, r#"printf 'a\377\n' | "$SPEAK" write room -"#);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("bad_encoding"), "{finished:?}");
}

#[test]
fn write_retries_while_the_server_is_busy() {
    // Ten at once, then one per second.
    let server = Server::with(&["--max-rate", "1"]);
    let ids = numbers(12);
    shell(&server, r#"seq 12 | "$SPEAK" write room -"#).prints(&ids);
    let finished = shell(&server, r#"seq 12 | "$SPEAK" write room - --retry 0"#);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("too_many_requests"), "{finished:?}");
}

#[test]
fn read_without_from_waits_for_the_next_message() {
    let server = Server::start();
    server.write("room", "before");
    let mut follower = Follower::start(speak(server.url(0), &["read", "room"]));
    server.wait_for_readers("room", 1);
    // An introduction has no text to print, so it does not end the read.
    server.introduce("room", "Josh");
    server.wait_for_readers("room", 1);
    server.write("room", "after");
    assert_eq!(follower.line(), "after\n");
    assert_eq!(follower.end(), (Some(0), String::new()));
}

#[test]
fn json_output_is_the_json_of_the_server() {
    let server = Server::start();
    let names = server.get("/create", &[("kind", "room")]).ok().json();
    let name = |key: &str| names[key].as_str().expect("a name").to_owned();
    let (owner, room) = (name("owner"), name("channel"));
    server.introduce(&room, "Josh\u{1}");
    server.write(&room, "two\nlines");
    server.write(&owner, "by the owner");
    server.write(&room, "to be removed");
    server.get("/remove", &[("channel", &owner), ("id", "4")]).ok();
    let response = server.read(&room, "0");
    let text = String::from_utf8(response.body).expect("JSON is text");
    let (_, rest) = text.split_once('[').expect("messages");
    let (messages, _) = rest.split_once(']').expect("their end");
    let lines = messages.replace("},{", "}\n{") + "\n";
    assert!(lines.contains("\"owner\":true") && lines.contains("\"of\":4"), "{lines}");
    run_on(&server, &["read", &room, "--from", "0", "--json"]).prints(&lines);
    // Without --json a message is one line, too.
    run_on(&server, &["read", &room, "--from", "0"]).prints("two\\nlines\nby the owner\n");
}

#[test]
fn follow_survives_a_restart_and_warns_about_missing_messages() {
    let mut server = Server::start();
    let port = server.port(0).to_string();
    server.write("room", "one");
    let url = server.url(0).to_owned();
    let mut follower = Follower::start(speak(&url, &["read", "room", "--from", "0", "--follow"]));
    assert_eq!(follower.line(), "one\n");
    server.wait_for_readers("room", 1);
    server.write("room", "two");
    assert_eq!(follower.line(), "two\n");
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::on(&[&format!("127.0.0.1:{port}")], &["--history", "1"]);
    server.wait_for_readers("room", 1);
    server.write("room", "three");
    assert_eq!(follower.line(), "three\n");
    server.wait_for_readers("room", 1);
    // While it is stopped, it misses the messages that the history drops.
    follower.signal(Signal::STOP);
    for text in ["four", "five", "six"] {
        server.write("room", text);
    }
    follower.signal(Signal::CONT);
    let mut line = follower.line();
    while line != "six\n" {
        assert!(["four\n", "five\n"].contains(&line.as_str()), "{line:?}");
        line = follower.line();
    }
    follower.signal(Signal::TERM);
    let (code, stderr) = follower.end();
    assert_eq!(code, None, "a signal ends it");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].ends_with("; retrying"), "{stderr}");
    for line in [
        "speak: the server restarted without its history: all that it has now follows",
        "speak: connected again",
        "speak: messages are missing here: they are no longer retained",
    ] {
        assert!(lines.contains(&line), "no {line:?} in {stderr}");
    }
    assert!(!stderr.contains("room"), "a secret: {stderr}");
}

#[test]
fn a_closed_pipe_ends_a_command() {
    let server = Server::start();
    for text in ["one", "two", "three"] {
        server.write("room", text);
    }
    // There are no more messages, so only the closing of the pipe can end the command.
    shell(&server, r#""$SPEAK" read room --from 0 --follow | head -n 2"#).prints("one\ntwo\n");
    shell(&server, r#"seq 3 | "$SPEAK" write room - | head -n 1"#).prints("4\n");
}

#[test]
fn messages_cannot_control_a_terminal() {
    let server = Server::start();
    server.write("room", "\u{1b}]0;owned\u{7}\u{9b}2J");
    // `script` provides a terminal. A pipe gets the bytes as they are.
    let tool = r#"script -qec '"$SPEAK" read room --from 0' /dev/null"#;
    let terminal = shell(&server, tool);
    assert_eq!(terminal.stdout, "\\u{1b}]0;owned\\u{7}\\u{9b}2J\r\n", "{terminal:?}");
    run_on(&server, &["read", "room", "--from", "0"]).prints("\u{1b}]0;owned\u{7}\u{9b}2J\n");
}

#[test]
fn a_failure_has_one_line_and_an_exit_status() {
    let server = Server::start();
    let closed = ClosedPort::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stranger = format!("http://{}", silent.local_addr().expect("its address"));
    thread::spawn(move || {
        for stream in silent.incoming().take(2) {
            let mut stream = stream.expect("a client");
            let mut first = [0; 1024];
            let _ = stream.read(&mut first);
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nServer: \xc2\x9b2J\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    let closed_url = format!("http://{}", closed.address());
    let cases: &[(&str, &[&str], i32, &str)] = &[
        (&closed_url, &["write", "room", "x"], 1, "cannot connect: connection refused"),
        (&closed_url, &["read", "room", "--follow"], 1, "cannot connect: connection refused"),
        (server.url(0), &["write", "~rxyz", "x"], 1, "bad_channel"),
        (server.url(0), &["read", "", "--follow"], 1, "bad_channel"),
        ("unix:/nonexistent", &["read", "room"], 1, "unix:/nonexistent: cannot connect"),
        (&stranger, &["write", "room", "x"], 1, "200, not from Speak"),
        (&stranger, &["read", "room"], 1, "200, not from Speak"),
        ("nowhere", &["read", "room"], 2, "SPEAK_SERVER: 'nowhere'"),
        (server.url(0), &["write", "room"], 2, "MESSAGE is missing"),
        (server.url(0), &["read", "room", "--colour"], 2, "--colour"),
    ];
    for (url, words, code, text) in cases {
        let finished = run(speak(url, words));
        finished.fails_with(*code, &[text]);
        assert!(!finished.stderr.contains('\u{9b}'), "{words:?}: {finished:?}");
    }
}

/// Returns the output of `speak generate`.
fn generate(format: &str) -> String {
    let finished = run_with(&["generate", format]);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{format}");
    finished.stdout
}

#[test]
fn completions_and_the_manual_page_have_every_command_and_option() {
    let commands = speak::cli::COMMANDS;
    let options = speak::options::SPECS.iter().map(|spec| spec.name);
    let own = commands.iter().flat_map(|command| command.specs.iter().map(|spec| spec.name));
    let options: Vec<_> = options.chain(own).collect();
    for (text, dashes) in [
        (generate("man").replace("\\-", "-"), "--"),
        (generate("bash"), "--"),
        (generate("zsh"), "--"),
        (generate("fish"), "-l "),
    ] {
        assert!(options.iter().all(|option| text.contains(&format!("{dashes}{option}"))), "{text}");
        assert!(commands.iter().all(|command| text.contains(command.name)), "{text}");
    }
    // Shells that are installed check the syntax.
    let folder = Folder::new("completions");
    for name in ["bash", "zsh", "fish"] {
        let path = folder.file(name);
        fs::write(&path, generate(name)).expect("a file");
        if let Ok(checked) = Command::new(name).arg("-n").arg(&path).output() {
            assert!(checked.status.success(), "{checked:?}");
        }
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let folder = Folder::new("bash");
    let path = folder.file("speak.bash");
    fs::write(&path, generate("bash")).expect("a file");
    let completed = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _speak; echo \"${{COMPREPLY[*]}}\"",
            path.display()
        );
        let bash = Command::new("bash").args(["-c", &script]).output().expect("bash");
        String::from_utf8(bash.stdout).expect("text").trim_end().to_owned()
    };
    for (words, expected) in [
        ("speak w", "write"),
        ("speak --max-m", "--max-message --max-memory"),
        ("speak read --fo", "--follow"),
        ("speak read room --js", "--json"),
        ("speak write --fo", ""),
        ("speak doctor --q", "--quick"),
        ("speak --log d", "debug"),
        ("speak --history ''", ""),
        ("speak read --from ''", ""),
        ("speak --state Cargo.t", "Cargo.toml"),
        ("speak --journal benc", "bench"),
    ] {
        assert_eq!(completed(words), expected, "{words}");
    }
}

#[test]
fn generate_is_hidden_and_refuses_an_unknown_format() {
    let help = run_with(&["--help"]);
    assert!(!help.stdout.contains("generate"), "{help:?}");
    run_with(&["generate", "pdf"]).fails_with(2, &["man, bash, zsh or fish"]);
}

/// Returns the names that `speak create` prints, in its order.
fn create(server: &Server, option: &str) -> [(String, String); 2] {
    let words = ["create", option];
    let printed = run_on(server, if option.is_empty() { &words[..1] } else { &words });
    assert_eq!((printed.code, &*printed.stderr), (Some(0), ""), "{printed:?}");
    let lines: Vec<_> = printed.stdout.lines().map(|line| line.split_once(' ')).collect();
    let [Some(secret), Some(given)] = lines[..] else { panic!("{printed:?}") };
    [secret, given].map(|(label, name)| (label.to_owned(), name.to_owned()))
}

#[test]
fn a_feed_is_made_written_and_read_in_a_shell() {
    let server = Server::start();
    let [(write_label, write), (read_label, read)] = create(&server, "--feed");
    assert_eq!((&*write_label, &*read_label), ("write", "read"));
    run_on(&server, &["write", &write, "news"]).prints("1\n");
    run_on(&server, &["read", &read, "--from", "0"]).prints("news\n");
    run_on(&server, &["write", &read, "a lie"]).fails_with(1, &["not_writable"]);
    for (option, labels, prefixes) in
        [("", ["read", "write"], ["~r", "~w"]), ("--room", ["owner", "channel"], ["~o", "~c"])]
    {
        let names = create(&server, option);
        for ((label, name), (expected, prefix)) in names.iter().zip(labels.iter().zip(prefixes)) {
            assert_eq!(label, expected);
            assert!(name.starts_with(prefix), "{name}");
        }
    }
}

#[test]
fn an_owner_removes_and_kicks_in_a_shell() {
    let server = Server::patient(&[]);
    let [(_, owner), (_, channel)] = create(&server, "--room");
    run_on(&server, &["write", &channel, "shameful"]).prints("1\n");
    let troll = server.introduce(&channel, "Troll");
    run_on(&server, &["remove", &owner, "1"]).prints("3\n");
    run_on(&server, &["remove", &channel, "1"]).fails_with(1, &["not_owner"]);
    run_on(&server, &["remove", &owner, "9"]).fails_with(1, &["bad_parameter", "'id'"]);
    let kick = ["kick", &owner, &troll.connection];
    run_on(&server, &[&kick[..], &["--message", "enough", "--for", "1m"]].concat()).prints("");
    assert_eq!(server.read(&channel, "4").texts(), ["enough"]);
    run_on(&server, &["write", &channel, "again"]).fails_with(1, &["removed"]);
    run_on(&server, &["write", &owner, "I may"]).prints("5\n");
    run_on(&server, &[&kick[..], &["--for", "25h"]].concat()).fails_with(1, &["'seconds'"]);
    let ann = server.introduce(&owner, "Ann");
    run_on(&server, &["kick", &owner, &ann.connection]).prints("");
    let goodbye = server.read(&channel, "7").messages().remove(0);
    assert_eq!((&goodbye["reason"], goodbye.get("message")), (&"removed".into(), None));
}

#[test]
fn the_operator_removes_and_kicks_in_a_shell() {
    let server = Server::watched(&["--connection-timeout", "1h"]);
    server.write("lobby", "shameful");
    let troll = server.introduce("lobby", "Troll");
    let admin = ["--server", server.url(1)];
    let speak_to_admin = |words: &[&str]| run(speak(server.url(0), &[words, &admin].concat()));
    speak_to_admin(&["remove", "lobby", "1"]).prints("3\n");
    speak_to_admin(&["kick", "lobby", &troll.connection]).prints("");
    assert_eq!(server.read("lobby", "4").events(), ["goodbye removed"]);
    run_on(&server, &["remove", "lobby", "1"]).fails_with(1, &["not_owner"]);
}

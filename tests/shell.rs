//! `speak write` and `speak read`, as a shell uses them.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use common::{ClosedPort, Finished, Server, command, run, until};
use rustix::process::Signal;

/// A command about a server.
fn speak(server: &str, words: &[&str]) -> Command {
    let mut speak = command();
    speak.env("SPEAK_SERVER", server).args(words);
    speak
}

fn done(server: &Server, words: &[&str]) -> Finished {
    run(speak(server.url(0), words))
}

#[track_caller]
fn prints(finished: &Finished, stdout: &str) {
    assert_eq!(
        (finished.code, finished.stdout.as_str(), finished.stderr.as_str()),
        (Some(0), stdout, "")
    );
}

/// A command that runs while a test goes on; ended and reaped when dropped.
struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting the command");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line of text");
        line
    }

    /// Waits for its end; tells its code and its standard error.
    #[track_caller]
    fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        until("the command ends", || {
            status = self.child.try_wait().expect("asking for our own child");
            status.is_some()
        });
        let mut stderr = String::new();
        self.child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
        (status.expect("it has ended").code(), stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a shell makes of a line, with `$SPEAK` as the program.
fn shell(server: &Server, line: &str) -> Finished {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("SPEAK", command().get_program())
        .env("SPEAK_SERVER", server.url(0));
    run(shell)
}

/// What `seq` prints.
fn numbers(last: u32) -> String {
    let numbers: Vec<_> = (1..=last).map(|number| number.to_string()).collect();
    numbers.join("\n") + "\n"
}

#[test]
fn what_is_written_is_read_byte_by_byte() {
    let server = Server::start();
    for (id, text) in
        ["howdy", "1 + 1 = 2 & ä%20\u{1f600}", "", "--", " spaced "].into_iter().enumerate()
    {
        prints(&done(&server, &["write", "--", "a room & more", text]), &format!("{}\n", id + 1));
    }
    let all = "howdy\n1 + 1 = 2 & ä%20\u{1f600}\n\n--\n spaced \n";
    prints(&done(&server, &["read", "a room & more", "--from", "0"]), all);
    prints(&done(&server, &["read", "a room & more", "--from=-1"]), " spaced \n");
    prints(&done(&server, &["read", "a room & more", "--from", "-2"]), "--\n spaced \n");
    prints(&done(&server, &["read", "a room & more", "--from", "5"]), " spaced \n");
    prints(&done(&server, &["read", "a room & more", "--from", "6"]), "");
    prints(&done(&server, &["read", "nobody was here", "--from", "0"]), "");
}

#[test]
fn a_server_is_found_by_any_of_its_addresses() {
    let path = std::env::temp_dir().join(format!("speak-shell-{}.sock", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let server = Server::on(&["127.0.0.1:0", &unix], &[]);
    let named = format!("http://localhost:{}", server.port(0));
    for (id, url) in [server.url(0), &unix, &named].into_iter().enumerate() {
        // The option wins over the environment.
        prints(
            &run(speak("http://127.0.0.1:1", &["write", "--server", url, "room", "x"])),
            &format!("{}\n", id + 1),
        );
    }
}

#[test]
fn standard_input_is_written_line_by_line() {
    let server = Server::with(&["--history", "3000"]);
    prints(&shell(&server, r#"printf 'a\n\nb c' | "$SPEAK" write room -"#), "1\n2\n3\n");
    prints(&shell(&server, r#"seq 2000 | "$SPEAK" write room - | tail -n 1"#), "2003\n");
    let read = shell(&server, r#""$SPEAK" read room --from 4 | cksum; seq 2000 | cksum"#);
    let sums: Vec<_> = read.stdout.lines().collect();
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn many_answers_are_read_as_one() {
    let server = Server::with(&["--max-reply", "1k", "--history", "500"]);
    prints(&shell(&server, r#"seq 300 | "$SPEAK" write room - | tail -n 1"#), "300\n");
    let all = numbers(300);
    prints(&done(&server, &["read", "room", "--from", "0"]), &all);
}

#[test]
fn the_first_line_that_is_refused_is_the_last() {
    let server = Server::with(&["--max-message", "3"]);
    let finished = shell(&server, r#"printf 'one\ntoo long\nwas\n' | "$SPEAK" write room -"#);
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), "1\n"), "{finished:?}");
    assert!(finished.stderr.starts_with("speak: line 2: 413 message_too_large"), "{finished:?}");
    prints(&done(&server, &["read", "room", "--from", "0"]), "one\n");
    let finished = shell(&server, r#"printf 'a\377\n' | "$SPEAK" write room -"#);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("bad_encoding"), "{finished:?}");
}

#[test]
fn a_busy_server_is_asked_again() {
    // Ten at once, then one a second.
    let server = Server::with(&["--max-rate", "1"]);
    let ids = numbers(12);
    prints(&shell(&server, r#"seq 12 | "$SPEAK" write room -"#), &ids);
    let finished = shell(&server, r#"seq 12 | "$SPEAK" write room - --retry 0"#);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("too_many_requests"), "{finished:?}");
}

#[test]
fn a_read_without_a_place_waits_for_the_next_message() {
    let server = Server::start();
    server.write("room", "before");
    let mut reading = Running::start(speak(server.url(0), &["read", "room"]));
    server.wait_for_readers("room", 1);
    // Who comes is not said, so it is not what was waited for.
    server.introduce("room", "Josh");
    server.wait_for_readers("room", 1);
    server.write("room", "after");
    assert_eq!(reading.line(), "after\n");
    assert_eq!(reading.end(), (Some(0), String::new()));
}

#[test]
fn whole_messages_are_printed_as_the_server_has_them() {
    let server = Server::start();
    server.introduce("room", "Josh\u{1}");
    server.write("room", "two\nlines");
    let answer = server.read("room", "0");
    let text = String::from_utf8(answer.body).expect("JSON is text");
    let (_, rest) = text.split_once('[').expect("messages");
    let (messages, _) = rest.split_once(']').expect("their end");
    let lines = messages.replace("},{", "}\n{") + "\n";
    prints(&done(&server, &["read", "room", "--from", "0", "--json"]), &lines);
    // One message is one line.
    prints(&done(&server, &["read", "room", "--from", "0"]), "two\\nlines\n");
}

#[test]
fn following_goes_on_through_restarts_and_tells_what_is_missing() {
    let mut server = Server::start();
    let port = server.port(0).to_string();
    server.write("room", "one");
    let url = server.url(0).to_owned();
    let mut reading = Running::start(speak(&url, &["read", "room", "--from", "0", "--follow"]));
    assert_eq!(reading.line(), "one\n");
    server.wait_for_readers("room", 1);
    server.write("room", "two");
    assert_eq!(reading.line(), "two\n");
    server.signal(Signal::TERM);
    server.wait();
    let server = Server::on(&[&format!("127.0.0.1:{port}")], &["--history", "1"]);
    server.wait_for_readers("room", 1);
    server.write("room", "three");
    assert_eq!(reading.line(), "three\n");
    server.wait_for_readers("room", 1);
    // Stopped, it misses what the history does not keep.
    let id = rustix::process::Pid::from_child(&reading.child);
    rustix::process::kill_process(id, Signal::STOP).expect("our own child");
    for text in ["four", "five", "six"] {
        server.write("room", text);
    }
    rustix::process::kill_process(id, Signal::CONT).expect("our own child");
    let mut line = reading.line();
    while line != "six\n" {
        assert!(["four\n", "five\n"].contains(&line.as_str()), "{line:?}");
        line = reading.line();
    }
    rustix::process::kill_process(id, Signal::TERM).expect("our own child");
    let (code, stderr) = reading.end();
    assert_eq!(code, None, "a signal ends it");
    let told: Vec<_> = stderr.lines().collect();
    assert!(told[0].ends_with("; trying again"), "{stderr}");
    assert!(
        told.contains(&"speak: the server has begun anew: what follows is all that it has"),
        "{stderr}"
    );
    assert!(told.contains(&"speak: going on"), "{stderr}");
    assert!(
        told.contains(&"speak: messages are missing here: they are no longer retained"),
        "{stderr}"
    );
    assert!(!stderr.contains("room"), "a secret: {stderr}");
}

#[test]
fn who_has_heard_enough_ends_the_reading() {
    let server = Server::start();
    for text in ["one", "two", "three"] {
        server.write("room", text);
    }
    // Nothing more is said, so only the closing itself can end it.
    prints(&shell(&server, r#""$SPEAK" read room --from 0 --follow | head -n 2"#), "one\ntwo\n");
    prints(&shell(&server, r#"seq 3 | "$SPEAK" write room - | head -n 1"#), "4\n");
}

#[test]
fn a_terminal_is_not_commanded_by_messages() {
    let server = Server::start();
    server.write("room", "\u{1b}]0;owned\u{7}\u{9b}2J");
    // `script` gives it a terminal; a pipe gets the bytes as they are.
    let tool = r#"script -qec '"$SPEAK" read room --from 0' /dev/null"#;
    let terminal = shell(&server, tool);
    assert_eq!(terminal.stdout, "\\u{1b}]0;owned\\u{7}\\u{9b}2J\r\n", "{terminal:?}");
    prints(&done(&server, &["read", "room", "--from", "0"]), "\u{1b}]0;owned\u{7}\u{9b}2J\n");
}

#[test]
fn a_failure_is_one_line_and_a_code() {
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
        (&stranger, &["write", "room", "x"], 1, "200, and not from Speak"),
        (&stranger, &["read", "room"], 1, "200, and not from Speak"),
        ("nowhere", &["read", "room"], 2, "SPEAK_SERVER: 'nowhere'"),
        (server.url(0), &["write", "room"], 2, "MESSAGE is missing"),
        (server.url(0), &["read", "room", "--colour"], 2, "--colour"),
    ];
    for (url, words, code, said) in cases {
        let finished = run(speak(url, words));
        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (Some(*code), ""),
            "{words:?}: {finished:?}"
        );
        assert_eq!(finished.stderr.lines().count(), 1, "{words:?}: {finished:?}");
        assert!(
            finished.stderr.contains(said) && !finished.stderr.contains('\u{9b}'),
            "{words:?}: {finished:?}"
        );
    }
}

#[test]
fn completions_and_the_manual_page_know_every_command_and_option() {
    let made = |example: &str, words: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--locked", "--example", example, "--"]).args(words);
        let made = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).expect("text")
    };
    let options = ["max-message", "server", "follow", "direct-port"];
    let commands = ["write", "read", "doctor"];
    for (text, dashes) in [
        (made("man", &[]).replace("\\-", "-"), "--"),
        (made("completions", &["bash"]), "--"),
        (made("completions", &["zsh"]), "--"),
        (made("completions", &["fish"]), "-l "),
    ] {
        assert!(options.iter().all(|option| text.contains(&format!("{dashes}{option}"))), "{text}");
        assert!(commands.iter().all(|command| text.contains(command)), "{text}");
    }
    // Those shells that are there have their own opinion.
    let path = std::env::temp_dir().join(format!("speak-completion-{}", std::process::id()));
    for name in ["bash", "zsh", "fish"] {
        fs::write(&path, made("completions", &[name])).expect("a file");
        if let Ok(checked) = Command::new(name).arg("-n").arg(&path).output() {
            assert!(checked.status.success(), "{checked:?}");
        }
    }
    fs::write(&path, made("completions", &["bash"])).expect("a file");
    let completed = |words: &str| {
        let script = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _speak; echo \"${{COMPREPLY[*]}}\"",
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
    ] {
        assert_eq!(completed(words), expected, "{words}");
    }
    fs::remove_file(&path).expect("our own file");
}

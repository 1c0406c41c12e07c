//! The manual page, `speak.1`, on standard output: its options come from the table that the server itself reads.
//!
//! An example of the library, so that nothing of it is in the binary: `cargo run --example man`.

use std::fmt::Write;

use speak::cli::{COMMANDS, Command};
use speak::options::{Arity, NAME_AND_VERSION, SPECS, Spec};

const BEFORE: &str = r".SH NAME
speak \- message and chat server for the web
.SH SYNOPSIS
.B speak
.RI [ OPTIONS ]
@COMMANDS@.SH DESCRIPTION
Speak carries messages between web pages and programs: by long polls, event streams, WebSockets and JSONP, in channels that
keep a short history.
It runs in the foreground, and tells on standard error where it listens.
With a command as its first word it is no server, but talks to one.
.PP
Each option can be set in the environment too; the command line wins, and an empty variable is an unset one.
Lists are separated by commas there.
.PP
Times are seconds (5, 0.2) or carry a unit (200ms, 5s, 10m, 1h).
Sizes are bytes or carry k, m, g, powers of 1,024.
.SH OPTIONS
";

const HELP: &str = r#".TP
.BR \-h ", " \-\-help
Print the options and leave.
.TP
.BR \-V ", " \-\-version
Print the version and leave.
"#;

const AFTER: &str = r#".SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Accept nobody more, answer every waiting reader, finish what is being sent, and leave within five seconds.
A second one ends the server at once.
.SH EXIT STATUS
.TP
.B 0
It was told to stop, or has printed what was asked for.
.TP
.B 1
An address cannot be bound; a command was refused, or the doctor found a failure.
.TP
.B 2
An option or its value is not understood; one line on standard error names it.
.TP
.B 3
The doctor found nothing worse than a warning.
.SH EXAMPLES
Serve on port 8080 of this machine alone, behind a proxy that names the client:
.PP
.RS
.EX
speak \-\-listen 127.0.0.1:8080 \-\-trust\-proxy 127.0.0.1
.EE
.RE
.PP
Write what a program prints, and read it elsewhere, through a proxy:
.PP
.RS
.EX
make 2>&1 | speak write build \- >/dev/null
speak read build \-\-server https://chat.example.org \-\-from 0 \-\-follow
speak doctor https://chat.example.org
.EE
.RE
"#;

fn main() {
    let synopses: String = COMMANDS.iter().map(synopsis).collect();
    let before = BEFORE.replace("@COMMANDS@", &synopses);
    let mut page = format!(".TH SPEAK 1 \"\" \"{NAME_AND_VERSION}\" \"User Commands\"\n{before}");
    for spec in SPECS {
        page.push_str(&option(spec));
        page.push_str(&environment(spec));
    }
    page.push_str(HELP);
    page.push_str(".SH COMMANDS\n");
    for command in COMMANDS {
        let _ =
            writeln!(page, ".SS {}\n{}.", plain(&command.usage()), plain(&sentence(command.about)));
        page.push_str(&plain(command.more));
        for spec in command.specs {
            page.push_str(&option(spec));
            if !spec.default.is_empty() && spec.takes != Arity::Nothing {
                let _ = writeln!(page, "Default: {}.", plain(spec.default));
            }
        }
    }
    page.push_str(AFTER);
    print!("{page}");
}

fn synopsis(command: &Command) -> String {
    format!(".br\n.B speak {}\n.RI [ OPTIONS ] \" {}\"\n", command.name, command.operands.join(" "))
}

fn option<T>(spec: &Spec<T>) -> String {
    let mut text = format!(".TP\n.B \\-\\-{}", plain(spec.name));
    let (value, note) = match spec.takes {
        Arity::Nothing => ("", ""),
        Arity::One(value) => (value, ""),
        Arity::Several(value) => (value, " May be repeated."),
    };
    if !value.is_empty() {
        // `\fI` and not `.I`: value and name stand in one line.
        let _ = write!(text, " \\fI{value}\\fR");
    }
    let _ = writeln!(text, "\n{}.{note}", plain(&sentence(spec.help)));
    text
}

fn environment<T>(spec: &Spec<T>) -> String {
    let variable = spec.variable();
    if spec.takes == Arity::Nothing {
        format!("In the environment \\fB{variable}\\fR, as yes or no.\n")
    } else if spec.default.is_empty() {
        format!("In the environment \\fB{variable}\\fR.\n")
    } else {
        format!("Default: {}. In the environment \\fB{variable}\\fR.\n", plain(spec.default))
    }
}

/// With a capital at the start.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// As roff prints it: a bare hyphen may be broken at, and is none that can be copied into a shell.
///
/// Sentences begin with a letter, so no line is taken for a request.
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

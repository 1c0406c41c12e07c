//! The manual page, `speak.1`, on standard output: its options come from the table that the server itself reads.
//!
//! An example of the library, so that nothing of it is in the binary: `cargo run --example man`.

use std::fmt::Write;

use speak::options::{SPECS, Spec, Takes, VERSION};

const BEFORE: &str = r".SH NAME
speak \- message and chat server for the web
.SH SYNOPSIS
.B speak
.RI [ OPTIONS ]
.SH DESCRIPTION
Speak carries messages between web pages and programs: by long polls, event streams, WebSockets and JSONP, in channels that
keep a short history.
It runs in the foreground, and tells on standard error where it listens.
.PP
Each option can be set in the environment too; the command line wins, and an empty variable is an unset one.
Lists are separated by commas there.
.PP
Times are seconds (5, 0.2) or carry a unit (200ms, 5s, 10m, 1h).
Sizes are bytes or carry k, m, g, powers of 1,024.
.SH OPTIONS
";

const AFTER: &str = r#".TP
.BR \-h ", " \-\-help
Print the options and leave.
.TP
.BR \-V ", " \-\-version
Print the version and leave.
.SH SIGNALS
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
An address cannot be bound.
.TP
.B 2
An option or its value is not understood; one line on standard error names it.
.SH EXAMPLES
Serve on port 8080 of this machine alone, behind a proxy that names the client:
.PP
.RS
.EX
speak \-\-listen 127.0.0.1:8080 \-\-trust\-proxy 127.0.0.1
.EE
.RE
"#;

fn main() {
    let mut page = format!(".TH SPEAK 1 \"\" \"{VERSION}\" \"User Commands\"\n{BEFORE}");
    for spec in SPECS {
        page.push_str(&option(spec));
    }
    page.push_str(AFTER);
    print!("{page}");
}

fn option(spec: &Spec) -> String {
    let mut text = format!(".TP\n.B \\-\\-{}", plain(spec.name));
    let (value, note) = match spec.takes {
        Takes::Nothing => ("", ""),
        Takes::One(value) => (value, ""),
        Takes::Several(value) => (value, " May be repeated."),
    };
    if !value.is_empty() {
        // `\fI` and not `.I`: value and name stand in one line.
        let _ = write!(text, " \\fI{value}\\fR");
    }
    let _ = writeln!(text, "\n{}.{note}", plain(&sentence(spec.help)));
    if value.is_empty() {
        let _ = writeln!(text, "In the environment \\fB{}\\fR, as yes or no.", spec.variable());
    } else if spec.default.is_empty() {
        let _ = writeln!(text, "In the environment \\fB{}\\fR.", spec.variable());
    } else {
        let _ = writeln!(text, "Default: {}. In the environment \\fB{}\\fR.", plain(spec.default), spec.variable());
    }
    text
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

//! The commands for a shell: `speak write`, `speak read`, `speak doctor`. They talk to a server as any other program does.
//!
//! They block, and are a process of their own: nothing of this is ever in the server's way. Their options are tables like
//! that of the server, so `--help`, errors, completions and the manual page come from the same code.

mod cli_options;
mod client;
mod doctor;
mod error;
mod format;
mod generate;
mod http;
mod outcome;
mod output;
mod read;
mod server_url;
mod socket;
mod subcommand;
mod tcp;
mod tls;
mod write;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

pub use cli_options::CliOptions;
pub use subcommand::Command;

use crate::options::{Arity, Spec, duration, nonzero, origin, parse_bool, set};
use cli_options::SERVER;
use outcome::{Failure, Outcome};
use output::eprint_line;

/// All commands.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "write",
        operands: &["CHANNEL", "MESSAGE"],
        about: "write a message, and print its id",
        more: "A MESSAGE of - stands for standard input, each line a message, up to the first that is refused.\n\
               What begins with a hyphen stands behind --.\n",
        specs: &[
            SERVER,
            Spec {
                name: "retry",
                takes: Arity::One("TIME"),
                default: "30s",
                help: "how long to try again what a busy server refuses",
                set: |choices, text| set(&mut choices.retry, duration(text)),
            },
        ],
        run: write::run,
    },
    Command {
        name: "read",
        operands: &["CHANNEL"],
        about: "print messages, one a line",
        more: "Without --from and --follow it waits for the next message, prints it and ends.\n\
               Line breaks in a message are printed as \\n and \\r, and on a terminal all control characters are escaped.\n",
        specs: &[
            SERVER,
            Spec {
                name: "from",
                takes: Arity::One("ID"),
                default: "",
                help: "what is there from this id on: 7, 0 for all, -3 for the last three",
                set: |choices, text| set(&mut choices.from, id(text).map(Some)),
            },
            Spec {
                name: "follow",
                takes: Arity::Nothing,
                default: "off",
                help: "go on with what comes, also after a failure",
                set: |choices, text| set(&mut choices.follow, parse_bool(text)),
            },
            Spec {
                name: "json",
                takes: Arity::Nothing,
                default: "off",
                help: "print whole messages, also who came and went",
                set: |choices, text| set(&mut choices.json, parse_bool(text)),
            },
        ],
        run: read::run,
    },
    Command {
        name: "doctor",
        operands: &["URL"],
        about: "try a server through whatever stands before it, and say what mends it",
        more: "A line for each check: ok, warn or FAIL; behind a failure, what to set in which proxy.\n\
               Ends with 0 when all is well, 1 after a failure, 3 after nothing worse than a warning.\n\
               It uses channels with random names, and says goodbye. docs/doctor.md tells more.\n",
        specs: &[
            Spec {
                name: "quick",
                takes: Arity::Nothing,
                default: "off",
                help: "wait 5 s where it would wait for longer",
                set: |choices, text| set(&mut choices.quick, parse_bool(text)),
            },
            Spec {
                name: "wait",
                takes: Arity::One("TIME"),
                default: "25s",
                help: "how long a read and a silent stream have to survive",
                set: |choices, text| set(&mut choices.wait, duration(text).and_then(nonzero)),
            },
            Spec {
                name: "patience",
                takes: Arity::One("TIME"),
                default: "3s",
                help: "how long what should come at once may take",
                set: |choices, text| set(&mut choices.timeout, duration(text).and_then(nonzero)),
            },
            Spec {
                name: "direct-port",
                takes: Arity::One("PORT"),
                default: "7732",
                help: "the direct door on the same host; 0 for none",
                set: |choices, text| set(&mut choices.direct_port, port(text)),
            },
            Spec {
                name: "origin",
                takes: Arity::One("ORIGIN"),
                default: "https://example.org",
                help: "the page in whose name the headers are tried",
                set: |choices, text| set(&mut choices.origin, origin(text)),
            },
        ],
        run: doctor::run,
    },
];

/// For packages. `--help` does not list it.
const GENERATE: Command = Command {
    name: "generate",
    operands: &["FORMAT"],
    about: "print the manual page (man), or completions (bash, zsh, fish)",
    more: "",
    specs: &[],
    run: |_, operands| generate::run(COMMANDS, operands),
};

fn id(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(|| format!("'{text}' is no id: give 7, 0 or -3"))
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("'{text}' is no port"))
}

/// Runs the command that `arguments` (those after the program's name) begin with. None where they begin with none: then the
/// server is meant.
///
/// Ends with 0, with 1 after a failure, with 2 where the command line is not understood, and the doctor with 3 after warnings.
pub fn run(
    arguments: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<ExitCode> {
    let word: &OsStr = arguments.first()?;
    let command = COMMANDS.iter().chain([&GENERATE]).find(|command| word == command.name)?;
    let (code, line) = match command.call(&arguments[1..], variable) {
        Ok(Outcome::Done) | Err(Failure::OutputClosed) => (0, None),
        Ok(Outcome::Faults) => (1, None),
        Ok(Outcome::Warnings) => (3, None),
        Err(Failure::Error(line)) => (1, Some(line)),
        Err(Failure::Usage(line)) => (2, Some(line)),
    };
    if let Some(line) = line {
        eprint_line(&line);
    }
    Some(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_option_of_every_command() {
        for command in COMMANDS {
            let text = command.help();
            assert!(text.contains(&command.usage()), "{text}");
            assert!(
                command.specs.iter().all(|spec| text.contains(&format!("--{}", spec.name))),
                "{text}"
            );
            assert!(text.lines().all(|line| line.len() <= 120), "{text}");
        }
    }

    #[test]
    fn a_bad_command_line_is_told_in_one_line_that_names_the_fault() {
        let cases: &[(&[&str], &str)] = &[
            (&["write", "room"], "MESSAGE"),
            (&["write"], "CHANNEL"),
            (&["write", "a", "b", "c"], "\"c\""),
            (&["read", "room", "--from", "x"], "--from"),
            (&["read", "room", "--from"], "--from"),
            (&["read", "room", "--server", "nowhere"], "--server"),
            (&["read", "room", "--nonsense"], "--nonsense"),
            (&["doctor", "http://a", "--direct-port", "x"], "--direct-port"),
            (&["doctor"], "URL"),
            (&["doctor", "nowhere"], "nowhere"),
        ];
        for (words, named) in cases {
            let command = COMMANDS.iter().find(|command| command.name == words[0]).unwrap();
            let arguments: Vec<_> = words[1..].iter().map(OsString::from).collect();
            match command.call(&arguments, |_| None) {
                Err(Failure::Usage(line)) => {
                    assert!(line.contains(named) && !line.contains('\n'), "{line}");
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_begins_with_no_command_is_meant_for_the_server() {
        let nothing = |_: &str| None;
        assert!(run(&[], nothing).is_none());
        assert!(run(&["--listen".into(), "write".into()], nothing).is_none());
        assert!(run(&["stray".into()], nothing).is_none());
    }
}

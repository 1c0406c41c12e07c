//! The commands for a shell: `speak write`, `speak read`, `speak create`, `speak remove`, `speak
//! kick` and `speak doctor`, which talk to a server as other clients do, and `speak journal`, which
//! reads the files of one.
//!
//! Commands block. That is safe: a command is a process of its own and never runs in a server.
//! Their options are tables like the server's, so `--help`, errors, completions and the manual page
//! come from the same code.

mod cli_options;
mod client;
mod doctor;
mod error;
mod exit_status;
mod format;
mod generate;
mod http;
mod journal;
mod moderation;
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

pub use cli_options::{CliOptions, SERVER_ENV};
pub use subcommand::Subcommand;

use crate::options::{
    Arity, Spec, nearest, nonzero, parse_bool, parse_duration, parse_origin, set,
};
use cli_options::{Kind, SERVER};
use exit_status::{ExitStatus, Failure};
use output::eprint_line;

/// All commands, except the hidden one.
pub const COMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "write",
        operands: &["CHANNEL", "MESSAGE"],
        about: "write a message and print its id",
        more: "If MESSAGE is -, each line of standard input is a message, up to the first that is \
               rejected.\n\
               Write -- before arguments that begin with a hyphen.\n",
        specs: &[
            SERVER,
            Spec {
                name: "retry",
                takes: Arity::One("TIME"),
                default: "30s",
                help: "how long to retry while the server is busy",
                set: |options, text| set(&mut options.retry, parse_duration(text)),
            },
        ],
        run: write::run,
    },
    Subcommand {
        name: "read",
        operands: &["CHANNEL"],
        about: "print messages, one per line",
        more: "Without --from and --follow, it waits for one message, prints it and exits.\n\
               Line breaks in a message are printed as \\n and \\r.\n\
               On a terminal, all control characters are escaped.\n",
        specs: &[
            SERVER,
            Spec {
                name: "from",
                takes: Arity::One("ID"),
                default: "",
                help: "first message to print: its id, 0 for all, -3 for the last three",
                set: |options, text| set(&mut options.from, parse_id(text).map(Some)),
            },
            Spec {
                name: "follow",
                takes: Arity::Nothing,
                default: "off",
                help: "continue with new messages, also after failures",
                set: |options, text| set(&mut options.follow, parse_bool(text)),
            },
            Spec {
                name: "json",
                takes: Arity::Nothing,
                default: "off",
                help: "print whole messages, and also introductions and goodbyes",
                set: |options, text| set(&mut options.json, parse_bool(text)),
            },
        ],
        run: read::run,
    },
    Subcommand {
        name: "create",
        operands: &[],
        about: "make the two names of an inbox, a feed or a room, and print them",
        more: "The first one is a secret of its owner; the second one is given away.\n\
               An inbox: one reads, everybody writes. A feed: one writes, everybody reads.\n\
               A room: a channel whose owner can remove messages and send people away.\n",
        specs: &[
            SERVER,
            Spec {
                name: "feed",
                takes: Arity::Nothing,
                default: "off",
                help: "make a feed",
                set: |options, text| set_kind(options, Kind::Feed, text),
            },
            Spec {
                name: "room",
                takes: Arity::Nothing,
                default: "off",
                help: "make a room",
                set: |options, text| set_kind(options, Kind::Room, text),
            },
        ],
        run: moderation::create,
    },
    Subcommand {
        name: "remove",
        operands: &["CHANNEL", "ID"],
        about: "remove a message and print the id of the removal",
        more: "CHANNEL is the secret name of its owner. If the server is that of --admin-listen,\n\
               it is any name.\n",
        specs: &[SERVER],
        run: moderation::remove,
    },
    Subcommand {
        name: "kick",
        operands: &["CHANNEL", "CONNECTION"],
        about: "send a connection away",
        more: "CHANNEL is the secret name of a room. If the server is that of --admin-listen,\n\
               it is any name. CONNECTION is the number that its messages carry as \"from\".\n",
        specs: &[
            SERVER,
            Spec {
                name: "for",
                takes: Arity::One("TIME"),
                default: "0s",
                help: "how long its address may not write to the channel, at most a day",
                set: |options, text| set(&mut options.away, parse_duration(text)),
            },
            Spec {
                name: "message",
                takes: Arity::One("TEXT"),
                default: "",
                help: "text of its goodbye",
                set: |options, text| set(&mut options.message, Ok(Some(text.to_owned()))),
            },
        ],
        run: moderation::kick,
    },
    Subcommand {
        name: "doctor",
        operands: &["URL"],
        about: "check a server through its proxies, and name the fix for each problem",
        more: "One line per check: ok, warn, FAIL or skip. The fix of a problem follows.\n\
               Exit status: 0 without a problem, 1 after a failure, 3 if only warnings.\n\
               The checks use channels with random names. More in docs/doctor.md.\n",
        specs: &[
            Spec {
                name: "admin",
                takes: Arity::Nothing,
                default: "off",
                help: "URL is that of --admin-listen: check the node and its cluster instead",
                set: |options, text| set(&mut options.admin, parse_bool(text)),
            },
            Spec {
                name: "quick",
                takes: Arity::Nothing,
                default: "off",
                help: "limit --wait to 5s",
                set: |options, text| set(&mut options.quick, parse_bool(text)),
            },
            Spec {
                name: "wait",
                takes: Arity::One("TIME"),
                default: "25s",
                help: "how long a pending read and an idle stream must survive",
                set: |options, text| set(&mut options.wait, parse_duration(text).and_then(nonzero)),
            },
            Spec {
                name: "patience",
                takes: Arity::One("TIME"),
                default: "3s",
                help: "how long a response may take that should be immediate",
                set: |options, text| {
                    set(&mut options.prompt_timeout, parse_duration(text).and_then(nonzero))
                },
            },
            Spec {
                name: "direct-port",
                takes: Arity::One("PORT"),
                default: "7732",
                help: "port of the same host without a proxy; 0 for none",
                set: |options, text| set(&mut options.direct_port, parse_port(text)),
            },
            Spec {
                name: "origin",
                takes: Arity::One("ORIGIN"),
                default: "https://example.org",
                help: "origin of the page for which the headers are checked",
                set: |options, text| set(&mut options.origin, parse_origin(text)),
            },
        ],
        run: doctor::run,
    },
    Subcommand {
        name: "journal",
        operands: &["DIR"],
        about: "print what a journal holds, or cut it at its damage",
        more: "DIR is that of --journal. A server may use it meanwhile, but not with --repair or\n\
               --restored.\n\
               Exit status: 0 if a server can start with the journal, 1 if not.\n",
        specs: &[
            Spec {
                name: "secrets",
                takes: Arity::Nothing,
                default: "off",
                help: "also print each command: channel names, messages and auth codes",
                set: |options, text| set(&mut options.secrets, parse_bool(text)),
            },
            Spec {
                name: "repair",
                takes: Arity::Nothing,
                default: "off",
                help: "keep what is before the damage, and save the damaged files",
                set: |options, text| set(&mut options.repair, parse_bool(text)),
            },
            Spec {
                name: "restored",
                takes: Arity::Nothing,
                default: "off",
                help: "DIR is a backup: message ids begin a new epoch at the next start",
                set: |options, text| set(&mut options.restored, parse_bool(text)),
            },
        ],
        run: journal::run,
    },
];

/// Command for packages. `--help` of the server does not list it.
const GENERATE: Subcommand = Subcommand {
    name: "generate",
    operands: &["FORMAT"],
    about: "print the manual page (man) or completions (bash, zsh, fish)",
    more: "FORMAT is man, bash, zsh or fish.\n",
    specs: &[],
    run: |_, operands| generate::run(COMMANDS, operands),
};

/// Sets the kind of `speak create`, unless the text says no.
fn set_kind(options: &mut CliOptions, kind: Kind, text: &str) -> Result<(), String> {
    if parse_bool(text)? {
        options.kind = kind;
    }
    Ok(())
}

fn parse_id(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(|| format!("'{text}' is not an id: give 7, 0 or -3"))
}

fn parse_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("'{text}' is not a port: give 0 to 65535"))
}

/// Returns the error of a word that may be meant as the name of a command.
fn misspelt(word: &str) -> Option<String> {
    if word.starts_with('-') {
        return None; // an option of the server, as --journal
    }
    if word == "help" {
        return Some("unexpected argument \"help\"; use --help".to_owned());
    }
    let (name, edits) = nearest(word, COMMANDS.iter().map(|command| command.name))?;
    (2 * edits <= word.len())
        .then(|| format!("unexpected argument {word:?}; did you mean speak {name}? see --help"))
}

/// Runs the command that is the first of `arguments`, which begin after the name of the program.
/// Returns None if there is no such or similar command: the arguments are options of the server.
///
/// Exit status: 0 for success, 1 after a failure, 2 for an invalid command line. For the doctor,
/// 3 if it found nothing worse than a warning.
pub fn run(
    arguments: &[OsString],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<ExitCode> {
    let word: &OsStr = arguments.first()?;
    let Some(command) = COMMANDS.iter().chain([&GENERATE]).find(|command| word == command.name)
    else {
        eprint_line(&misspelt(word.to_str()?)?);
        return Some(ExitCode::from(2));
    };
    let (code, line) = match command.call(&arguments[1..], variable) {
        Ok(ExitStatus::Success) | Err(Failure::OutputClosed) => (0, None),
        Ok(ExitStatus::FoundFailures) => (1, None),
        Ok(ExitStatus::FoundWarnings) => (3, None),
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
    fn an_error_names_the_mistake_in_the_command_line_in_one_line() {
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
            (&["journal"], "DIR"),
            (&["journal", "a", "--repair=x"], "--repair"),
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
    fn a_command_line_that_begins_with_no_command_is_for_the_server() {
        let nothing = |_: &str| None;
        assert!(run(&[], nothing).is_none());
        assert!(run(&["--listen".into(), "write".into()], nothing).is_none());
        assert!(run(&["stray".into()], nothing).is_none());
    }
}

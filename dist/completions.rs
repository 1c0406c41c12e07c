//! Completions for a shell on standard output, from the tables that the program itself reads.
//!
//! An example of the library, so that nothing of it is in the binary: `cargo run --example completions -- bash` (`zsh`, `fish`).

use std::fmt::Write;
use std::process::ExitCode;

use speak::cli::COMMANDS;
use speak::options::{Arity, SPECS, Spec};

/// What a shell has to know of an option.
struct Shape {
    name: &'static str,
    /// The kind of its value; empty for none.
    value: &'static str,
    help: &'static str,
}

/// The options of the server, or of a command.
struct Group {
    command: Option<&'static str>,
    shapes: Vec<Shape>,
}

fn main() -> ExitCode {
    let server = Group { command: None, shapes: SPECS.iter().map(shape).collect() };
    let commands = COMMANDS.iter().map(|command| Group {
        command: Some(command.name),
        shapes: command.specs.iter().map(shape).collect(),
    });
    let groups: Vec<Group> = std::iter::once(server).chain(commands).collect();
    let text = match std::env::args().nth(1).as_deref() {
        Some("bash") => bash(&groups),
        Some("zsh") => zsh(&groups),
        Some("fish") => fish(&groups),
        _ => {
            eprintln!("completions: name a shell: bash, zsh or fish");
            return ExitCode::from(2);
        }
    };
    print!("{text}");
    ExitCode::SUCCESS
}

fn shape<T>(spec: &Spec<T>) -> Shape {
    let value = match spec.takes {
        Arity::Nothing => "",
        Arity::One(value) | Arity::Several(value) => value,
    };
    Shape { name: spec.name, value, help: spec.help }
}

/// The values of a kind of which there are few.
fn words(value: &str) -> &'static str {
    if value == "LEVEL" { "error warn info debug" } else { "" }
}

fn names(group: &Group) -> String {
    let own = group.shapes.iter().map(|shape| format!("--{}", shape.name));
    own.chain(["--help".to_owned(), "--version".to_owned()]).collect::<Vec<_>>().join(" ")
}

fn commands() -> String {
    COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

/// Needs nothing of the package bash-completion.
fn bash(groups: &[Group]) -> String {
    let mut text = String::from(
        "# Completions of speak for bash.\n_speak() {\n    \
         local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n    COMPREPLY=()\n",
    );
    let of_kind = |wanted: fn(&Shape) -> bool| {
        let mut names: Vec<_> =
            groups.iter().flat_map(|group| &group.shapes).filter(|it| wanted(it)).collect();
        names.sort_by_key(|shape| shape.name);
        names.dedup_by_key(|shape| shape.name);
        names.iter().map(|shape| format!("--{}", shape.name)).collect::<Vec<_>>().join(" | ")
    };
    let files = of_kind(|shape| shape.value == "FILE");
    let levels = of_kind(|shape| shape.value == "LEVEL");
    let others = of_kind(|shape| !matches!(shape.value, "" | "FILE" | "LEVEL"));
    add(
        &mut text,
        format_args!(
            "    case $before in\n    \
         {files}) mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;;\n    \
         {levels}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$word\"); return ;;\n    \
         {others}) return ;;\n    esac\n    local words\n    case ${{COMP_WORDS[1]}} in\n",
            words("LEVEL")
        ),
    );
    for group in groups {
        if let Some(command) = group.command {
            add(&mut text, format_args!("    {command}) words='{}' ;;\n", names(group)));
        }
    }
    add(&mut text, format_args!("    *) words='{}' ;;\n    esac\n", names(&groups[0])));
    add(
        &mut text,
        format_args!("    [ \"$COMP_CWORD\" -gt 1 ] || words=\"{} $words\"\n", commands()),
    );
    text.push_str("    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\ncomplete -F _speak speak\n");
    text
}

fn zsh(groups: &[Group]) -> String {
    let mut text = String::from(
        "#compdef speak\n# Completions of speak for zsh.\n_speak() {\n    local -a own\n    case $words[2] in\n",
    );
    for group in groups.iter().skip(1).chain(&groups[..1]) {
        let pattern = group.command.unwrap_or("*");
        add(&mut text, format_args!("    {pattern}) own=(\n"));
        for shape in &group.shapes {
            let help = shape
                .help
                .replace('\'', "'\\''")
                .replace('[', "\\[")
                .replace(']', "\\]")
                .replace(':', "\\:");
            let action = match shape.value {
                "" => String::new(),
                "FILE" => ":FILE:_files".to_owned(),
                value => format!(":{value}:({})", words(value)),
            };
            add(&mut text, format_args!("        '*--{}[{help}]{action}'\n", shape.name));
        }
        text.push_str(
            "        '--help[print the options]' '--version[print the version]'\n    ) ;;\n",
        );
    }
    text.push_str("    esac\n    if (( CURRENT == 2 )); then\n        local -a commands\n        commands=(\n");
    for command in COMMANDS {
        add(
            &mut text,
            format_args!(
                "            '{}:{}'\n",
                command.name,
                command.about.replace('\'', "'\\''")
            ),
        );
    }
    text.push_str(
        "        )\n        _describe command commands\n    fi\n    _arguments -s $own '*: :'\n}\n_speak \"$@\"\n",
    );
    text
}

fn fish(groups: &[Group]) -> String {
    let mut text = String::from("# Completions of speak for fish.\ncomplete -c speak -f\n");
    for command in COMMANDS {
        add(
            &mut text,
            format_args!(
                "complete -c speak -n __fish_use_subcommand -a {} -d {}\n",
                command.name,
                quoted(command.about)
            ),
        );
    }
    for group in groups {
        let condition = match group.command {
            Some(command) => format!("__fish_seen_subcommand_from {command}"),
            None => "__fish_use_subcommand".to_owned(),
        };
        for shape in &group.shapes {
            let value = match shape.value {
                "" => String::new(),
                "FILE" => " -r -F".to_owned(),
                value => format!(" -x -a '{}'", words(value)),
            };
            let help = quoted(shape.help);
            add(
                &mut text,
                format_args!(
                    "complete -c speak -n '{condition}' -l {}{value} -d {help}\n",
                    shape.name
                ),
            );
        }
        add(
            &mut text,
            format_args!("complete -c speak -n '{condition}' -l help -d 'print the options'\n"),
        );
    }
    text.push_str("complete -c speak -n __fish_use_subcommand -l version -d 'print the version'\n");
    text
}

fn add(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a String takes everything");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

//! `speak generate man|bash|zsh|fish`: the manual page and completions, for packages.
//!
//! All of them come from the tables of options and commands: a [`Format`] only has templates for
//! the rows of the tables. That keeps the binary small.

mod formats;

use std::ffi::OsString;

use super::exit_status::{ExitStatus, Failure};
use super::output::print;
use super::subcommand::Subcommand;
use crate::options::{ABOUT, NAME_AND_VERSION, OptionInfo, SPECS, VALUES, option_infos};
use formats::{FORMATS, Format};

pub(super) fn run(commands: &[Subcommand], operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let format = FORMATS.iter().find(|format| operands.iter().all(|name| name == format.name));
    match format {
        Some(format) => print(&page(format, commands)).map(|()| ExitStatus::Success),
        None => Err(Failure::Usage("FORMAT must be man, bash, zsh or fish".to_owned())),
    }
}

/// Values for a template.
type Values<'a> = [&'a str; 5];

fn page(format: &'static Format, commands: &[Subcommand]) -> String {
    let mut page = Page { text: Vec::new(), format };
    page.expand(format.begin, &[NAME_AND_VERSION, ABOUT, VALUES, "", ""]);
    for command in commands {
        let usage = command.usage();
        page.expand(format.command, &[command.name, &usage, command.about, command.more, ""]);
    }
    page.expand(format.middle, &Values::default());
    page.push_group([format.server, ""], &option_infos(SPECS));
    for command in commands {
        page.push_group([format.command_prefix, command.name], &option_infos(command.specs));
    }
    page.expand(format.end, &Values::default());
    String::from_utf8_lossy(&page.text).into_owned()
}

struct Page {
    text: Vec<u8>,
    format: &'static Format,
}

impl Page {
    /// Appends the options of the server or of a command. `name` has two parts.
    #[inline(never)]
    fn push_group(&mut self, name: [&str; 2], options: &[OptionInfo]) {
        let format = self.format;
        let mut values = [name[0], name[1], "", "", ""];
        self.expand(format.group, &values);
        for option in options {
            values[2..].copy_from_slice(&[option.name, option.value, &option.help]);
            let value = match option.value {
                "" => "",
                "FILE" => format.file,
                "DIR" => format.dir,
                "LEVEL" => format.level,
                _ => format.value,
            };
            self.expand(format.option, &values);
            self.expand(value, &values);
            self.expand(format.option_end, &values);
        }
        self.expand(format.group_end, &values);
    }

    /// Appends `template` with the values for `%1` to `%5`, escaped.
    #[inline(never)]
    fn expand(&mut self, template: &str, values: &Values) {
        let mut bytes = template.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                self.text.push(byte);
                continue;
            }
            let index = usize::from(bytes.next().unwrap_or_default().wrapping_sub(b'1'));
            for byte in values[index].bytes() {
                match self.format.escapes.iter().find(|(special, _)| *special == byte) {
                    Some((_, escaped)) => self.text.extend_from_slice(escaped.as_bytes()),
                    None => self.text.push(byte),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::COMMANDS;

    #[test]
    fn the_manual_page_names_only_options_that_exist() {
        let page = page(&FORMATS[0], COMMANDS).replace("\\-", "-");
        let infos = COMMANDS
            .iter()
            .flat_map(|command| option_infos(command.specs))
            .chain(option_infos(SPECS));
        let known: Vec<_> = infos.map(|option| option.name).collect();
        for rest in page.split("--").skip(1) {
            let name = rest.split(|letter: char| !letter.is_ascii_lowercase() && letter != '-');
            let name = name.take(1).collect::<String>();
            assert!(name.is_empty() || known.contains(&name.as_str()), "--{name}");
        }
    }
}

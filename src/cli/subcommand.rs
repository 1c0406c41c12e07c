//! A command as a row of a table.

use std::ffi::OsString;

use super::cli_options::{CliOptions, SERVER};
use super::exit_status::{ExitStatus, Failure};
use super::output::print;
use crate::options::{self, BadOption, NAME_AND_VERSION, Parsed, Spec};

/// A command of the shell.
#[derive(Debug)]
pub struct Subcommand {
    /// First argument that selects the command.
    pub name: &'static str,
    /// Names of the arguments that are no options. All of them are required.
    pub operands: &'static [&'static str],
    /// Purpose in one line, without a full stop.
    pub about: &'static str,
    /// Further help: sentences, each ending in a line break.
    pub more: &'static str,
    /// Its options.
    pub specs: &'static [Spec<CliOptions>],
    pub(super) run: fn(&CliOptions, &[OsString]) -> Result<ExitStatus, Failure>,
}

impl Subcommand {
    /// Returns the syntax of the command.
    #[must_use]
    pub fn usage(&self) -> String {
        format!("speak {} [OPTIONS] {}", self.name, self.operands.join(" "))
    }

    pub(super) fn help(&self) -> String {
        let mut text = format!(
            "{NAME_AND_VERSION}: {}\n\nUsage: {}\n\n{}\n",
            self.about,
            self.usage(),
            self.more
        );
        options::push_help(&mut text, &options::option_infos(self.specs));
        text
    }

    /// Parses `arguments`, which begin after the command's name, and runs the command.
    pub(super) fn call(
        &self,
        arguments: &[OsString],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<ExitStatus, Failure> {
        let usage = |BadOption(line)| Failure::Usage(line);
        let mut options = CliOptions::defaults(self.specs);
        // Other options differ from run to run, so they have no variable.
        if let Some(spec) = self.specs.iter().find(|spec| spec.name == SERVER.name) {
            spec.set_from(&mut options, variable).map_err(usage)?;
        }
        let parsed =
            options::read(self.specs, &mut options, self.operands.len(), arguments.to_vec());
        match parsed.map_err(usage)? {
            Parsed::Help => print(&self.help()).map(|()| ExitStatus::Success),
            Parsed::Version => {
                print(&format!("{NAME_AND_VERSION}\n")).map(|()| ExitStatus::Success)
            }
            Parsed::Operands(operands) => match self.operands.get(operands.len()) {
                Some(missing) => {
                    Err(Failure::Usage(format!("{missing} is missing: {}", self.usage())))
                }
                None => (self.run)(&options, &operands),
            },
        }
    }
}

//! A command as a row of a table.

use std::ffi::OsString;

use super::cli_options::{CliOptions, SERVER};
use super::outcome::{Failure, Outcome};
use super::output::print;
use crate::options::{self, BadOption, NAME_AND_VERSION, Parsed, Spec};

/// A command, as far as it can be told in a table.
#[derive(Debug)]
pub struct Command {
    /// The word that calls it.
    pub name: &'static str,
    /// What stands there beside options.
    pub operands: &'static [&'static str],
    /// What it does, in one line without a full stop.
    pub about: &'static str,
    /// The rest of what there is to say, in sentences, a line each.
    pub more: &'static str,
    /// Its options.
    pub specs: &'static [Spec<CliOptions>],
    pub(super) run: fn(&CliOptions, &[OsString]) -> Result<Outcome, Failure>,
}

impl Command {
    /// How it is called.
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

    /// Does all of it: reads the rest of the command line, and runs.
    pub(super) fn call(
        &self,
        arguments: &[OsString],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Outcome, Failure> {
        let usage = |BadOption(line)| Failure::Usage(line);
        let mut choices = CliOptions::defaults(self.specs);
        // No other option is one that somebody would want to set for good.
        if let Some(spec) = self.specs.iter().find(|spec| spec.name == SERVER.name) {
            spec.set_from(&mut choices, variable).map_err(usage)?;
        }
        let given =
            options::read(self.specs, &mut choices, self.operands.len(), arguments.to_vec());
        match given.map_err(usage)? {
            Parsed::Help => print(&self.help()).map(|()| Outcome::Done),
            Parsed::Version => print(&format!("{NAME_AND_VERSION}\n")).map(|()| Outcome::Done),
            Parsed::Operands(operands) => match self.operands.get(operands.len()) {
                Some(missing) => {
                    Err(Failure::Usage(format!("{missing} is missing: {}", self.usage())))
                }
                None => (self.run)(&choices, &operands),
            },
        }
    }
}

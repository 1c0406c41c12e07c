//! Options as rows of a table: how they are read, and how they are told.
//!
//! The server has one table, and each command of the shell another of the same kind.

use std::ffi::OsString;
use std::fmt::Write;

/// One line that names the option and says what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct BadOption(pub String);

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Nothing; in the environment yes or no.
    Nothing,
    /// A value of this kind: `TIME`, `SIZE`, …
    One(&'static str),
    /// The same, and may be repeated; in the environment separated by commas.
    Several(&'static str),
}

/// An option of the settings `T`, as far as it can be told in a table.
#[derive(Debug)]
pub struct Spec<T> {
    /// Without the dashes.
    pub name: &'static str,
    /// What follows it.
    pub takes: Arity,
    /// As it would be written in the environment; empty for none.
    pub default: &'static str,
    /// What it sets, in one line without a full stop.
    pub help: &'static str,
    pub(crate) set: fn(&mut T, &str) -> Result<(), String>,
}

/// What a table sets.
pub trait Settings: 'static {
    /// Empties the list that the option of this name fills; nothing where it fills none.
    fn clear_list(&mut self, name: &str);
}

/// What a command line was, beside options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// What stands there by itself, in order.
    Operands(Vec<OsString>),
    Help,
    Version,
}

impl<T> Spec<T> {
    /// The environment variable that sets it too.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("SPEAK_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

impl<T: Settings> Spec<T> {
    /// Sets the option anew, from a list where it takes several.
    pub(crate) fn set_all(&self, settings: &mut T, text: &str) -> Result<(), String> {
        settings.clear_list(self.name);
        match self.takes {
            // Nothing is set where that is the default; whoever gives the option has to give a value.
            Arity::Several(_) | Arity::One(_) if text.is_empty() && self.default.is_empty() => {
                Ok(())
            }
            Arity::Several(_) => {
                text.split(',').try_for_each(|item| (self.set)(settings, item.trim()))
            }
            Arity::Nothing | Arity::One(_) => (self.set)(settings, text),
        }
    }

    /// Sets the option from its variable, if that is there and not empty.
    pub(crate) fn set_from(
        &self,
        settings: &mut T,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), BadOption> {
        let name = self.variable();
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { return Ok(()) };
        let text = value.to_str().ok_or_else(|| BadOption(format!("{name} is not UTF-8")))?;
        self.set_all(settings, text).map_err(|fault| BadOption(format!("{name}: {fault}")))
    }
}

/// Reads a command line with up to `operands_max` operands.
pub(crate) fn read<T: Settings>(
    specs: &[Spec<T>],
    settings: &mut T,
    operands_max: usize,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Parsed, BadOption> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut given: Vec<&str> = Vec::new();
    let mut operands = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| BadOption(error.to_string()))? {
        use lexopt::Arg::{Long, Short, Value};
        let spec = match argument {
            Long("help") | Short('h') => return Ok(Parsed::Help),
            Long("version") | Short('V') => return Ok(Parsed::Version),
            Long(name) => specs.iter().find(|spec| spec.name == name),
            Value(operand) if operands.len() < operands_max => {
                operands.push(operand);
                continue;
            }
            _ => None,
        };
        let spec = spec.ok_or_else(|| BadOption(argument.unexpected().to_string()))?;
        let fault = |fault: String| BadOption(format!("--{}: {fault}", spec.name));
        if !given.contains(&spec.name) {
            given.push(spec.name);
            settings.clear_list(spec.name);
        }
        let value = match spec.takes {
            Arity::Nothing => "on".into(),
            Arity::One(_) | Arity::Several(_) => {
                parser.value().map_err(|_| fault("needs a value".into()))?
            }
        };
        let text = value.to_str().ok_or_else(|| fault("is not UTF-8".into()))?;
        (spec.set)(settings, text).map_err(fault)?;
    }
    Ok(Parsed::Operands(operands))
}

/// The options as `--help` tells them, a line each.
pub(crate) fn push_help<T>(text: &mut String, specs: &[Spec<T>]) {
    for spec in specs {
        let (value, note) = match spec.takes {
            Arity::Nothing => ("", ""),
            Arity::One(value) => (value, ""),
            Arity::Several(value) => (value, "; repeatable"),
        };
        let left = format!("--{} {value}", spec.name);
        let is_told = spec.takes != Arity::Nothing && !spec.default.is_empty();
        let default = if is_told { format!(" [{}]", spec.default) } else { String::new() };
        writeln!(text, "  {left:<26} {}{note}{default}", spec.help)
            .expect("a String takes everything");
    }
    text.push_str("  --help, --version          print this, or the version\n");
}

pub(crate) fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

pub(crate) fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

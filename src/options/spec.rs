//! Options as rows of a table: how they are read, and how they are told.
//!
//! The server has one table, and each command of the shell another of the same kind.

use std::ffi::OsString;

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

/// An option as texts about it need it: help, manual page and completions.
#[derive(Debug)]
pub(crate) struct OptionInfo {
    pub name: &'static str,
    /// Kind of the value; empty for a switch.
    pub value: &'static str,
    /// With the default in brackets.
    pub help: String,
}

/// Returns the options of a table, and those that every table has.
pub(crate) fn option_infos<T>(specs: &[Spec<T>]) -> Vec<OptionInfo> {
    let mut infos = Vec::new();
    for spec in specs {
        push_info(&mut infos, spec.name, spec.takes, spec.help, spec.default);
    }
    push_info(&mut infos, "help", Arity::Nothing, "this text", "");
    push_info(&mut infos, "version", Arity::Nothing, "the version", "");
    infos
}

#[inline(never)]
fn push_info(
    infos: &mut Vec<OptionInfo>,
    name: &'static str,
    takes: Arity,
    help: &str,
    default: &str,
) {
    let (value, note) = match takes {
        Arity::Nothing => ("", ""),
        Arity::One(value) => (value, ""),
        Arity::Several(value) => (value, "; repeatable"),
    };
    let default =
        if value.is_empty() || default.is_empty() { ["", "", ""] } else { [" [", default, "]"] };
    let [begin, default, end] = default;
    infos.push(OptionInfo { name, value, help: [help, note, begin, default, end].concat() });
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
    arguments: Vec<OsString>,
) -> Result<Parsed, BadOption> {
    let mut is_given = vec![false; specs.len()];
    read_words(&option_infos(specs), operands_max, arguments, &mut |index, text| {
        if !std::mem::replace(&mut is_given[index], true) {
            settings.clear_list(specs[index].name);
        }
        (specs[index].set)(settings, text)
    })
}

/// Calls `set` for each option, with its index in `options` and its value.
// Not generic, so that the binary holds it once.
fn read_words(
    options: &[OptionInfo],
    operands_max: usize,
    arguments: Vec<OsString>,
    set: &mut dyn FnMut(usize, &str) -> Result<(), String>,
) -> Result<Parsed, BadOption> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut operands = Vec::new();
    while let Some(argument) = parser.next().map_err(|error| BadOption(error.to_string()))? {
        use lexopt::Arg::{Long, Short, Value};
        let index = match argument {
            Long("help") | Short('h') => return Ok(Parsed::Help),
            Long("version") | Short('V') => return Ok(Parsed::Version),
            Long(name) => options.iter().position(|option| option.name == name),
            Value(operand) if operands.len() < operands_max => {
                operands.push(operand);
                continue;
            }
            _ => None,
        };
        let index = index.ok_or_else(|| BadOption(argument.unexpected().to_string()))?;
        let OptionInfo { name, value, .. } = options[index];
        let fault = |fault: String| BadOption(format!("--{name}: {fault}"));
        let value = if value.is_empty() {
            "on".into()
        } else {
            parser.value().map_err(|_| fault("needs a value".into()))?
        };
        let text = value.to_str().ok_or_else(|| fault("is not UTF-8".into()))?;
        set(index, text).map_err(fault)?;
    }
    Ok(Parsed::Operands(operands))
}

/// Appends one line of `--help` for each option.
pub(crate) fn push_help(text: &mut String, options: &[OptionInfo]) {
    const SPACES: &str = "                                        ";
    let left_bytes = |option: &OptionInfo| option.name.len() + option.value.len();
    let widest = options.iter().map(left_bytes).max().unwrap_or_default();
    for option in options {
        let padding = SPACES.get(..widest - left_bytes(option)).unwrap_or_default();
        let parts = ["  --", option.name, " ", option.value, "  ", padding, &option.help, "\n"];
        text.push_str(&parts.concat());
    }
}

pub(crate) fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

pub(crate) fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

//! Options as rows of a table, and the parser and help that use them.
//!
//! The server has one table. Each command has another of the same kind.

use std::ffi::OsString;

use super::nearest::nearest;

/// One line with the option, the error, and the remedy.
#[derive(Debug, PartialEq, Eq)]
pub struct BadOption(pub String);

/// Number and kind of the values of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// No value. The environment has yes or no.
    Nothing,
    /// One value of this kind: `TIME`, `SIZE`, …
    One(&'static str),
    /// A list of values of this kind: the option is repeatable, the environment has commas.
    Several(&'static str),
}

/// A row of a table: an option of the settings `T`.
#[derive(Debug)]
pub struct Spec<T> {
    /// Name without the dashes.
    pub name: &'static str,
    /// Number and kind of its values.
    pub takes: Arity,
    /// Default, as the environment would have it. Empty for none.
    pub default: &'static str,
    /// Noun phrase without a full stop.
    pub help: &'static str,
    pub(crate) set: fn(&mut T, &str) -> Result<(), String>,
}

/// Settings that a table fills.
pub trait Settings: 'static {
    /// Empties the list of the option `name`. Does nothing if the option has no list.
    fn clear_list(&mut self, name: &str);
}

/// Result of reading a command line, besides the options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Arguments that are no options, in order.
    Operands(Vec<OsString>),
    Help,
    Version,
}

/// The texts of an option, for help, manual page and completions.
#[derive(Debug)]
pub(crate) struct OptionInfo {
    pub name: &'static str,
    /// Kind of the value. Empty for a switch.
    pub value: &'static str,
    /// Help with the default in brackets.
    pub help: String,
}

/// Returns the options of a table, then `--help` and `--version`.
pub(crate) fn option_infos<T>(specs: &[Spec<T>]) -> Vec<OptionInfo> {
    let mut infos = Vec::new();
    for spec in specs {
        push_info(&mut infos, spec.name, spec.takes, spec.help, spec.default);
    }
    push_info(&mut infos, "help", Arity::Nothing, "print this text", "");
    push_info(&mut infos, "version", Arity::Nothing, "print the version", "");
    infos
}

// Not inlined, so that the binary holds it once.
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
    let has_default = !value.is_empty() && !default.is_empty();
    let [begin, default, end] = if has_default { [" [", default, "]"] } else { [""; 3] };
    infos.push(OptionInfo { name, value, help: [help, note, begin, default, end].concat() });
}

impl<T> Spec<T> {
    /// Returns the name of the option's environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("SPEAK_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

impl<T: Settings> Spec<T> {
    /// Replaces the value of the option. `text` has commas if the option takes several values.
    pub(crate) fn set_all(&self, settings: &mut T, text: &str) -> Result<(), String> {
        settings.clear_list(self.name);
        match self.takes {
            // An option with an empty default may be unset. On the command line it needs a value.
            Arity::Several(_) | Arity::One(_) if text.is_empty() && self.default.is_empty() => {
                Ok(())
            }
            Arity::Several(_) => {
                text.split(',').try_for_each(|item| (self.set)(settings, item.trim()))
            }
            Arity::Nothing | Arity::One(_) => (self.set)(settings, text),
        }
    }

    /// Sets the option from its environment variable, unless the variable is unset or empty.
    pub(crate) fn set_from(
        &self,
        settings: &mut T,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), BadOption> {
        let name = self.variable();
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { return Ok(()) };
        let text = value.to_str().ok_or_else(|| BadOption(format!("{name} is not UTF-8")))?;
        self.set_all(settings, text).map_err(|error| BadOption(format!("{name}: {error}")))
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
        // The first value replaces the list of the default or of the environment.
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
    let bad_command_line = |error: lexopt::Error, nearest: Option<&str>| {
        BadOption(match nearest {
            Some(name) => format!("{error}; did you mean --{name}? see --help"),
            None => format!("{error}; see --help"),
        })
    };
    while let Some(argument) = parser.next().map_err(|error| bad_command_line(error, None))? {
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
        let Some(index) = index else {
            let similar = match &argument {
                Long(given) => nearest(given, options.iter().map(|option| option.name))
                    .filter(|(_, edits)| 2 * edits <= given.len()),
                _ => None,
            };
            let name = similar.map(|(name, _)| name);
            return Err(bad_command_line(argument.unexpected(), name));
        };
        let OptionInfo { name, value, .. } = options[index];
        let bad_option = |error: String| BadOption(format!("--{name}: {error}"));
        let text = if value.is_empty() {
            "on".into()
        } else {
            parser.value().map_err(|_| bad_option("needs a value; see --help".into()))?
        };
        let text = text.to_str().ok_or_else(|| bad_option("is not UTF-8".into()))?;
        set(index, text).map_err(bad_option)?;
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

/// Stores `value` in `target`, for the setters of a table.
pub(crate) fn set<T>(target: &mut T, value: Result<T, String>) -> Result<(), String> {
    *target = value?;
    Ok(())
}

/// Adds `value` to `list`, for the setters of a table.
pub(crate) fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

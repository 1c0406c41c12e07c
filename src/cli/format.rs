//! Messages as lines of text.

use std::fmt::Write;

use serde_json::Value;

/// The keys of a message in the order of the protocol.
const KEYS: [&str; 6] = ["id", "type", "time", "from", "message", "reason"];

/// Who reads what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// A person, on a terminal that obeys control characters.
    Terminal,
    Program,
}

/// The text of a message as one line. None for what is not said but done: introductions, goodbyes.
pub(super) fn text_line(message: &Value, output: Output) -> Option<String> {
    let text = message["message"].as_str().filter(|_| message["type"] == "message")?;
    let is_kept = |letter: char| match output {
        Output::Terminal => !is_control(letter),
        Output::Program => !matches!(letter, '\n' | '\r'),
    };
    Some(escaped(text, is_kept))
}

/// A message as one line of JSON, its keys as the server sends them.
pub(super) fn json_line(message: &Value, output: Output) -> String {
    let mut line = String::from("{");
    for key in KEYS {
        // Strings and numbers are all that a message has; to print any value would take more code than all of this file.
        let value = match &message[key] {
            Value::String(text) => serde_json::to_string(text).unwrap_or_default(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        let comma = if line.len() > 1 { "," } else { "" };
        write!(line, "{comma}\"{key}\":{value}").expect("a String takes everything");
    }
    line.push('}');
    if output == Output::Program {
        return line;
    }
    // The escapes of JSON cover only the first 32.
    let mut safe = String::new();
    for letter in line.chars() {
        if is_control(letter) {
            write!(safe, "\\u{:04x}", u32::from(letter)).expect("a String takes everything");
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Somebody else's text, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    escaped(text, |letter| !is_control(letter))
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_kept(letter) {
            line.push(letter);
        } else {
            line.extend(letter.escape_default());
        }
    }
    line
}

/// What a terminal obeys, or what turns the order of letters around: what stands there would not be what is seen.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_line_and_does_not_command_a_terminal() {
        let line = |text: &str, output| {
            text_line(&json!({"type": "message", "message": text}), output).unwrap()
        };
        assert_eq!(line("ä\tb", Output::Program), "ä\tb");
        assert_eq!(line("a\r\nb\x1b[2J", Output::Program), "a\\r\\nb\x1b[2J");
        assert_eq!(
            line("a\nb\x1b[2J\u{9b}c\u{202e}d\x7f", Output::Terminal),
            "a\\nb\\u{1b}[2J\\u{9b}c\\u{202e}d\\u{7f}"
        );
        assert_eq!(
            text_line(&json!({"type": "introduction", "message": "Josh"}), Output::Program),
            None
        );
    }

    #[test]
    fn a_message_in_json_keeps_the_order_of_its_keys() {
        let text =
            r#"{"id":7,"type":"goodbye","time":1,"from":1,"message":"\u001b\n","reason":"left"}"#;
        let message: Value = serde_json::from_str(text).unwrap();
        assert_eq!(json_line(&message, Output::Program), text);
        let message = json!({"message": "\u{9b}"});
        assert_eq!(json_line(&message, Output::Terminal), r#"{"message":"\u009b"}"#);
    }
}

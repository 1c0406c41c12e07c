//! Messages as lines of text, safe to print on a terminal.

use std::fmt::Write;

use serde_json::Value;

/// Keys of a message in the order of the protocol.
const KEYS: [&str; 8] = ["id", "type", "time", "from", "owner", "message", "reason", "of"];

/// Destination of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// A person. A terminal obeys control characters, so they are escaped.
    Terminal,
    /// A program. It gets all characters except line breaks as they are.
    Program,
}

/// Returns the text of a message as one line. None for introductions and goodbyes.
pub(super) fn text_line(message: &Value, output: Output) -> Option<String> {
    let text = message["message"].as_str().filter(|_| message["type"] == "message")?;
    let is_kept = |letter: char| match output {
        Output::Terminal => !is_control(letter),
        Output::Program => !matches!(letter, '\n' | '\r'),
    };
    Some(escaped(text, is_kept))
}

/// Returns a message as one line of JSON, with its keys in the order of the server.
pub(super) fn json_line(message: &Value, output: Output) -> String {
    let mut line = String::from("{");
    for key in KEYS {
        // A message has only strings, numbers and `true`. Code that prints any value is larger than
        // this whole file.
        let value = match &message[key] {
            Value::String(text) => serde_json::to_string(text).unwrap_or_default(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "true".to_owned(),
            _ => continue,
        };
        let comma = if line.len() > 1 { "," } else { "" };
        write!(line, "{comma}\"{key}\":{value}").expect("a String accepts all text");
    }
    line.push('}');
    if output == Output::Program { line } else { printable_json(&line) }
}

/// Returns a line of JSON with its control characters escaped. JSON itself escapes only the first
/// 32 of them.
pub(super) fn printable_json(line: &str) -> String {
    let mut safe = String::new();
    for letter in line.chars() {
        if is_control(letter) {
            write!(safe, "\\u{:04x}", u32::from(letter)).expect("a String accepts all text");
        } else {
            safe.push(letter);
        }
    }
    safe
}

/// Returns text from a server with its control characters escaped.
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

/// Returns whether a terminal obeys the character, or changes the direction of text because of it.
/// Both would show something else than the text.
fn is_control(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}')
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_line_and_cannot_control_a_terminal() {
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
        for text in [
            r#"{"id":7,"type":"goodbye","time":1,"from":1,"message":"\u001b\n","reason":"left"}"#,
            r#"{"id":8,"type":"message","time":1,"from":1,"owner":true,"message":"howdy"}"#,
            r#"{"id":9,"type":"removal","time":1,"of":8}"#,
        ] {
            let message: Value = serde_json::from_str(text).unwrap();
            assert_eq!(json_line(&message, Output::Program), text);
        }
        let message = json!({"message": "\u{9b}"});
        assert_eq!(json_line(&message, Output::Terminal), r#"{"message":"\u009b"}"#);
    }
}

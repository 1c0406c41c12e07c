//! Forms (`application/x-www-form-urlencoded`) in a query or a body.

use std::borrow::Cow;

/// Returns the names and values of a form. A name without `=` has an empty value. Empty pairs are
/// skipped.
#[must_use]
pub fn pairs(form: &str) -> FormPairs<'_> {
    FormPairs { rest: form }
}

/// Iterator over the pairs of a form; see [`pairs`].
#[derive(Clone, Debug)]
pub struct FormPairs<'a> {
    rest: &'a str,
}

/// Encoded name or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormText<'a> {
    /// Text as it is in the form.
    pub text: &'a str,
    is_plain: bool,
}

/// Error: a decoded name or value is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl<'a> Iterator for FormPairs<'a> {
    type Item = (FormText<'a>, FormText<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.rest.bytes().position(|byte| byte != b'&')?;
        let form = &self.rest[start..];
        let name = FormText::split_at_byte(form, name_end(form.as_bytes()), |rest| {
            memchr::memchr2(b'=', b'&', rest)
        });
        self.rest = &form[name.text.len()..];
        let Some(value) = self.rest.strip_prefix('=') else {
            return Some((name, FormText { text: "", is_plain: true }));
        };
        let first = memchr::memchr3(b'&', b'%', b'+', value.as_bytes());
        let value = FormText::split_at_byte(value, first, |rest| memchr::memchr(b'&', rest));
        self.rest = &self.rest[1 + value.text.len()..];
        Some((name, value))
    }
}

/// Returns the index of the first of `=&%+`. Names are short: a plain loop ends before a vectorized
/// search has started.
fn name_end(form: &[u8]) -> Option<usize> {
    form.iter().position(|byte| matches!(byte, b'=' | b'&' | b'%' | b'+'))
}

impl<'a> FormText<'a> {
    /// Returns the text before the first separator. `first` is the index of the first separator or
    /// escape, so a text without escapes needs only one search. After an escape, `separator`
    /// searches the rest.
    fn split_at_byte(
        text: &'a str,
        first: Option<usize>,
        separator: impl Fn(&[u8]) -> Option<usize>,
    ) -> Self {
        let bytes = text.as_bytes();
        let Some(first) = first else { return Self { text, is_plain: true } };
        if !matches!(bytes[first], b'%' | b'+') {
            return Self { text: &text[..first], is_plain: true };
        }
        let end = separator(&bytes[first..]).map_or(bytes.len(), |at| first + at);
        Self { text: &text[..end], is_plain: false }
    }

    /// Decodes the text: `+` is a space, `%XX` a byte, and a broken escape stays as it is.
    ///
    /// Borrows a text without escapes, the usual case.
    ///
    /// # Errors
    ///
    /// [`NotUtf8`].
    #[inline]
    pub fn decode(self) -> Result<Cow<'a, str>, NotUtf8> {
        if self.is_plain { Ok(Cow::Borrowed(self.text)) } else { decode(self.text).map(Cow::Owned) }
    }
}

/// Decodes in two passes over long stretches: spaces first, since a decoded `%2B` is no space.
fn decode(encoded: &str) -> Result<String, NotUtf8> {
    let bytes = encoded.as_bytes();
    let mut decoded: Vec<u8> =
        bytes.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    if let Some(first) = memchr::memchr(b'%', bytes) {
        let length = decode_escapes(bytes, &mut decoded, first);
        decoded.truncate(length);
    }
    String::from_utf8(decoded).map_err(|_| NotUtf8)
}

/// Decodes the escapes from index `first` on. `decoded` has the bytes of `encoded`, with spaces
/// decoded. Returns the length of the result.
fn decode_escapes(encoded: &[u8], decoded: &mut [u8], first: usize) -> usize {
    let (mut from, mut to) = (first, first);
    while from < encoded.len() {
        // The byte at `from` is a percent sign.
        let (value, length) =
            escaped_byte(&encoded[from + 1..]).map_or((b'%', 1), |value| (value, 3));
        decoded[to] = value;
        to += 1;
        from += length;
        if encoded.get(from) == Some(&b'%') {
            // Escapes in a row, as in a text that is not in Latin letters.
            continue;
        }
        let plain = memchr::memchr(b'%', &encoded[from..]).unwrap_or(encoded.len() - from);
        decoded.copy_within(from..from + plain, to);
        from += plain;
        to += plain;
    }
    to
}

fn escaped_byte(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    Some((digit(0)? * 16 + digit(1)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_as_html_forms_encode_them() {
        let cases: &[(&str, &str)] = &[
            ("", ""),
            ("plain", "plain"),
            ("ü", "ü"),
            ("a+b", "a b"),
            ("+ü+", " ü "),
            ("%41%7e%c3%bC", "A~ü"),
            ("%2B%25%26%3D", "+%&="),
            ("a%20b+c%", "a b c%"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
            ("%+1", "% 1"),
            ("%ü", "%ü"),
            ("100%", "100%"),
            ("%00", "\0"),
        ];
        for (encoded, decoded) in cases {
            for form in [format!("&a={encoded}&b"), format!("a={encoded}")] {
                let (name, value) = pairs(&form).next().unwrap();
                assert_eq!(name.decode().as_deref(), Ok("a"));
                assert_eq!(value.decode().as_deref(), Ok(*decoded), "{encoded}");
            }
            if !encoded.is_empty() {
                let form = format!("{encoded}=a=b&");
                let (name, value) = pairs(&form).next().unwrap();
                assert_eq!(name.decode().as_deref(), Ok(*decoded), "{encoded}");
                assert_eq!(value.text, "a=b");
            }
        }
        for encoded in ["%ff", "%c3", "a%80+", "%ed%a0%80", "%c0%af"] {
            let form = format!("a={encoded}");
            let (_, value) = pairs(&form).next().unwrap();
            assert_eq!(value.decode(), Err(NotUtf8), "{encoded}");
        }
    }

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        let split = |form: &'static str| {
            pairs(form).map(|(name, value)| (name.text, value.text)).collect::<Vec<_>>()
        };
        assert_eq!(
            split("a=1&b=2=3&c&=d&&e="),
            [("a", "1"), ("b", "2=3"), ("c", ""), ("", "d"), ("e", "")]
        );
        assert_eq!(split("&&ü=é&"), [("ü", "é")]);
        assert_eq!(split("a=%&b=+&c"), [("a", "%"), ("b", "+"), ("c", "")]);
        assert_eq!(split(""), []);
        assert_eq!(split("&"), []);
    }
}

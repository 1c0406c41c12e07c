//! Parameters as HTML forms encode them, in a query or a body.

use std::borrow::Cow;

/// The names and values of a form. A name without `=` has an empty value; empty pieces are skipped.
#[must_use]
pub fn pairs(form: &str) -> FormPairs<'_> {
    FormPairs { rest: form }
}

/// See [`pairs`].
#[derive(Clone, Debug)]
pub struct FormPairs<'a> {
    rest: &'a str,
}

/// A name or a value, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormText<'a> {
    /// As it stands in the form.
    pub text: &'a str,
    is_plain: bool,
}

/// What a name or value decodes to is not UTF-8.
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

/// As a search for any of `=&%+`. Names are short: a plain loop is done with one before a vectorized search has begun.
fn name_end(form: &[u8]) -> Option<usize> {
    form.iter().position(|byte| matches!(byte, b'=' | b'&' | b'%' | b'+'))
}

impl<'a> FormText<'a> {
    /// What stands before the first separator. `first` is where the first separator or escape is, so that one search
    /// tells where a plain text ends, and that it is plain; only an escaped one needs `separator`, to search on.
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

    /// Decodes it: `+` is a space, `%XX` a byte, a broken escape stays as it is.
    ///
    /// Borrows where there is nothing to decode, as is usual.
    ///
    /// # Errors
    ///
    /// [`NotUtf8`].
    #[inline]
    pub fn decode(self) -> Result<Cow<'a, str>, NotUtf8> {
        if self.is_plain { Ok(Cow::Borrowed(self.text)) } else { decode(self.text).map(Cow::Owned) }
    }
}

/// Decodes in two passes, both of them over whole stretches: spaces first, since a decoded `%2B` is none.
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

/// Decodes the escapes from the first one on; `decoded` has the bytes of `encoded`, but for spaces. Returns the length.
fn decode_escapes(encoded: &[u8], decoded: &mut [u8], first: usize) -> usize {
    let (mut from, mut to) = (first, first);
    while from < encoded.len() {
        // At `from` stands a percent sign.
        let (value, length) =
            escaped_byte(&encoded[from + 1..]).map_or((b'%', 1), |value| (value, 3));
        decoded[to] = value;
        to += 1;
        from += length;
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
        let of = |form: &'static str| {
            pairs(form).map(|(name, value)| (name.text, value.text)).collect::<Vec<_>>()
        };
        assert_eq!(
            of("a=1&b=2=3&c&=d&&e="),
            [("a", "1"), ("b", "2=3"), ("c", ""), ("", "d"), ("e", "")]
        );
        assert_eq!(of("&&ü=é&"), [("ü", "é")]);
        assert_eq!(of("a=%&b=+&c"), [("a", "%"), ("b", "+"), ("c", "")]);
        assert_eq!(of(""), []);
        assert_eq!(of("&"), []);
    }
}

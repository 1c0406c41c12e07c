//! Parameters as HTML forms encode them, in a query or a body.

use std::borrow::Cow;

/// The names and values of a form, still encoded. A name without `=` has an empty value; empty pieces are skipped.
pub fn pairs(form: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| match memchr::memchr(b'=', pair) {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (pair, &pair[pair.len()..]),
    })
}

/// Decodes one name or value: `+` is a space, `%XX` a byte, a broken escape stays as it is.
///
/// Borrows where there is nothing to decode, as is usual.
#[must_use]
pub fn decode(encoded: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr::memchr2(b'%', b'+', encoded) else {
        return Cow::Borrowed(encoded);
    };
    let mut decoded = Vec::with_capacity(encoded.len());
    decoded.extend_from_slice(&encoded[..first]);
    let mut rest = &encoded[first..];
    while let Some((byte, after)) = rest.split_first() {
        let (value, length) = match byte {
            b'+' => (b' ', 1),
            b'%' => escaped_byte(after).map_or((b'%', 1), |value| (value, 3)),
            other => (*other, 1),
        };
        decoded.push(value);
        rest = &rest[length..];
    }
    Cow::Owned(decoded)
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
        let cases: &[(&str, &[u8])] = &[
            ("", b""),
            ("plain", b"plain"),
            ("a+b", b"a b"),
            ("%41%7e%c3%bC", b"A~\xc3\xbc"),
            ("%2B%25%26%3D", b"+%&="),
            ("%", b"%"),
            ("%4", b"%4"),
            ("%zz%41", b"%zzA"),
            ("%%41", b"%A"),
            ("%+1", b"% 1"),
            ("100%", b"100%"),
            ("%00", b"\0"),
        ];
        for (encoded, decoded) in cases {
            assert_eq!(&*decode(encoded.as_bytes()), *decoded, "{encoded}");
        }
    }

    #[test]
    fn pairs_are_split_at_the_first_equals_sign() {
        let of = |form: &'static str| -> Vec<_> {
            let text = |bytes| str::from_utf8(bytes).unwrap();
            pairs(form.as_bytes()).map(|(name, value)| (text(name), text(value))).collect()
        };
        assert_eq!(of("a=1&b=2=3&c&=d&&e="), [("a", "1"), ("b", "2=3"), ("c", ""), ("", "d"), ("e", "")]);
        assert_eq!(of(""), []);
        assert_eq!(of("&"), []);
    }
}

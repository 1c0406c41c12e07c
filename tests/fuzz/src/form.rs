//! Forms, compared with a decoder that takes them byte by byte.
//!
//! An input is a form, up to the first byte that is not UTF-8.

use speak::http::{NotUtf8, pairs};
use support::http;

/// Runs one input.
pub fn run(input: &[u8]) {
    let form = match str::from_utf8(input) {
        Ok(form) => form,
        Err(error) => str::from_utf8(&input[..error.valid_up_to()]).expect("that much is"),
    };
    let got: Vec<_> = pairs(form).map(|(name, value)| (name.decode(), value.decode())).collect();
    let expected = naive_pairs(form.as_bytes());
    assert_eq!(got.len(), expected.len(), "how many");
    for ((name, value), (its_name, its_value)) in got.into_iter().zip(expected) {
        assert_eq!(
            name.map_err(|NotUtf8| ()).as_deref(),
            String::from_utf8(its_name).map_err(drop).as_deref(),
            "name"
        );
        assert_eq!(
            value.map_err(|NotUtf8| ()).as_deref(),
            String::from_utf8(its_value).map_err(drop).as_deref(),
            "value"
        );
    }
    let mut plain = String::new();
    http::push_encoded(&mut plain, form);
    let all = form.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    for encoded in [plain, all] {
        let pair = format!("{encoded}={encoded}");
        let (name, value) = pairs(&pair).next().expect("one pair");
        assert_eq!(name.decode().as_deref(), Ok(form), "a name encoded and decoded");
        assert_eq!(value.decode().as_deref(), Ok(form), "a value encoded and decoded");
    }
}

/// Decodes names and values to bytes.
pub(crate) fn naive_pairs(form: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pieces = form.split(|byte| *byte == b'&').filter(|piece| !piece.is_empty());
    let pairs = pieces.map(|piece| match piece.iter().position(|byte| *byte == b'=') {
        Some(at) => (naive_decode(&piece[..at]), naive_decode(&piece[at + 1..])),
        None => (naive_decode(piece), Vec::new()),
    });
    pairs.collect()
}

fn naive_decode(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < encoded.len() {
        let digits =
            encoded.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match (encoded[at], digits) {
            (b'+', _) => decoded.push(b' '),
            (b'%', Some(digits)) => {
                let digits = str::from_utf8(digits).expect("digits");
                decoded.push(u8::from_str_radix(digits, 16).expect("digits"));
                at += 2;
            }
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}

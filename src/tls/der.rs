//! Elements of DER (X.690), as far as keys and certificates need to be looked into.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;

/// Splits an element of DER into its content and the bytes after it, if its tag is `tag`.
pub(super) fn expect(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        // Certificates and keys are shorter than 2^24 bytes.
        0x81..=0x83 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), bytes)
        }
        _ => return None,
    };
    (found == tag).then(|| bytes.split_at_checked(length))?
}

/// Encodes an element whose content has less than 256 bytes.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short element");
    let header = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [&header, content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_one_of_two_forms() {
        // Several bytes, one that is too long, and the form without a length.
        assert_eq!(expect(SEQUENCE, &[0x30, 0x82, 0, 1, 7, 8]), Some((&[7][..], &[8][..])));
        assert_eq!(expect(SEQUENCE, &[0x30, 0x84, 0, 0, 0, 1, 7]), None);
        assert_eq!(expect(SEQUENCE, &[0x30, 0x80, 0, 0]), None);
        for length in [0, 1, 127, 128, 255] {
            let content = vec![7; length];
            let bytes = element(SEQUENCE, &content);
            assert_eq!(expect(SEQUENCE, &bytes), Some((&content[..], &[][..])));
            assert_eq!(expect(INTEGER, &bytes), None);
        }
    }
}

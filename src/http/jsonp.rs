//! Names of JSONP callbacks.

/// Bytes of the longest callback name.
const CALLBACK_BYTES_MAX: usize = 128;

/// Valid callback name: a dotted path of identifiers and `[digits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Callback<'a>(&'a str);

/// Error: the name is not such a path, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadCallback;

impl<'a> Callback<'a> {
    /// Checks a name. The grammar is so narrow that no name is code or markup. After the comment
    /// that each JSONP response begins with, none is another file format either ("Rosetta Flash",
    /// 2014).
    ///
    /// # Errors
    ///
    /// [`BadCallback`] for anything else.
    pub(crate) fn parse(name: &'a str) -> Result<Self, BadCallback> {
        if name.len() > CALLBACK_BYTES_MAX {
            return Err(BadCallback);
        }
        let mut rest = after_identifier(name.as_bytes())?;
        while let Some((byte, after)) = rest.split_first() {
            rest = match byte {
                b'.' => after_identifier(after)?,
                b'[' => after_index(after)?,
                _ => return Err(BadCallback),
            };
        }
        Ok(Self(name))
    }

    /// Name of the callback.
    #[must_use]
    pub(crate) fn as_str(&self) -> &'a str {
        self.0
    }

    /// Returns the callback of a name that was checked before.
    #[must_use]
    pub(crate) fn assume_valid(name: &'a str) -> Self {
        debug_assert_eq!(Self::parse(name), Ok(Self(name)));
        Self(name)
    }
}

#[inline]
fn after_identifier(text: &[u8]) -> Result<&[u8], BadCallback> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let length = text.iter().take_while(|byte| is_part(byte)).count();
    if length == 0 || text[0].is_ascii_digit() {
        return Err(BadCallback);
    }
    Ok(&text[length..])
}

fn after_index(text: &[u8]) -> Result<&[u8], BadCallback> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match text.get(length) {
        Some(b']') if length > 0 => Ok(&text[length + 1..]),
        _ => Err(BadCallback),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_are_dotted_paths_of_identifiers() {
        let longest = "a".repeat(CALLBACK_BYTES_MAX);
        for good in [
            "a",
            "_",
            "$",
            "a1",
            "jQuery12_34",
            "a.b.c",
            "a[0]",
            "a[12][3].b",
            "$.x",
            "window.cb",
            &longest,
        ] {
            assert!(Callback::parse(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(CALLBACK_BYTES_MAX + 1);
        for bad in [
            "",
            "1a",
            ".a",
            "a.",
            "a..b",
            "a[",
            "a[]",
            "a[b]",
            "a]",
            "[0]",
            "a.1",
            "a[0]b",
            "a b",
            "a-b",
            "a(",
            "a;b",
            "é",
            "a\n",
            "a[0",
            "a['x']",
            "alert(1)//",
            &too_long,
        ] {
            assert_eq!(Callback::parse(bad), Err(BadCallback), "{bad}");
        }
    }
}

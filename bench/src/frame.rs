//! Cuts a stream of HTTP answers into single ones.
//!
//! Knows what the servers of this bench send, and no more: answers with a `Content-Length`.

use memchr::memmem;

use crate::Result;

/// A head longer than this is taken for a defect of the server.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// One whole answer.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) status: u16,
    pub(crate) bytes: &'a [u8],
    pub(crate) head_bytes: usize,
}

impl<'a> Frame<'a> {
    pub(crate) fn body(&self) -> &'a [u8] {
        &self.bytes[self.head_bytes..]
    }

    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        header(&self.bytes[..self.head_bytes], name)
    }

    /// The answer as text, for error messages.
    pub(crate) fn lossy(&self) -> String {
        let shown = &self.bytes[..self.bytes.len().min(600)];
        String::from_utf8_lossy(shown).into_owned()
    }
}

/// Remembers the last head: most answers begin with the same one, and then need no search.
#[derive(Default)]
pub(crate) struct Framer {
    head: Vec<u8>,
    status: u16,
    body_bytes: usize,
}

impl Framer {
    /// The first answer in `bytes`, or nothing as long as it is not whole.
    pub(crate) fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Frame<'a>>> {
        if self.head.is_empty() || !bytes.starts_with(&self.head) {
            let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
                if bytes.len() > HEAD_BYTES_MAX {
                    return Err("an answer's head has no end".into());
                }
                return Ok(None);
            };
            self.learn(&bytes[..end + 4])?;
        }
        let whole = self.head.len() + self.body_bytes;
        Ok((bytes.len() >= whole).then(|| Frame {
            status: self.status,
            bytes: &bytes[..whole],
            head_bytes: self.head.len(),
        }))
    }

    fn learn(&mut self, head: &[u8]) -> Result<()> {
        let wrong = || format!("not an answer: {}", String::from_utf8_lossy(head));
        self.status = head
            .get(9..12)
            .filter(|_| head.starts_with(b"HTTP/1.1 "))
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
            .ok_or_else(wrong)?;
        self.body_bytes = header(head, "content-length").and_then(|value| value.parse().ok()).ok_or_else(wrong)?;
        self.head.clear();
        self.head.extend_from_slice(head);
        Ok(())
    }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_at_their_length() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\nHTTP";
        let mut framer = Framer::default();
        let first = framer.next(bytes).unwrap().unwrap();
        assert_eq!((first.status, first.body()), (200, &b"ab"[..]));
        let rest = &bytes[first.bytes.len()..];
        let second = framer.next(rest).unwrap().unwrap();
        assert_eq!((second.status, second.body()), (404, &b""[..]));
        assert!(framer.next(b"HTTP").unwrap().is_none());
    }

    #[test]
    fn a_remembered_head_still_waits_for_its_body() {
        let mut framer = Framer::default();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        assert!(framer.next(whole).unwrap().is_some());
        assert!(framer.next(&whole[..whole.len() - 1]).unwrap().is_none());
        assert!(framer.next(whole).unwrap().is_some());
    }

    #[test]
    fn what_has_no_length_is_an_error() {
        assert!(Framer::default().next(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Framer::default().next(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}

//! Durations of the server's turns, and other values, from the metrics of the admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::{AddAssign, Sub};

use crate::result::Result;

/// Bounds in seconds that are counted, as the metric names them. The histogram has no others near
/// the goals.
const BOUNDS: [&str; 3] = ["0.001", "0.003", "0.01"];

/// Turns of the loop.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(crate) struct Turns {
    pub(crate) all: u64,
    /// Turns that took longer than 1, 3 and 10 ms.
    pub(crate) above: [u64; BOUNDS.len()],
}

impl Sub for Turns {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        let mut above = self.above;
        for (count, before) in above.iter_mut().zip(earlier.above) {
            *count -= before;
        }
        Self { all: self.all - earlier.all, above }
    }
}

impl AddAssign for Turns {
    fn add_assign(&mut self, other: Self) {
        self.all += other.all;
        for (count, more) in self.above.iter_mut().zip(other.above) {
            *count += more;
        }
    }
}

/// A metrics page.
pub(crate) struct Page(String);

impl Page {
    /// Reads the page from the admin listener.
    pub(crate) fn read(admin: SocketAddrV4) -> Result<Self> {
        let mut socket = TcpStream::connect(admin)?;
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(Self(text))
    }

    /// Returns the value of a sample, which is a whole number.
    pub(crate) fn value(&self, name: &str) -> Result<u64> {
        let rest = |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.parse());
        let value = self.0.lines().find_map(rest);
        Ok(value.ok_or_else(|| format!("no {name} in the metrics"))??)
    }

    pub(crate) fn turns(&self) -> Result<Turns> {
        let all = self.value("speak_loop_seconds_count")?;
        let mut above = [0; BOUNDS.len()];
        for (count, bound) in above.iter_mut().zip(BOUNDS) {
            let name = format!("speak_loop_seconds_bucket{{le=\"{bound}\"}}");
            *count = all - self.value(&name)?;
        }
        Ok(Turns { all, above })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_above_a_bound_are_those_that_are_not_below_it() {
        let bucket =
            |bound, count| format!("speak_loop_seconds_bucket{{le=\"{bound}\"}} {count}\n");
        let text = bucket("0.001", 5) + &bucket("0.003", 7) + &bucket("0.01", 9);
        let page = Page(text + "speak_loop_seconds_count 9\n");
        let turns = page.turns().unwrap();
        assert_eq!(turns, Turns { all: 9, above: [4, 2, 0] });
        assert_eq!(turns - turns, Turns::default());
        assert!(page.value("speak_loop_seconds").is_err());
    }
}

//! Durations of the server's turns, and other values, from the metrics of the admin listener.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::{AddAssign, Sub};
use std::str::FromStr;

use crate::result::Result;

/// Bounds in seconds that are counted, as the metric names them.
const BOUNDS: [&str; 3] = ["0.001", "0.002", "0.005"];

/// Turns of the loop.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
pub(crate) struct Turns {
    pub(crate) all: u64,
    /// Turns that took longer than 1, 2 and 5 ms.
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

/// Flushes of the journal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Flushes {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
}

impl Flushes {
    /// Returns the rate of the disk: that of flushes one after the other, without a pause.
    pub(crate) fn per_second(self) -> f64 {
        self.count as f64 / self.seconds
    }
}

impl Sub for Flushes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, seconds: self.seconds - earlier.seconds }
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

    /// Returns the value of a sample.
    pub(crate) fn value<T>(&self, name: &str) -> Result<T>
    where
        T: FromStr<Err: Error + Send + Sync + 'static>,
    {
        let rest = |line: &'_ str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.parse());
        let value = self.0.lines().find_map(rest);
        Ok(value.ok_or_else(|| format!("no {name} in the metrics"))??)
    }

    pub(crate) fn flushes(&self) -> Result<Flushes> {
        let count = self.value("speak_log_flush_seconds_count")?;
        let seconds = self.value("speak_log_flush_seconds_sum")?;
        Ok(Flushes { count, seconds })
    }

    pub(crate) fn turns(&self) -> Result<Turns> {
        let all: u64 = self.value("speak_loop_seconds_count")?;
        let mut above = [0; BOUNDS.len()];
        for (count, bound) in above.iter_mut().zip(BOUNDS) {
            let name = format!("speak_loop_seconds_bucket{{le=\"{bound}\"}}");
            *count = all - self.value::<u64>(&name)?;
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
        let text = bucket("0.001", 5) + &bucket("0.002", 7) + &bucket("0.005", 9);
        let page = Page(text + "speak_loop_seconds_count 9\n");
        let turns = page.turns().unwrap();
        assert_eq!(turns, Turns { all: 9, above: [4, 2, 0] });
        assert_eq!(turns - turns, Turns::default());
        assert!(page.value::<u64>("speak_loop_seconds").is_err());
    }

    #[test]
    fn the_rate_of_a_disk_is_that_of_its_flushes() {
        let page = |count, seconds| {
            let name = "speak_log_flush_seconds";
            Page(format!("{name}_sum {seconds}\n{name}_count {count}\n"))
        };
        let flushes = page(30, 0.75).flushes().unwrap() - page(10, 0.25).flushes().unwrap();
        assert_eq!(flushes, Flushes { count: 20, seconds: 0.5 });
        assert!((39.9..40.1).contains(&flushes.per_second()));
    }
}

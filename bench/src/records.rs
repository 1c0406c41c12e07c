//! Records of a cluster, appended without a node: the load of nodes that only follow.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use support::redis::{Redis, Value};

use crate::result::{Result, STALL};
use crate::stats::Spread;

/// Stream of the records of a cluster, with the default prefix.
const STREAM: &str = "{speak}:log";
/// Bytes of a record before its commands: the number of its node, then that of the record among
/// those of the node. Both are little-endian.
const SEQUENCE_BYTES: std::ops::Range<usize> = 8..16;
/// Samples of a round trip.
const TRIPS: usize = 1_000;

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection to Redis that sends several commands at once.
pub(crate) struct Pipeline {
    stream: Box<dyn Stream>,
    commands: Vec<u8>,
    count: usize,
    replies: Vec<u8>,
}

impl Pipeline {
    /// Connects as the nodes do.
    pub(crate) fn connect(redis: &Redis, is_unix: bool) -> Result<Self> {
        let stream: Box<dyn Stream> = if is_unix {
            let url = redis.unix_url();
            let path = url.strip_prefix("redis+unix:").ok_or("the URL of Redis has no path")?;
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(STALL))?;
            Box::new(stream)
        } else {
            let stream = TcpStream::connect(redis.address())?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(STALL))?;
            Box::new(stream)
        };
        Ok(Self { stream, commands: Vec::new(), count: 0, replies: vec![0; 64 * 1024] })
    }

    /// Adds the command that appends a record to a stream.
    fn append(&mut self, stream: &str, record: &[u8]) {
        let args = [b"XADD", stream.as_bytes(), b"*", b"r", record];
        self.commands.extend(format!("*{}\r\n", args.len()).bytes());
        for arg in args {
            self.commands.extend(format!("${}\r\n", arg.len()).bytes());
            self.commands.extend_from_slice(arg);
            self.commands.extend_from_slice(b"\r\n");
        }
        self.count += 1;
    }

    /// Sends the commands with one call, and waits for the ids of all entries.
    fn exchange(&mut self) -> Result<()> {
        self.stream.write_all(&self.commands)?;
        self.commands.clear();
        let mut filled = 0;
        // The reply to each is a line with a length and a line with an id.
        let mut lines = 0;
        while lines < 2 * self.count {
            let received = self.stream.read(&mut self.replies[filled..])?;
            if received == 0 {
                return Err("Redis closed the connection".into());
            }
            let bytes = &self.replies[filled..filled + received];
            lines += memchr::memchr_iter(b'\n', bytes).count();
            filled += received;
            // No id has this sign at its beginning.
            let replies = String::from_utf8_lossy(&self.replies[..filled]);
            if let Some(error) = replies.lines().find(|line| line.starts_with('-')) {
                return Err(format!("Redis does not take a record: {error}").into());
            }
        }
        self.count = 0;
        Ok(())
    }

    /// Returns the time from a record to the reply of Redis, for each sample.
    pub(crate) fn round_trip(&mut self) -> Result<Duration> {
        let mut trips = Vec::with_capacity(TRIPS);
        for _ in 0..TRIPS {
            self.append("bench", &[b'm'; 128]);
            let start = Instant::now();
            self.exchange()?;
            trips.push(start.elapsed().as_secs_f64());
        }
        let median = Spread::of(trips).ok_or("no round trips")?.median;
        Ok(Duration::from_secs_f64(median))
    }
}

/// A record of one write, in the name of a node that is gone and has not left.
pub(crate) struct Copies {
    record: Vec<u8>,
    sequence: u64,
}

impl Copies {
    /// Takes the record that has `text`, and the number of the last record of its node.
    pub(crate) fn of(redis: &Redis, text: &[u8]) -> Result<Self> {
        let records = records_in(redis.command(&["XRANGE", STREAM, "-", "+"]));
        let has_text = |record: &&Vec<u8>| memchr::memmem::find(record, text).is_some();
        let record = records.iter().find(has_text).ok_or("no record of the write")?;
        let node = &record[..SEQUENCE_BYTES.start];
        let mut of_node = records.iter().filter(|other| other.starts_with(node));
        let last = of_node.next_back().ok_or("no record of the node")?;
        let sequence = u64::from_le_bytes(last[SEQUENCE_BYTES].try_into()?);
        Ok(Self { record: record.clone(), sequence })
    }

    /// Appends records, `depth` with each call, one call in each interval at most.
    pub(crate) fn append(
        &mut self,
        to: &mut Pipeline,
        (batches, depth): (usize, usize),
        interval: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        for batch in 0..batches as u32 {
            for _ in 0..depth {
                self.sequence += 1;
                self.record[SEQUENCE_BYTES].copy_from_slice(&self.sequence.to_le_bytes());
                to.append(STREAM, &self.record);
            }
            to.exchange()?;
            let due = interval * (batch + 1);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        Ok(())
    }
}

/// Returns the values of all entries in the reply: `[[id, [name, value]], …]`.
fn records_in(reply: Value) -> Vec<Vec<u8>> {
    let Value::Array(entries) = reply else { return Vec::new() };
    let record = |entry| {
        let Value::Array(mut entry) = entry else { return None };
        let Value::Array(mut fields) = entry.pop()? else { return None };
        match fields.pop()? {
            Value::Text(record) if record.len() >= SEQUENCE_BYTES.end => Some(record),
            _ => None,
        }
    };
    entries.into_iter().filter_map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(record: &[u8]) -> Value {
        let text = |bytes: &[u8]| Value::Text(bytes.into());
        Value::Array(vec![text(b"1-1"), Value::Array(vec![text(b"r"), text(record)])])
    }

    #[test]
    fn the_records_of_a_reply_are_those_with_a_head() {
        let records = records_in(Value::Array(vec![entry(&[1; 20]), entry(&[2; 15])]));
        assert_eq!(records, [vec![1; 20]]);
        assert!(records_in(Value::Nil).is_empty());
    }

    #[test]
    fn copies_are_appended_under_the_next_numbers() {
        let redis = Redis::start();
        let mut pipeline = Pipeline::connect(&redis, false).unwrap();
        let record = |node: u64, sequence: u64, text: &str| {
            [&node.to_le_bytes()[..], &sequence.to_le_bytes(), text.as_bytes()].concat()
        };
        for record in [record(7, 1, "howdy"), record(8, 9, "other"), record(7, 2, "heartbeat")] {
            pipeline.append(STREAM, &record);
        }
        pipeline.exchange().unwrap();
        let mut copies = Copies::of(&redis, b"howdy").unwrap();
        assert!(Copies::of(&redis, b"absent").is_err());
        copies.append(&mut pipeline, (2, 3), Duration::ZERO).unwrap();
        let all = records_in(redis.command(&["XRANGE", STREAM, "-", "+"]));
        let expected: Vec<_> = (3..9).map(|sequence| record(7, sequence, "howdy")).collect();
        assert_eq!(all[3..], expected);
    }

    #[test]
    fn an_error_of_redis_is_an_error() {
        let redis = Redis::start();
        redis.command(&["SET", STREAM, "no stream"]);
        let mut pipeline = Pipeline::connect(&redis, true).unwrap();
        pipeline.append(STREAM, &[0; 20]);
        let error = pipeline.exchange().unwrap_err();
        assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    }
}

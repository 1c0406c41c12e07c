//! An upgrade, as the log of a server tells it.

use rustix::process::Pid;

const BEGINS: &str = " upgrade started successor=";
const IS_OVER: &str = " upgrade finished";
const STARTED: &str = " started max_clients=";
const HAS_NOTHING: &str = " starting empty";
const RECOVERED: &str = " recovered journal ";

/// Successor that an upgrade has started, and the log since then.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeLog<'a> {
    pub successor: Pid,
    /// Without the lines before: a server that was asked for an upgrade before it served has said
    /// after that that it has started.
    rest: &'a str,
}

impl<'a> UpgradeLog<'a> {
    /// Finds the first upgrade in `log`. `None` while no process was started for it.
    pub fn find(log: &'a str) -> Option<Self> {
        let (_, begun) = log.split_once(BEGINS)?;
        let (id, rest) = begun.split_once('\n')?;
        Some(Self { successor: Pid::from_raw(id.parse().ok()?)?, rest })
    }

    /// Returns whether the predecessor has left, and the successor has noticed that.
    pub fn is_over(&self) -> bool {
        self.rest.contains(IS_OVER)
    }

    /// Returns whether the successor has the state of its predecessor. `None` until it serves.
    pub fn has_state(&self) -> Option<bool> {
        let has_state = !self.rest.contains(HAS_NOTHING) && !self.rest.contains(RECOVERED);
        self.rest.contains(STARTED).then_some(has_state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_not_taken_for_a_server_that_starts() {
        // The upgrade was asked for before the first of these lines.
        let before = "12:00 INFO recovered journal records=3 channels=1 connections=2\n\
                      12:00 INFO started max_clients=9\n\
                      12:00 INFO upgrade finished: old process exited\n";
        assert!(UpgradeLog::find(before).is_none());
        let begun = format!("{before}12:01 INFO upgrade started successor=72\n");
        assert!(UpgradeLog::find(begun.trim_end()).is_none(), "half a line");
        let find = |more: &str| {
            let log = format!("{begun}{more}");
            let found = UpgradeLog::find(&log).unwrap();
            assert_eq!(found.successor.as_raw_pid(), 72);
            (found.has_state(), found.is_over())
        };
        let serves = "12:02 INFO started max_clients=9\n";
        assert_eq!(find(""), (None, false));
        assert_eq!(find(serves), (Some(true), false));
        assert_eq!(find("12:02 INFO recovered journal records=3\n"), (None, false));
        for other in ["recovered journal records=3", "starting empty"] {
            assert_eq!(find(&format!("12:02 INFO {other}\n{serves}")), (Some(false), false));
        }
        let is_over = "12:03 INFO upgrade finished: old process exited\n";
        assert_eq!(find(&format!("{serves}{is_over}")), (Some(true), true));
    }
}

//! The state that a server starts with: that of a predecessor, that of the state file, or none.

use std::io;

use rustix::io::Errno;

use super::clock::unix_ms;
use super::diagnose::folder_advice;
use super::journaling::{self, PendingJournal};
use super::start_error::StartError;
use super::upgrade::{Predecessor, is_disconnected};
use crate::hub::{Config, Hub, Millis, Now};
use crate::options::Options;
use crate::snapshot::{LoadResult, StateFile};

/// A hub to serve, and its origin.
pub(super) struct InitialState {
    pub(super) hub: Hub,
    /// Present time of the hub.
    pub(super) now: Now,
    /// The process that served until now and still has its clients.
    pub(super) predecessor: Option<Predecessor>,
    /// File to write the hub to at a stop.
    pub(super) state_file: Option<StateFile>,
    /// Journal to write the changes of the hub to.
    pub(super) journal: Option<PendingJournal>,
}

impl InitialState {
    /// Receives the state of a predecessor, else reads the journal or loads the state file, if
    /// there is one.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the predecessor or the file is there and cannot be used. A corrupt state
    /// file is renamed, and the server starts without it.
    pub(super) fn load(options: &Options, config: Config) -> Result<Self, StartError> {
        let state = options.state.as_deref();
        let journal = journaling::config(options);
        let state_file = state.map(|path| StateFile::new(path.to_owned()));
        let cannot_take_over = |error: io::Error| {
            StartError(format!("cannot take over from the old process: {error}"))
        };
        if let Some(mut predecessor) = Predecessor::from_env().map_err(cannot_take_over)? {
            let ((hub, now), journal) = match predecessor.receive_state(&config, unix_ms()) {
                Err(error) if is_disconnected(&error) => {
                    let exited = "takeover failed: old process exited before sending its state";
                    if let Some(journal) = journal {
                        log::error!("{exited}; recovering the journal");
                        let (restored, journal) = journaling::read_of_exited(journal, &config)?;
                        (restored.unwrap_or_else(|| empty(options, config)), Some(journal))
                    } else {
                        log::error!("{exited}; starting empty");
                        (empty(options, config), None)
                    }
                }
                result => {
                    let received = result.map_err(cannot_take_over)?;
                    (received, journal.map(PendingJournal::OfPredecessor))
                }
            };
            return Ok(Self { hub, now, predecessor: Some(predecessor), state_file, journal });
        }
        if let Some(journal) = journal {
            let (restored, journal) = journaling::read(journal, &config)?;
            let (hub, now) = restored.unwrap_or_else(|| empty(options, config));
            let journal = Some(journal);
            return Ok(Self { hub, now, predecessor: None, state_file, journal });
        }
        if options.cluster.is_some() {
            let (hub, now) = empty(options, config);
            return Ok(Self { hub, now, predecessor: None, state_file, journal: None });
        }
        let (hub, now) = match &state_file {
            None => None,
            Some(file) => load(file, &config)?,
        }
        .unwrap_or_else(|| empty(options, config));
        Ok(Self { hub, now, predecessor: None, state_file, journal: None })
    }
}

/// Returns a hub without channels, at the beginning of its time. That is the present one in a
/// cluster: the clock of the log is that of Redis, which counts from 1970, and has records from
/// before this process.
fn empty(options: &Options, config: Config) -> (Hub, Now) {
    let now = match options.cluster {
        Some(_) => Now { mono: Millis(unix_ms()), unix_ms: unix_ms() },
        None => Now::default(),
    };
    (Hub::new(config), now)
}

/// Error for a state file that cannot be read or written. `verb` is "read" or "write".
pub(super) fn state_file_error(file: &StateFile, verb: &str, error: &io::Error) -> StartError {
    let path = file.path();
    // A read does not change the folder: it fails for lack of permissions on the file, too.
    let advice = match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            Some("check its permissions and those of its folder".to_owned())
        }
        errno => errno.and_then(|errno| folder_advice(path, errno)),
    };
    let path = path.display();
    StartError(match advice {
        Some(advice) => {
            format!(
                "cannot {verb} the state file {path}: {error}: {advice}, or use another --state"
            )
        }
        None => format!("cannot {verb} the state file {path}: {error}; use another --state"),
    })
}

/// Loads the state file. `None` if there is none, or if it is corrupt.
fn load(file: &StateFile, config: &Config) -> Result<Option<(Hub, Now)>, StartError> {
    let path = file.path().display();
    let result =
        file.load(config, unix_ms()).map_err(|error| state_file_error(file, "read", &error))?;
    // Checked here before anything is bound, and again after privileges were dropped.
    file.check_writable().map_err(|error| state_file_error(file, "write", &error))?;
    Ok(match result {
        LoadResult::Missing => None,
        LoadResult::Loaded(hub, now) => {
            let gauges = hub.gauges();
            log::info!(
                "restored state channels={} connections={}",
                gauges.channels,
                gauges.sessions
            );
            Some((*hub, now))
        }
        LoadResult::Rejected(reason, renamed) => {
            log::error!(
                "state file rejected path={path} renamed_to={}: {reason}; starting empty",
                renamed.display()
            );
            None
        }
    })
}

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use super::*;
    use crate::options::{Command, parse};

    #[test]
    fn a_node_without_a_state_has_a_time_for_the_records_before_it() {
        for (arguments, has_earlier) in
            [(vec![], false), (vec!["--cluster=redis://localhost"], true)]
        {
            let arguments = arguments.into_iter().map(Into::into);
            let Ok(Command::Run(options)) = parse(arguments, |_| None) else {
                panic!("these are options")
            };
            let (_, now) = empty(&options, Config::default());
            assert_eq!(now.mono > Millis(1_700_000_000_000), has_earlier);
        }
    }
}

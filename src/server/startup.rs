//! What a server begins with: nothing, what the last stop kept, or what the process before gives away.

use std::io;
use std::path::Path;

use super::clock::unix_ms;
use super::start_error::StartError;
use super::upgrade::{Predecessor, is_disconnected};
use crate::hub::{Config, Hub, Now};
use crate::snapshot::{LoadResult, StateFile};

/// A hub to serve, and where it came from.
pub(super) struct InitialState {
    pub(super) hub: Hub,
    /// What time it is there.
    pub(super) now: Now,
    /// Who served it until now, and still has its clients.
    pub(super) predecessor: Option<Predecessor>,
    /// Where it is to be kept at the stop.
    pub(super) state_file: Option<StateFile>,
}

impl InitialState {
    /// Looks for a process before, then for a state that was kept.
    ///
    /// # Errors
    ///
    /// [`StartError`] where either is there and cannot be gone on with. A state that is damaged is set aside, and is no reason
    /// not to start.
    pub(super) fn load(state: Option<&Path>, config: Config) -> Result<Self, StartError> {
        let state_file = state.map(|path| StateFile::new(path.to_owned()));
        let fault = |error: io::Error| {
            StartError(format!("cannot take over from the process before: {error}"))
        };
        if let Some(mut predecessor) = Predecessor::from_env().map_err(fault)? {
            let (hub, now) = match predecessor.receive_state(&config, unix_ms()) {
                Err(error) if is_disconnected(&error) => {
                    log::error!(
                        "the process before ended before it had given everything away: begins anew"
                    );
                    (Hub::new(config), Now::default())
                }
                result => result.map_err(fault)?,
            };
            return Ok(Self { hub, now, predecessor: Some(predecessor), state_file });
        }
        let (hub, now) = match &state_file {
            None => None,
            Some(file) => load(file, &config)?,
        }
        .unwrap_or_else(|| (Hub::new(config), Now::default()));
        Ok(Self { hub, now, predecessor: None, state_file })
    }
}

/// What keeps a state from being read or written, and what to do about it.
pub(super) fn state_file_error(file: &StateFile, what: &str, error: &io::Error) -> StartError {
    let path = file.path().display();
    StartError(format!(
        "cannot {what} the state in {path}: {error}; see to its rights, or give another --state"
    ))
}

fn load(file: &StateFile, config: &Config) -> Result<Option<(Hub, Now)>, StartError> {
    let path = file.path().display();
    let kept =
        file.load(config, unix_ms()).map_err(|error| state_file_error(file, "read", &error))?;
    // Once more when rights were given up; here so that nothing is bound in vain.
    file.check_writable().map_err(|error| state_file_error(file, "write", &error))?;
    Ok(match kept {
        LoadResult::Missing => None,
        LoadResult::Loaded(hub, now) => {
            let census = hub.gauges();
            log::info!(
                "goes on with {} channels and {} connections",
                census.channels,
                census.sessions
            );
            Some((*hub, now))
        }
        LoadResult::Rejected(why, aside) => {
            log::error!(
                "the state in {path} is not used: {why}. It is kept as {}",
                aside.display()
            );
            None
        }
    })
}

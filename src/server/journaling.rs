//! The journal's way through the life of the process: read at the start, written while it serves,
//! and handed to the successor in an upgrade.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::{Registry, Waker};

use super::clock::unix_ms;
use super::event_source::EventSource;
use super::listener::OsListener;
use super::start_error::StartError;
use super::timer_fd::TimerFd;
use crate::hub::{self, Hub, Now, Recovery};
use crate::journal::{Config, Item, Journal, JournalError, Opened, Recovered};
use crate::log::{Log, Outcome};
use crate::options::Options;
use crate::service::{Service, command_position};

/// Interval at which the end of a write is checked for while nothing else is done.
const WAIT: Duration = Duration::from_micros(200);

/// Waits until the log is idle before an upgrade.
const DRAIN_WAITS_MAX: u32 = 10_000;

/// Longest time until the lock of a predecessor that was killed is free: the kernel ends its writes
/// before it closes the files, and closes them one after the other.
const RELEASE_MAX: Duration = Duration::from_secs(5);

/// The journal before this process serves.
pub(super) enum PendingJournal {
    /// It was read, and this process has its lock.
    Read(Box<Recovered>),
    /// The predecessor writes it until this process serves.
    OfPredecessor(Config),
}

/// What it takes to open the journal again.
pub(super) struct JournalHandle {
    pub(super) config: Config,
    /// Wakes the loop when the journal has written. A poll can have only one.
    pub(super) waker: Arc<Waker>,
    /// Ends the delay of a record.
    pub(super) commit_delay: TimerFd,
}

impl JournalHandle {
    pub(super) fn new(config: Config, registry: &Registry) -> io::Result<Self> {
        let waker = Arc::new(Waker::new(registry, EventSource::Journal.token())?);
        let commit_delay = TimerFd::new(registry, EventSource::CommitDelay)?;
        Ok(Self { config, waker, commit_delay })
    }
}

/// Returns the settings of the journal, if there is one.
pub(super) fn config(options: &Options) -> Option<Config> {
    let directory = options.journal.clone()?;
    Some(Config::new(directory, options.journal_sync))
}

/// Opens and reads a journal. Returns its hub and the hub's present time; `None` for a new journal.
///
/// # Errors
///
/// [`StartError`] if it cannot be used.
pub(super) fn read(
    config: Config,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    read_opened(Opened::open(config), hub_config)
}

/// Reads the journal of a predecessor that exited before it had transferred its state.
///
/// # Errors
///
/// [`StartError`] if it cannot be used.
pub(super) fn read_of_exited(
    config: Config,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    read_opened(Opened::open_released(config, RELEASE_MAX), hub_config)
}

fn read_opened(
    opened: Result<Opened, JournalError>,
    hub_config: &hub::Config,
) -> Result<(Option<(Hub, Now)>, PendingJournal), StartError> {
    let mut recovery = Recovery::new(hub_config.clone());
    let mut load = |item: Item<'_>| {
        match item {
            Item::Piece(piece) => recovery.load_piece(piece),
            Item::Record(record) => {
                let now = Now { mono: hub::Millis(record.mono_ms), unix_ms: record.unix_ms };
                recovery.apply_record(now, record.commands, |index| {
                    command_position(record.position, index)
                })
            }
        }
        .map_err(|hub::Corrupt(fault)| format!("the journal has contents of no version: {fault}"))
    };
    let recovered = opened.and_then(|opened| opened.recover(&mut load)).map_err(cannot_use)?;
    let restored = recovery.finish(unix_ms()).map(|(mut hub, now)| {
        if recovered.needs_new_epoch {
            log::warn!("journal: the last records may be lost; message ids begin a new epoch");
            hub.set_epoch(hub_config.epoch);
        }
        let gauges = hub.gauges();
        log::info!(
            "recovered journal records={} channels={} connections={}",
            recovered.records,
            gauges.channels,
            gauges.sessions
        );
        (hub, now)
    });
    Ok((restored, PendingJournal::Read(Box::new(recovered))))
}

impl PendingJournal {
    /// Starts to write the journal, and makes the service wait for it.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the directory cannot be used.
    pub(super) fn start(
        self,
        service: &mut Service<OsListener>,
        waker: Arc<Waker>,
    ) -> Result<(), StartError> {
        let recovered = match self {
            Self::Read(recovered) => *recovered,
            Self::OfPredecessor(config) => find_end(config).map_err(cannot_use)?,
        };
        let needs_numbering = recovered.needs_new_epoch || recovered.position == 0;
        let is_new = recovered.position == 0;
        let mut journal = recovered.start(waker).map_err(cannot_use)?;
        if needs_numbering {
            begin_numbering(&mut journal, service, is_new)?;
        }
        service.set_log(Box::new(journal));
        Ok(())
    }
}

/// Finishes all writes before an upgrade: the state of the hub is then that of the journal. Returns
/// false if the disk takes too long.
pub(super) fn drain(service: &mut Service<OsListener>) -> bool {
    for _ in 0..DRAIN_WAITS_MAX {
        if service.advance_log() {
            return true;
        }
        thread::sleep(WAIT);
    }
    false
}

/// Opens the journal again whose lock was released for a successor that did not take over.
///
/// # Errors
///
/// [`StartError`] if the directory cannot be used any more.
pub(super) fn reopen(
    handle: &JournalHandle,
    service: &mut Service<OsListener>,
) -> Result<(), StartError> {
    PendingJournal::OfPredecessor(handle.config.clone()).start(service, Arc::clone(&handle.waker))
}

/// Reads a journal whose state this process has already.
fn find_end(config: Config) -> Result<Recovered, JournalError> {
    Opened::open_released(config, RELEASE_MAX)?.recover(&mut |_| Ok(()))
}

/// Writes the record that begins a numbering of ids, and waits for it.
fn begin_numbering(
    journal: &mut Journal,
    service: &Service<OsListener>,
    is_new: bool,
) -> Result<(), StartError> {
    let (hub, now) = service.hub();
    journal.append(now.mono.0, now.unix_ms, &hub.numbering(is_new));
    loop {
        match journal.take_outcome() {
            None => thread::sleep(WAIT),
            Some(Outcome::Durable { .. }) => return Ok(()),
            Some(Outcome::Full) => {
                return Err(StartError(
                    "cannot begin the journal: its disk is full; make room".into(),
                ));
            }
            Some(Outcome::Failed) => {
                return Err(StartError(
                    "cannot begin the journal: its disk fails (see log)".into(),
                ));
            }
        }
    }
}

fn cannot_use(JournalError(line): JournalError) -> StartError {
    StartError(line)
}

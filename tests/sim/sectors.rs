//! A simulated disk of sectors: it loses what was not synchronized, fails, is full, and flips bits.
//!
//! Each file has two images: the present one, which all processes read, and the one on the disk,
//! which outlives a loss of power. A sector that was written since the last synchronization may be
//! on the disk or not. The same holds for the size of a file, and for each change of a name.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, ErrorKind, Read};
use std::sync::{Arc, Mutex, MutexGuard};

use speak::journal::{Storage, StoredFile};
use support::random::Random;

/// Properties of a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    /// Size of a sector: all of it is written, or nothing.
    pub(crate) sector_bytes: usize,
    /// Space is reserved for a file. Otherwise it grows with what is written.
    pub(crate) reserves: bool,
    /// Space is taken at the synchronization, which then finds the disk full.
    pub(crate) allocates_late: bool,
}

/// Faults that happen now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) is_full: bool,
    /// A call fails once in so many times; 0 for never.
    pub(crate) fails: u64,
}

/// Simulated disk. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Clone)]
struct State {
    traits: Traits,
    faults: Faults,
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// Present names.
    names: BTreeMap<String, u64>,
    /// Names on the disk.
    synced_names: BTreeMap<String, u64>,
    /// Changes of names since.
    changes: Vec<Change>,
    /// Calls until the process dies. `None` for never.
    calls_left: Option<u64>,
    random: Random,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that were written since the last synchronization.
    dirty: BTreeSet<usize>,
    /// Space that the file has, in bytes.
    space: usize,
}

#[derive(Clone)]
enum Change {
    Add(String, u64),
    Rename { from: String, to: String, file: u64 },
    Remove(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl Traits {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let reserves = !random.once_in(3);
        Self {
            sector_bytes: random.pick(&[512, 512, 4096]),
            reserves,
            allocates_late: !reserves && random.once_in(2),
        }
    }
}

impl Disk {
    pub(crate) fn new(traits: Traits, random: Random) -> Self {
        Self(Arc::new(Mutex::new(State {
            traits,
            faults: Faults::default(),
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            changes: Vec::new(),
            calls_left: None,
            random,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while it is locked")
    }

    /// Returns another disk with the same contents, without faults.
    pub(crate) fn copy(&self) -> Self {
        let mut state = self.state().clone();
        (state.faults, state.calls_left) = (Faults::default(), None);
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    pub(crate) fn faults(&self) -> Faults {
        self.state().faults
    }

    /// After this many calls, all fail and have no effect: the process is dead.
    pub(crate) fn die_after(&self, calls: u64) {
        self.state().calls_left = Some(calls);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().calls_left == Some(0)
    }

    /// The process has ended, and nothing of what it wrote is lost.
    pub(crate) fn survive(&self) {
        let state = &mut *self.state();
        state.calls_left = None;
        state.forget_nameless();
    }

    /// The power fails: of each change that was not synchronized, the disk has it or not.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.state();
        state.calls_left = None;
        let all = state.random.pick(&[0, 50, 50, 90, 100]);
        for change in std::mem::take(&mut state.changes) {
            if state.random.percent(all) {
                change.apply(&mut state.synced_names);
            }
        }
        for file in state.files.values_mut() {
            file.lose_power(state.traits.sector_bytes, &mut state.random, all);
        }
        state.names = state.synced_names.clone();
        state.forget_nameless();
    }

    /// The kernel writes some sectors by itself.
    pub(crate) fn write_back(&self) {
        let state = &mut *self.state();
        for file in state.files.values_mut() {
            file.write_back(state.traits.sector_bytes, &mut state.random);
        }
    }

    /// Flips a bit of a file at rest. Returns the name and the offset of its byte, or `None` if
    /// there is no file.
    pub(crate) fn flip_bit(&self, random: &mut Random) -> Option<(String, usize)> {
        let state = &mut *self.state();
        let names: Vec<_> = state.names.iter().map(|(name, file)| (name.clone(), *file)).collect();
        let (name, file) = random.pick_any(&names)?;
        let file = state.files.get_mut(&file).expect("it has a name");
        if file.bytes.is_empty() {
            return None;
        }
        // Most of a segment may be reserved space.
        let used = 1 + file.bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let is_anywhere = random.once_in(8);
        let offset = random.index(if is_anywhere { file.bytes.len() } else { used });
        file.bytes[offset] ^= 1 << random.below(8);
        file.synced.clone_from(&file.bytes);
        Some((name, offset))
    }

    /// Returns the names of all files.
    pub(crate) fn list(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl State {
    /// Counts a call. Returns whether it has an effect: `Ok(false)` if the process dies in it.
    fn call(&mut self) -> io::Result<bool> {
        match &mut self.calls_left {
            Some(0) => return Err(io::Error::other("the process is dead")),
            Some(calls) => {
                *calls -= 1;
                return Ok(*calls > 0);
            }
            None => {}
        }
        Ok(true)
    }

    /// Counts a call that the process dies before, or that the disk fails.
    fn whole_call(&mut self) -> io::Result<()> {
        if !self.call()? || self.fails() {
            return Err(broken());
        }
        Ok(())
    }

    fn fails(&mut self) -> bool {
        self.faults.fails > 0 && self.random.once_in(self.faults.fails)
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// Removes files that nothing leads to.
    fn forget_nameless(&mut self) {
        let mut named: BTreeSet<_> =
            self.names.values().chain(self.synced_names.values()).collect();
        for change in &self.changes {
            if let Change::Add(_, file) | Change::Rename { file, .. } = change {
                named.insert(file);
            }
        }
        self.files.retain(|file, _| named.contains(file));
    }
}

impl File {
    /// Makes the present image this long, with zeros.
    fn resize(&mut self, length: usize, sector_bytes: usize) {
        let old = self.bytes.len();
        self.bytes.resize(length, 0);
        // What was cut stays on the disk, as long as nothing is synchronized.
        let changed = if length < old { length..old } else { old..length };
        self.mark(changed.start, changed.end, sector_bytes);
    }

    fn mark(&mut self, start: usize, end: usize, sector_bytes: usize) {
        if start < end {
            self.dirty.extend(start / sector_bytes..=(end - 1) / sector_bytes);
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize, sector_bytes: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.resize(end, sector_bytes);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.mark(offset, end, sector_bytes);
        self.space = self.space.max(end);
    }

    /// Copies a sector to the disk, as far as the file there is long enough.
    fn save_sector(&mut self, sector: usize, sector_bytes: usize) {
        let start = sector * sector_bytes;
        let end = (start + sector_bytes).min(self.synced.len());
        if start < end {
            self.synced[start..end].fill(0);
            let present = end.min(self.bytes.len());
            if start < present {
                self.synced[start..present].copy_from_slice(&self.bytes[start..present]);
            }
        }
    }

    fn sync(&mut self, sector_bytes: usize) {
        self.synced.resize(self.bytes.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.save_sector(sector, sector_bytes);
        }
    }

    /// Saves some of the sectors, and the size or not. The rest stays to be saved.
    fn write_back(&mut self, sector_bytes: usize, random: &mut Random) {
        if self.dirty.is_empty() || !random.once_in(2) {
            return;
        }
        if random.once_in(2) {
            self.synced.resize(self.bytes.len(), 0);
        }
        for sector in self.dirty.clone() {
            let end = (sector + 1) * sector_bytes;
            let fits = self.synced.len() >= end.min(self.bytes.len());
            if fits && random.once_in(2) {
                self.save_sector(sector, sector_bytes);
            }
        }
    }

    /// The synchronization fails: some sectors are saved, and no later one saves the others.
    fn fail_sync(&mut self, sector_bytes: usize, random: &mut Random) {
        if random.once_in(2) {
            self.synced.resize(self.bytes.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if random.once_in(2) {
                self.save_sector(sector, sector_bytes);
            }
        }
    }

    fn lose_power(&mut self, sector_bytes: usize, random: &mut Random, percent: u64) {
        if random.percent(percent) {
            self.synced.resize(self.bytes.len(), 0);
        }
        for sector in std::mem::take(&mut self.dirty) {
            if random.percent(percent) {
                self.save_sector(sector, sector_bytes);
            }
        }
        self.bytes.clone_from(&self.synced);
        self.space = self.bytes.len();
    }
}

/// EIO.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// ENOSPC.
fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

impl Storage for Disk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.list())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        Ok(state.files[&state.find(name)?].bytes.len() as u64)
    }

    fn read(&self, name: &str) -> io::Result<Box<dyn Read>> {
        let state = self.state();
        Ok(Box::new(Cursor::new(state.files[&state.find(name)?].bytes.clone())))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.state();
        state.whole_call()?;
        let file = state.find(name)?;
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StoredFile>> {
        let mut state = self.state();
        state.whole_call()?;
        let sector_bytes = state.traits.sector_bytes;
        let file = if let Ok(file) = state.find(name) {
            let its = state.files.get_mut(&file).expect("it has a name");
            its.resize(0, sector_bytes);
            its.space = 0;
            file
        } else {
            if state.faults.is_full {
                return Err(full());
            }
            let file = state.next_file;
            state.next_file += 1;
            state.files.insert(file, File::default());
            state.change(Change::Add(name.to_owned(), file));
            file
        };
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_call()?;
        let file = state.find(from)?;
        state.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_call()?;
        let file = state.find(from)?;
        state.change(Change::Add(to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.whole_call()?;
        if state.find(name).is_ok() {
            state.change(Change::Remove(name.to_owned()));
        }
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let state = &mut *self.state();
        state.whole_call()?;
        for change in std::mem::take(&mut state.changes) {
            change.apply(&mut state.synced_names);
        }
        state.forget_nameless();
        Ok(())
    }
}

/// A file of the disk that is open for writing.
struct OpenFile {
    disk: Disk,
    file: u64,
}

impl OpenFile {
    /// Runs a call with the state and the file. A file without a name is written in vain.
    fn with<T: Default>(
        &self,
        call: impl FnOnce(&mut State, &mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        let state = &mut *self.disk.state();
        let Some(mut file) = state.files.remove(&self.file) else { return Ok(T::default()) };
        let result = call(state, &mut file);
        state.files.insert(self.file, file);
        result
    }
}

impl StoredFile for OpenFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = offset as usize;
        self.with(|state, file| {
            let sector_bytes = state.traits.sector_bytes;
            let part = if state.call()? && !state.fails() {
                let end = offset + bytes.len();
                if end <= file.space || state.traits.allocates_late || !state.faults.is_full {
                    file.write(bytes, offset, sector_bytes);
                    return Ok(());
                }
                file.space.saturating_sub(offset).min(bytes.len())
            } else {
                state.random.index(bytes.len() + 1)
            };
            // A part of it is there: up to the end of a sector, or of the space.
            file.write(&bytes[..part], offset, sector_bytes);
            Err(if state.faults.is_full { full() } else { broken() })
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|state, file| {
            let sector_bytes = state.traits.sector_bytes;
            if !state.call()? {
                return Err(broken());
            }
            let grows = file.bytes.len() > file.synced.len();
            let is_full = state.traits.allocates_late && grows && state.faults.is_full;
            if is_full || state.fails() {
                file.fail_sync(sector_bytes, &mut state.random);
                return Err(if is_full { full() } else { broken() });
            }
            file.sync(sector_bytes);
            Ok(())
        })
    }

    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let length = length as usize;
        self.with(|state, file| {
            state.whole_call()?;
            if state.traits.reserves && length > file.bytes.len() {
                if state.faults.is_full {
                    return Err(full());
                }
                file.resize(length, state.traits.sector_bytes);
                file.space = length;
            }
            Ok(())
        })
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = length as usize;
        self.with(|state, file| {
            state.whole_call()?;
            if length < file.bytes.len() {
                file.resize(length, state.traits.sector_bytes);
                file.space = file.space.min(length);
            }
            Ok(())
        })
    }
}

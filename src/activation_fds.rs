//! Takes the sockets of socket activation from the process.
//!
//! Besides the allocator the one place with `unsafe`. Only the process as a whole can know that a
//! descriptor number of the environment is its own, so the library takes owned descriptors.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};
use speak::server::{ActivatedSocket, LISTEN_FDS_START, StartError, activated_names};

/// Takes the activated sockets. To be called once, before anything else opens a file.
pub fn take() -> Result<Vec<ActivatedSocket>, StartError> {
    let names = activated_names(std::process::id(), |name| env::var_os(name));
    let take = |(fd, name)| -> Result<ActivatedSocket, StartError> {
        // SAFETY: this only sets a flag. For a descriptor that is not open the kernel returns an
        // error.
        unsafe { fcntl_setfd(BorrowedFd::borrow_raw(fd), FdFlags::CLOEXEC) }.map_err(|error| {
            let error = io::Error::from(error);
            StartError(format!("LISTEN_FDS counts descriptor {fd}, which cannot be used: {error}"))
        })?;
        // SAFETY: the descriptor is open, and was when the process began, since nothing has opened
        // files yet. Rust's runtime uses only the three standard streams, so no other owner exists,
        // and `zip` gives each number once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(ActivatedSocket { name, fd })
    };
    (LISTEN_FDS_START..).zip(names).map(take).collect()
}

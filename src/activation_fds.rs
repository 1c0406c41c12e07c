//! Sockets that whoever started this process opened for it, as systemd does.
//!
//! Beside the allocator the one place with `unsafe`: what a number that the environment names stands for, only the
//! process as a whole can know, so the library takes owned descriptors.
#![allow(unsafe_code)]

use std::env;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};
use speak::server::{ActivatedSocket, LISTEN_FDS_START, StartError, activated_names};

/// Takes them. To be called once, before anything else opens a file.
pub fn take() -> Result<Vec<ActivatedSocket>, StartError> {
    let names = activated_names(std::process::id(), |name| env::var_os(name));
    let take = |(file, name)| -> Result<ActivatedSocket, StartError> {
        // SAFETY: nothing but a flag is set; of what is not open the kernel says so.
        unsafe { fcntl_setfd(BorrowedFd::borrow_raw(file), FdFlags::CLOEXEC) }.map_err(
            |error| {
                let error = io::Error::from(error);
                StartError(format!("LISTEN_FDS promises descriptor {file}: {error}"))
            },
        )?;
        // SAFETY: it is open, and was when the process began, since nothing has opened files yet. Rust's runtime keeps to
        // the three standard streams, so nobody else holds it for his own, and `zip` gives each number once.
        let file = unsafe { OwnedFd::from_raw_fd(file) };
        Ok(ActivatedSocket { name, file })
    };
    (LISTEN_FDS_START..).zip(names).map(take).collect()
}

//! Several records: all that one read brings, and all that one write needs.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};

use super::alert::Alert;
use super::record::{
    HEADER_BYTES, OVERHEAD_BYTES, Opened, PLAINTEXT_BYTES_MAX, Traffic, record_length,
};
use super::unsent::{Unsent, write};

/// Records without application data that one read accepts in a row. They are cheap to
/// send, and cost time to open.
const EMPTY_RECORDS_MAX: usize = 32;

/// `KeyUpdate`s that one read accepts, with data between them or not. Each derives keys, and no
/// client needs several in 64 KiB.
pub(super) const KEY_UPDATES_MAX: usize = 32;

thread_local! {
    /// Sealed records on their way to the kernel. A call needs this until it returns, so all
    /// clients share it.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Records that were opened.
pub(super) struct Batch {
    /// Bytes of plaintext.
    pub(super) plaintext: usize,
    /// Bytes of these records.
    pub(super) used: usize,
    /// The last one is `close_notify`.
    pub(super) is_closed: bool,
    /// Number of these records.
    pub(super) records: usize,
    /// Number of `KeyUpdate`s among them.
    pub(super) key_updates: usize,
}

/// Reason why a connection ends with an error.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// Found by this side, which says so by an alert.
    Ours(Alert),
    /// An alert of the other side, with its number.
    Theirs(u8),
}

/// Side of a connection that has sent records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    /// It may send tickets, which are ignored.
    Server,
}

/// Opens all records that `bytes` begin with, and moves their plaintext to the front.
pub(super) fn open_all(
    traffic: &mut Traffic,
    bytes: &mut [u8],
    sender: Sender,
) -> Result<Batch, Fault> {
    let mut batch = Batch { plaintext: 0, used: 0, is_closed: false, records: 0, key_updates: 0 };
    let (mut key, mut empty) = (None, 0);
    let mut traffic = Some(traffic);
    while !batch.is_closed
        && let Some(length) = record_length(&bytes[batch.used..]).map_err(Fault::Ours)?
        && let Some(record) = bytes[batch.used..].get_mut(..length)
    {
        let opener = key.get_or_insert_with(|| {
            let mut opener = traffic.take().expect("once").opener();
            if sender == Sender::Server {
                opener.ignore_tickets();
            }
            opener
        });
        batch.records += 1;
        match opener.open(record).map_err(Fault::Ours)? {
            Opened::Data(length) if length > 0 => {
                let start = batch.used + HEADER_BYTES;
                bytes.copy_within(start..start + length, batch.plaintext);
                batch.plaintext += length;
                empty = 0;
            }
            Opened::Data(_) => empty += 1,
            Opened::KeyUpdate => batch.key_updates += 1,
            Opened::CloseNotify => batch.is_closed = true,
            Opened::ErrorAlert(alert) => return Err(Fault::Theirs(alert)),
        }
        if empty > EMPTY_RECORDS_MAX || batch.key_updates > KEY_UPDATES_MAX {
            return Err(Fault::Ours(Alert::UnexpectedMessage));
        }
        batch.used += length;
    }
    Ok(batch)
}

/// Seals and sends `bytes[accepted..]`, record by record, until the socket takes only a part of
/// one: that record counts as accepted, and its rest is returned.
pub(super) fn seal_all(
    traffic: &mut Traffic,
    socket: &mut impl Write,
    bytes: &[u8],
    accepted: &mut usize,
) -> io::Result<Option<Unsent>> {
    SCRATCH.with_borrow_mut(|out| {
        let mut sealer = traffic.sealer();
        for plaintext in bytes[*accepted..].chunks(PLAINTEXT_BYTES_MAX) {
            out.clear();
            out.reserve(plaintext.len() + 2 * OVERHEAD_BYTES);
            sealer.seal(plaintext, out);
            *accepted += plaintext.len();
            let sent = match write(socket, out) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                result => result?,
            };
            if sent < out.len() {
                return Ok(Some(Unsent::new(&out[sent..])));
            }
        }
        Ok(None)
    })
}

/// Seals an alert and tries to send it. The connection ends in any case, so an error of the socket
/// changes nothing.
pub(super) fn send_alert(traffic: &mut Traffic, socket: &mut impl Write, alert: Alert) {
    SCRATCH.with_borrow_mut(|out| {
        out.clear();
        traffic.sealer().seal_alert(alert, out);
        let _ = write(socket, out);
    });
}

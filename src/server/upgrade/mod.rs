//! Upgrade: a new process takes over from this one without losing a message or a connection.
//!
//! The old process starts the new one and serves until that says hello. Then it stops serving,
//! sends its listeners and the state of its hub, and waits until all of it has arrived. Up to here
//! nothing has changed: if anything fails, the old process kills the new one and serves again.
//!
//! With [`Go`](protocol::Message::Go) the new process serves. The old one transfers its clients,
//! each as soon as it has its response. If the old process dies before `Go`, the new one serves
//! without it.

mod coordinator;
mod predecessor;
mod protocol;
mod successor;

pub(super) use coordinator::UpgradeCoordinator;
pub(super) use predecessor::{Predecessor, is_disconnected};
pub use protocol::UPGRADE_ENV;

//! Phases of the server, for the API.

/// Phase of the server. Responses depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The request decides on the persistence of its client.
    #[default]
    Serving,
    /// Another process serves: a WebSocket that ends is closed with "going away".
    Draining,
    /// As `Draining`, and every response closes its client.
    Stopping,
}

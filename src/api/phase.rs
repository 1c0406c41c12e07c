//! Phase of the server's life, as far as responses depend on it.

/// Phase of the server's life, as far as responses depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Responses are as the requests ask for.
    #[default]
    Serving,
    /// Another process serves: a WebSocket that ends is closed with "going away".
    Draining,
    /// As `Draining`, and every response closes its client.
    Stopping,
}

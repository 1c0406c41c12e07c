//! Fuzz targets: one module each, with a `run` that panics on a fault.
//!
//! `tests/fuzz_corpus.rs` of the server's package shares this code and runs it on all kept inputs.

pub mod chunked;
pub mod form;
pub mod frame;
pub mod request;
pub mod resp;
pub mod session;
mod source;
mod stream;
#[cfg(feature = "tls")]
pub mod tls_hello;
#[cfg(feature = "tls")]
pub mod tls_record;
#[cfg(feature = "tls")]
mod tls_wire;

/// A target: its name, which is that of its corpus, and the function that runs an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("chunked", chunked::run),
    ("form", form::run),
    ("frame", frame::run),
    ("request", request::run),
    ("resp", resp::run),
    ("session", session::run),
    #[cfg(feature = "tls")]
    ("tls_hello", tls_hello::run),
    #[cfg(feature = "tls")]
    ("tls_record", tls_record::run),
];

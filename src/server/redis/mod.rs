//! The connection to Redis with the kernel's sockets.

mod backoff;
mod link;
mod password;
mod redis_socket;
mod target;
#[cfg_attr(not(feature = "cluster-tls"), path = "no_tls.rs")]
mod tls;

pub use password::{PASSWORD_ENV, PASSWORD_FILE_ENV, cluster_url};
pub use redis_socket::RedisSocket;
pub use target::RedisTarget;

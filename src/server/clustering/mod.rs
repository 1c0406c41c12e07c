//! The cluster as the server has it, or what stands in for it in a build without the cluster.

mod checked;
#[cfg(feature = "cluster")]
mod cluster_sockets;
#[cfg(not(feature = "cluster"))]
mod no_cluster;

#[cfg(feature = "cluster")]
pub(super) use self::cluster_sockets::ClusterSockets;
#[cfg(feature = "cluster")]
pub use self::cluster_sockets::VARIABLES;
#[cfg(not(feature = "cluster"))]
pub use self::no_cluster::VARIABLES;
#[cfg(not(feature = "cluster"))]
pub(super) use self::no_cluster::{ClusterLogState, ClusterSockets};
#[cfg(feature = "cluster")]
pub(super) use crate::cluster::ClusterLogState;

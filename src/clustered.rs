//! Whether this build has the cluster, which is the feature `cluster`.

pub(crate) use build::Clustered;

/// This build has the cluster.
pub(crate) const HAS_CLUSTER: bool = cfg!(feature = "cluster");

/// The Redis of a cluster may speak TLS: the feature `cluster-tls`.
pub(crate) const HAS_CLUSTER_TLS: bool = cfg!(feature = "cluster-tls");

#[cfg(feature = "cluster")]
mod build {
    use std::ops::{Deref, DerefMut};

    /// A value that only a cluster has.
    pub(crate) struct Clustered<T>(T);

    impl<T> Clustered<T> {
        /// Returns the value, or `None` in a build without the cluster.
        #[expect(clippy::unnecessary_wraps, reason = "the other build returns None")]
        pub(crate) fn new(value: T) -> Option<Self> {
            Some(Self(value))
        }
    }

    impl<T> Deref for Clustered<T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Clustered<T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }
}

#[cfg(not(feature = "cluster"))]
mod build {
    use std::convert::Infallible;
    use std::marker::PhantomData;
    use std::ops::{Deref, DerefMut};

    /// A value that only a cluster has. There is none in this build: so the compiler knows that an
    /// `Option` of this type is `None`, and leaves out the code for the other case.
    pub(crate) struct Clustered<T>(Infallible, PhantomData<T>);

    impl<T> Clustered<T> {
        /// Drops the value.
        pub(crate) fn new(_: T) -> Option<Self> {
            None
        }
    }

    impl<T> Deref for Clustered<T> {
        type Target = T;

        #[inline]
        fn deref(&self) -> &T {
            match self.0 {}
        }
    }

    impl<T> DerefMut for Clustered<T> {
        #[inline]
        fn deref_mut(&mut self) -> &mut T {
            match self.0 {}
        }
    }
}

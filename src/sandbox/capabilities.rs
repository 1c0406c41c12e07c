//! Capabilities: the parts of root's power. Other users may have some too, for instance to bind
//! ports below 1024.

use rustix::io::{self, Errno};
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Drops all capabilities permanently. If the process stays root, it keeps one: to enter
/// directories of other users, where its executable and its sockets may be. Since root owns nearly
/// all files, this capability adds little.
///
/// # Errors
///
/// The kernel's error. Capabilities that were dropped before stay dropped.
pub(super) fn drop_capabilities() -> io::Result<()> {
    let kept =
        if geteuid().is_root() { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() };
    let own = capabilities(None)?;
    if own.effective.contains(CapabilitySet::SETPCAP) {
        drop_bounding_set(kept)?;
    }
    // Old kernels have no ambient set.
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let left = own.permitted & kept;
    set_capabilities(
        None,
        CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() },
    )
}

/// Drops all but the `kept` capabilities from the bounding set, so that no program that this
/// process executes can get others.
pub(super) fn drop_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel has no capability with this number or above.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

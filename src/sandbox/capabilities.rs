//! The parts of root's power, which also somebody else may have been given, as for a port below 1024.

use rustix::io::{self, Errno};
use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Gives up every capability for good. Root as whom it goes on keeps one: to go into directories of others, where its
/// executable and its sockets may be. As the owner of nearly all files it gains little by it.
///
/// # Errors
///
/// What the kernel says. What could be given up until then is.
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

/// Has no program that is executed from here ever get others than `kept`.
pub(super) fn drop_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! The identity of this boot of the machine, which tells that the machine itself went down.

use std::{env, fs};

/// Variable with the identity, for a process that does not see the file of the kernel. A unit of
/// systemd with `ProcSubset=pid` sets it to `%b`.
pub const BOOT_ID_ENV: &str = "SPEAK_BOOT_ID";

/// Returns the identity of this boot: all zeros if it is not known.
pub(super) fn boot_id() -> [u8; 16] {
    let of_kernel = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    parse(&of_kernel.or_else(|| env::var(BOOT_ID_ENV).ok()).unwrap_or_default())
}

/// Parses 32 hexadecimal digits, with hyphens or without.
fn parse(text: &str) -> [u8; 16] {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_systemd_write_the_same_identity_in_two_ways() {
        let id = parse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n");
        assert_eq!(id[..4], [0x0f, 0x1e, 0x2d, 0x3c]);
        assert_eq!(id, parse("0f1e2d3c4b5a69788796a5b4c3d2e1f0"));
        assert_eq!(parse(""), [0; 16], "not known");
        assert_ne!(boot_id(), [0; 16]);
    }
}

//! A call that is made again, since it has waited until this process was not behind.

use std::num::NonZeroU8;

use crate::api::Behind;
use crate::hub::Millis;

/// What a call has waited for, in the upper two bits, and the time since it came, in tenths of a
/// second. One byte, since each client has room for it.
#[derive(Clone, Copy)]
pub(super) struct Waited(NonZeroU8);

impl Waited {
    const BARRIER: NonZeroU8 = NonZeroU8::new(0x40).unwrap();
    const HOLD: NonZeroU8 = NonZeroU8::new(0x80).unwrap();
    const END: NonZeroU8 = NonZeroU8::new(0xc0).unwrap();
    const TENTHS: u8 = 0x3f;

    /// Notes that a call has waited for this, which came at `called_at`.
    pub(super) fn new(behind: Behind, called_at: Millis, now: Millis) -> Self {
        let tenths = (now.0.saturating_sub(called_at.0) / 100).min(u64::from(Self::TENTHS));
        let behind = match behind {
            Behind::Barrier => Self::BARRIER,
            Behind::Hold => Self::HOLD,
            Behind::End => Self::END,
        };
        Self(behind | tenths as u8)
    }

    pub(super) fn behind(self) -> Behind {
        match self.0.get() & !Self::TENTHS {
            bits if bits == Self::BARRIER.get() => Behind::Barrier,
            bits if bits == Self::HOLD.get() => Behind::Hold,
            _ => Behind::End,
        }
    }

    /// Returns the time since the call came, in whole tenths of a second, at most 6,300 ms.
    pub(super) fn ms(self) -> u64 {
        u64::from(self.0.get() & Self::TENTHS) * 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_has_both() {
        assert_eq!(size_of::<Option<Waited>>(), 1);
        for behind in [Behind::Barrier, Behind::Hold, Behind::End] {
            for (now, ms) in [(4_999, 0), (5_000, 0), (6_234, 1_200), (60_000, 6_300)] {
                let waited = Waited::new(behind, Millis(5_000), Millis(now));
                assert_eq!((waited.behind(), waited.ms()), (behind, ms));
            }
        }
    }
}

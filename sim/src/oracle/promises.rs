//! Streams that nobody reads leave room for the others at every step, however much the session may
//! keep.

/// Windows that hold some frames of every stream; smaller ones have room only for the first bytes
/// of a few.
const ROOMY_WINDOW: u64 = 16 * 1024;

/// A stream's largest first window: each end may open one stream even without room.
const FIRST_WINDOW: u64 = 2 * 1024;

/// What streams may be promised. They should have three quarters of the session's window, or of its
/// allowance; what each end may open even without room comes on top, and stays below an eighth.
#[derive(Clone, Copy, Debug)]
pub struct Promises {
    window: u64,
    most: u64,
    /// What was promised under a larger allowance: it is used up and no longer grows.
    before: u64,
}

impl Promises {
    pub fn new(window: u64) -> Self {
        let mut promises = Self { window, most: 0, before: 0 };
        promises.allow(u64::MAX, 0);
        promises
    }

    /// From now on `receive` bytes are allowed, with `promised` so far.
    pub fn allow(&mut self, receive: u64, promised: u64) {
        let window = self.window.min(receive);
        let roomy = self.window >= ROOMY_WINDOW;
        self.most = if roomy { window - window / 8 } else { u64::MAX };
        // If less is allowed now than was promised, the first stream of each end comes on top,
        // again and again.
        let least = if window < self.window { 2 * FIRST_WINDOW } else { 0 };
        self.most = self.most.max(least);
        self.before = promised.saturating_add(least);
    }

    pub fn check(&mut self, promised: u64) -> Result<(), String> {
        let most = self.most.max(self.before);
        if promised > most {
            return Err(format!("streams were promised {promised} bytes, {most} are theirs"));
        }
        self.before = self.before.min(promised.saturating_add(2 * FIRST_WINDOW));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_room_to_each_other() {
        let mut promises = Promises::new(32_000);
        assert_eq!(promises.check(28_000), Ok(()));
        promises.check(28_001).unwrap_err();
        assert_eq!(Promises::new(8).check(8), Ok(()), "there is no room to leave");
    }

    #[test]
    fn what_was_promised_when_more_was_allowed_does_not_grow() {
        let mut promises = Promises::new(1_000_000);
        assert_eq!(promises.check(800_000), Ok(()));
        promises.allow(100_000, 800_000);
        assert_eq!(promises.check(804_096), Ok(()));
        promises.check(804_097).unwrap_err();
        assert_eq!(promises.check(500_000), Ok(()));
        promises.check(504_097).unwrap_err();
        assert_eq!(promises.check(87_500), Ok(()));
        promises.check(91_597).unwrap_err();
        promises.allow(u64::MAX, 87_500);
        assert_eq!(promises.check(875_000), Ok(()));
    }
}

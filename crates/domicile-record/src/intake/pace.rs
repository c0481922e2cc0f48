//! How often an intake looks at the clock.

use domicile::Time;

/// The most records between two looks.
const STEP_MAX: u32 = 4_096;

/// A look now and then: rarely while records come fast, at each one while they come slowly.
#[derive(Debug)]
pub(super) struct Pace {
    step: u32,
    left: u32,
    looked: i64,
    kept_up: i64,
}

impl Pace {
    pub(super) fn new(now: Time) -> Self {
        Self { step: 1, left: 1, looked: now.micros(), kept_up: now.micros() }
    }

    /// Counts a record; whether it is time to look at the clock.
    #[inline]
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.left = self.step;
        true
    }

    /// A look at the clock: whether so long has passed since this was last said.
    pub(super) fn passed(&mut self, now: Time, age: std::time::Duration) -> bool {
        let now = now.micros();
        // A look about every ten milliseconds.
        self.step = match now.saturating_sub(self.looked) {
            ..5_000 => (self.step * 2).min(STEP_MAX),
            5_000..20_000 => self.step,
            _ => 1,
        };
        self.left = self.step;
        self.looked = now;
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let passed = !(0..age).contains(&now.saturating_sub(self.kept_up));
        if passed {
            self.kept_up = now;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn slow_records_are_looked_at_each_and_fast_ones_rarely() {
        let at = |micros| Time::from_micros(micros).unwrap();
        let mut pace = Pace::new(at(0));
        let (mut looks, mut kept_up) = (0, 0);
        for micros in 0..1_000_000 {
            if pace.is_due() {
                looks += 1;
                kept_up += u32::from(pace.passed(at(micros), Duration::from_millis(100)));
            }
        }
        assert!(looks < 400, "{looks} looks at a million records in a second");
        assert_eq!(kept_up, 9);
        // At most one step of records is overlooked once they come slowly.
        let slow: Vec<_> = (0..2 * i64::from(STEP_MAX))
            .map(|second| pace.is_due() && pace.passed(at(1_000_000 * second), Duration::from_secs(2)))
            .collect();
        let first = slow.iter().position(|passed| *passed).unwrap();
        assert!(first <= STEP_MAX as usize);
        assert!(slow[first..].chunks(2).filter(|pair| pair.len() == 2).all(|pair| pair.contains(&true)));
    }
}

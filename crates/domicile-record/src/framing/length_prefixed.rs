//! Records preceded by their length: u32, big-endian, which counts itself or does not.

/// Octets of a length.
pub(super) const PREFIX_BYTES: usize = 4;

/// Finds the ends of length-prefixed records in octets that come bit by bit.
#[derive(Debug, Default)]
pub(super) struct LengthPrefixed {
    /// Whether a length counts its own octets.
    is_inclusive: bool,
    /// Octets of the current record's length that were seen.
    prefix_seen: usize,
    /// What those octets say so far; once all were seen, the octets of the record that were not.
    missing: u32,
    /// Whether a length was less than its own octets: nothing tells where anything ends.
    is_lost: bool,
}

impl LengthPrefixed {
    /// For lengths that count their own octets.
    pub(super) fn inclusive() -> Self {
        Self { is_inclusive: true, ..Self::default() }
    }

    /// Where the current record ends in `fresh`, if it does.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        if self.is_lost {
            return None;
        }
        let mut rest = fresh;
        while self.prefix_seen < PREFIX_BYTES {
            let (&octet, after) = rest.split_first()?;
            // Four octets at most are shifted in, and the counter is cleared for each record.
            self.missing = (self.missing << 8) | u32::from(octet);
            self.prefix_seen += 1;
            rest = after;
            if self.prefix_seen == PREFIX_BYTES && self.is_inclusive {
                match self.missing.checked_sub(PREFIX_BYTES_U32) {
                    Some(missing) => self.missing = missing,
                    None => {
                        self.is_lost = true;
                        return None;
                    }
                }
            }
        }
        match u32::try_from(rest.len()) {
            Ok(here) if here < self.missing => {
                self.missing -= here;
                None
            }
            _ => {
                // `rest` holds the whole remainder, so that it fits in a usize.
                let end = fresh.len() - rest.len() + usize::try_from(self.missing).unwrap_or(rest.len());
                *self = Self { is_inclusive: self.is_inclusive, ..Self::default() };
                Some(end)
            }
        }
    }

    /// What is odd when the input ends here, within a record.
    pub(super) fn finish(&self) -> Option<&'static str> {
        match self.prefix_seen {
            _ if self.is_lost => Some(TOO_SMALL),
            0 => None,
            PREFIX_BYTES => Some("the last record is shorter than its length says"),
            _ => Some("the input ends within the length of a record"),
        }
    }
}

const PREFIX_BYTES_U32: u32 = 4;

const TOO_SMALL: &str =
    "a length that counts itself is less than 4: what follows cannot be split and is kept as one record";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_length_and_that_many_octets() {
        let mut splitter = LengthPrefixed::default();
        assert_eq!(splitter.scan(&[0, 0, 0, 2, 7, 7, 0]), Some(6));
        assert_eq!(splitter.scan(&[0]), None);
        assert_eq!(splitter.scan(&[0, 0, 0]), Some(3), "a record may be empty");
        assert_eq!(splitter.scan(&[0, 0, 1, 0]), None);
        assert_eq!(splitter.scan(&[0; 255]), None);
        assert_eq!(splitter.scan(&[0; 255]), Some(1));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn a_length_may_count_itself() {
        let mut splitter = LengthPrefixed::inclusive();
        assert_eq!(splitter.scan(&[0, 0, 0, 6, 7, 7, 0]), Some(6));
        assert_eq!(splitter.scan(&[0]), None);
        assert_eq!(splitter.scan(&[0, 0, 4, 0]), Some(3), "a record may be empty");
        assert_eq!(splitter.scan(&[0, 0, 0, 5]), None);
        assert_eq!(splitter.finish(), Some("the last record is shorter than its length says"));
        assert_eq!(splitter.scan(&[1]), Some(1));
        assert_eq!(splitter.finish(), None);
        assert_eq!(splitter.scan(&[0, 0, 0, 3, 0, 0, 0, 4]), None);
        assert_eq!(splitter.scan(&[0, 0, 0, 4]), None);
        assert_eq!(splitter.finish(), Some(TOO_SMALL));
    }

    #[test]
    fn an_incomplete_record_is_noticed() {
        let mut splitter = LengthPrefixed::default();
        assert_eq!(splitter.scan(&[0, 0]), None);
        assert_eq!(splitter.finish(), Some("the input ends within the length of a record"));
        assert_eq!(splitter.scan(&[0xff, 0xff, 1]), None);
        assert_eq!(splitter.finish(), Some("the last record is shorter than its length says"));
    }
}

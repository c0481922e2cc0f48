//! Records in memory, one by one.

/// Records back to back, and where each of them ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ends: Vec<usize>,
}

impl Records {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them back to back.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The offset behind each record.
    #[must_use]
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// One of them, the first being 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..end)
    }

    /// One after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let record = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            record
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_number_and_in_turn() {
        assert!(Records::default().is_empty());
        let records = Records { bytes: b"onethree".to_vec(), ends: vec![3, 3, 8] };
        let all: Vec<&[u8]> = records.iter().collect();
        assert_eq!(all, [&b"one"[..], b"", b"three"]);
        assert_eq!(
            (0..4).map(|n| records.get(n)).collect::<Vec<_>>(),
            [Some(all[0]), Some(all[1]), Some(all[2]), None]
        );
        assert_eq!((records.as_bytes(), records.ends()), (&b"onethree"[..], &[3, 3, 8][..]));
    }
}

//! The guide: in the last 64 KiB of a segment, what tells its lane pages apart.
//!
//! A first key of each page would take 113 octets, and there are thousands of pages. What lies between the last key of
//! one page and the first of the next is told by their first octets that differ, and of those only what the separator
//! before does not begin with: a few octets each.

use std::ops::Range;

use domicile::Scope;
use domicile::wire::{Decoder, Encoder, Malformed};

use super::footer::{FooterEntry, LaneKey};

/// Which lane pages can hold a scope. Hints, as all of the footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guide {
    /// Pages from one separator to the next.
    pages_a_step: u16,
    /// Between each step and the one before: above all keys before it, and not above the first behind it.
    separators: Vec<Vec<u8>>,
}

impl Guide {
    /// The most pages of a step: 32 KiB, which with the last 64 KiB are less than 128.
    pub const PAGES_A_STEP_MAX: u16 = 8;

    /// The guide of these pages that has the shortest steps of those that fit; none if none does, or if there is one page.
    pub(super) fn of(pages: &[&[FooterEntry]], bytes_max: usize) -> Option<Self> {
        if pages.len() < 2 {
            return None;
        }
        let steps = [1, 2, 4, Self::PAGES_A_STEP_MAX];
        steps.into_iter().find_map(|pages_a_step| {
            let mut steps = pages.chunks(usize::from(pages_a_step));
            let last = |step: &[&[FooterEntry]]| Some(step.last()?.last()?.key.sorted());
            let mut before = last(steps.next()?)?;
            let mut separators = Vec::new();
            for step in steps {
                let first = step.first()?.first()?.key.sorted();
                separators.push(first.get(..=shared(&before, &first))?.to_vec());
                before = last(step)?;
            }
            Some(Self { pages_a_step, separators }).filter(|guide| guide.encode().len() <= bytes_max)
        })
    }

    /// `u16` pages a step; for each separator how many octets it has from the one before (`u8`), how many follow (`u8`),
    /// and these.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.u16(self.pages_a_step);
        let mut before: &[u8] = &[];
        for separator in &self.separators {
            // A sorted key has at most 113 octets.
            let common = shared(before, separator).min(usize::from(u8::MAX));
            let rest = separator.get(common..).unwrap_or_default();
            out.u8(u8::try_from(common).unwrap_or(u8::MAX)).u8(u8::try_from(rest.len()).unwrap_or(u8::MAX));
            out.raw(rest);
            before = separator;
        }
        out.finish()
    }

    /// Reads a guide, whose checksum was looked at.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(bytes);
        let bad = Malformed { what: "guide of the footer", at: 0 };
        let pages_a_step = input.u16("pages of a step")?;
        if !matches!(pages_a_step, 1 | 2 | 4 | Self::PAGES_A_STEP_MAX) {
            return Err(bad);
        }
        let mut separators: Vec<Vec<u8>> = Vec::new();
        while input.remaining() > 0 {
            let common = usize::from(input.u8("octets of the separator before")?);
            let more = usize::from(input.u8("octets of a separator")?);
            let before = separators.last().map(Vec::as_slice).unwrap_or_default();
            // Bounded, because what a separator takes from the one before it costs nothing to write.
            if more == 0 || common + more > LaneKey::BYTES {
                return Err(bad);
            }
            let mut separator = before.get(..common).ok_or(bad)?.to_vec();
            separator.extend_from_slice(input.raw(more, "separator")?);
            // Encoding is canonical: what it has in common with the one before is not written again.
            if separator.as_slice() <= before || shared(before, &separator) != common {
                return Err(bad);
            }
            separators.push(separator);
        }
        Ok(Self { pages_a_step, separators })
    }

    /// The pages, of this many, that can hold lanes of a scope.
    #[must_use]
    pub fn pages_of(&self, scope: &Scope, page_count: usize) -> Range<usize> {
        let first = LaneKey::sorted_scope(scope);
        let mut behind = first.clone();
        behind.push(u8::MAX); // above all periods, which are ASCII
        let step = |key: &[u8]| self.separators.partition_point(|separator| separator.as_slice() <= key);
        let page = |step: usize| step.saturating_mul(usize::from(self.pages_a_step)).min(page_count);
        page(step(&first))..page(step(&behind).saturating_add(1))
    }
}

/// How many octets two begin with alike.
fn shared(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use domicile::RecordType;

    use super::*;
    use crate::format::LaneNo;

    fn pages(tenants: impl IntoIterator<Item = String>, types: &[RecordType]) -> Vec<FooterEntry> {
        let mut keys: Vec<_> = tenants
            .into_iter()
            .flat_map(|tenant| types.iter().map(move |of| Scope::new(&tenant, of.clone()).unwrap()))
            .zip(1..)
            .map(|(scope, lane)| LaneKey::new(scope, "2026-11".parse().unwrap(), LaneNo(lane)))
            .collect();
        keys.sort();
        let entry = |key| FooterEntry { key, open_at: 0, end_at: 0, blocks: 1, distances_from: 0 };
        keys.into_iter().map(entry).collect()
    }

    #[test]
    fn every_scope_lies_in_the_pages_that_the_guide_names() {
        let types = [RecordType::VOICE, RecordType::MESSAGING, RecordType::FAX];
        let entries = pages(
            (0..3000).map(|n| format!("t{:x}", n * 7919 % 4096)).collect::<std::collections::BTreeSet<_>>(),
            &types,
        );
        let pages: Vec<_> = entries.chunks(29).collect();
        for bytes_max in [1 << 16, 600, 400, 200] {
            let Some(guide) = Guide::of(&pages, bytes_max) else {
                assert!(bytes_max < 400, "{bytes_max}");
                continue;
            };
            assert!(guide.encode().len() <= bytes_max);
            assert_eq!(Guide::decode(&guide.encode()).unwrap(), guide);
            for (page, entry) in pages.iter().zip(0..).flat_map(|(page, n)| page.iter().map(move |e| (n, e)))
            {
                let named = guide.pages_of(&entry.key.scope, pages.len());
                assert!(named.contains(&page), "{entry:?}: {named:?}, and it is in {page}");
                assert!(named.len() <= 2 * usize::from(guide.pages_a_step), "{named:?}");
            }
        }
    }

    #[test]
    fn the_longest_names_alike_but_for_their_ends_fit() {
        // 2^20 lanes have 36,158 pages, of which a guide with the longest steps tells apart every eighth.
        let entries =
            pages((0..4520u32 * 29).map(|n| format!("{}{n:08}", "a".repeat(56))), &[RecordType::VOICE]);
        let pages: Vec<_> = entries.chunks(29).collect();
        let guide = Guide::of(&pages, 60_000).unwrap();
        assert_eq!(guide.pages_a_step, 1);
        assert!(guide.encode().len() < 4520 * 6, "{}", guide.encode().len());
    }

    #[test]
    fn what_is_no_guide_is_refused() {
        let entries = pages((0..300).map(|n| format!("tenant-{n}")), &[RecordType::VOICE]);
        let pages: Vec<_> = entries.chunks(29).collect();
        let good = Guide::of(&pages, 1000).unwrap().encode();
        assert!(Guide::decode(&good).is_ok());
        for bad in [
            &[][..],
            &[0, 0],
            &[0, 3],
            &[0, 1, 0],
            &[0, 1, 0, 0],
            &[0, 1, 1, 1, 7],
            &[0, 1, 0, 1, 9, 0, 1, 9],
            &[0, 1, 0, 1, 9, 0, 2, 9, 9],
        ] {
            assert!(Guide::decode(bad).is_err(), "{bad:?}");
        }
        for length in 0..good.len() {
            // Cut between two separators, it is a guide of fewer pages.
            let _ = Guide::decode(&good[..length]);
        }
    }
}

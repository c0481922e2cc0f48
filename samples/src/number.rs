//! Telephone numbers that nobody has: from the ranges that regulators set aside for fiction.
//!
//! Germany: Bundesnetzagentur, 1,000 numbers each in Berlin, Hamburg, Köln, Frankfurt and München. France:
//! Arcep, six blocks of 10,000. United Kingdom: Ofcom, 1,000 each in several towns and for mobiles. North
//! America: 555-0100 to 555-0199 in any area. Australia: ACMA, (02) 5550 xxxx and single mobile numbers.

use crate::draw::scaled;
use crate::moment::Digits;
use crate::page::Page;
use crate::scope::Region;

/// A number: a block of numbers of a region, and the three last digits.
#[derive(Clone, Copy)]
pub(crate) struct Number {
    region: u32,
    block: u32,
    last: u32,
}

/// Numbers with the same digits but the last three, of which `count` from `first` on are ours to use.
struct Block {
    /// The plus sign and the digits, with zeros to fill the row.
    start: [u8; 12],
    length: u8,
    first: u16,
    count: u16,
}

/// The blocks of every region.
pub(crate) struct Numbers {
    blocks: Vec<[Block; 16]>,
    regions: u32,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        let blocks: Vec<_> =
            Region::ALL.iter().map(|&region| std::array::from_fn(|index| block(region, index))).collect();
        Self { regions: u32::try_from(blocks.len()).unwrap_or_default(), blocks }
    }

    /// The number of a region that `bits` stand for.
    #[inline]
    pub(crate) fn of_region(&self, region: Region, bits: u32) -> Number {
        self.pick(region as u32, bits)
    }

    /// The number of any region that the bits stand for.
    #[inline]
    pub(crate) fn of_anywhere(&self, region_bits: u32, bits: u32) -> Number {
        self.pick(scaled(region_bits, self.regions), bits)
    }

    /// Appends the number, in the form of E.164.
    #[inline(always)]
    pub(crate) fn write(&self, number: Number, digits: &Digits, page: &mut Page<'_>) {
        if let Some(block) = self.block(number.region, number.block) {
            page.padded(&block.start, usize::from(block.length));
            page.padded(&(digits.three(number.last) << 8).to_be_bytes(), 3);
        }
    }

    /// What [`write`](Self::write) appends.
    pub(crate) fn text(&self, number: Number) -> Vec<u8> {
        let Some(block) = self.block(number.region, number.block) else { return Vec::new() };
        let start = block.start.iter().take(usize::from(block.length)).copied();
        start.chain(format!("{:03}", number.last).into_bytes()).collect()
    }

    /// How many octets [`write`](Self::write) appends.
    #[inline]
    pub(crate) fn length(&self, number: Number) -> u8 {
        self.block(number.region, number.block).map_or(0, |block| block.length + 3)
    }

    #[inline]
    fn pick(&self, region: u32, bits: u32) -> Number {
        // The lowest bits choose the block, the others a number in it.
        let block = bits & 15;
        let last = self
            .block(region, block)
            .map_or(0, |block| u32::from(block.first) + scaled(bits & !15, u32::from(block.count)));
        Number { region, block, last }
    }

    #[inline]
    fn block(&self, region: u32, index: u32) -> Option<&Block> {
        self.blocks.get(region as usize)?.get(index as usize)
    }
}

/// Block `index` of a region; a list that is shorter begins again.
fn block(region: Region, index: usize) -> Block {
    let starts: &[&str] = match region {
        Region::EuCentral1 => &["+493023125", "+496990009", "+494066969", "+498999998", "+492214710"],
        Region::EuWest1 => &[
            "+33199001",
            "+33199004",
            "+33261913",
            "+33353018",
            "+33465710",
            "+33536496",
            "+33639981",
            "+33639987",
        ],
        Region::EuWest2 => &["+442079460", "+447700900", "+441134960", "+441414960", "+441614960"],
        Region::UsEast1 => &[
            "+12015550",
            "+12025550",
            "+12125550",
            "+12155550",
            "+13055550",
            "+14045550",
            "+16175550",
            "+17045550",
        ],
        Region::UsWest2 => &[
            "+12065550",
            "+12135550",
            "+13035550",
            "+14155550",
            "+15035550",
            "+16025550",
            "+17025550",
            "+19075550",
        ],
        Region::ApSoutheast2 => &["+6125550"],
    };
    let (start, first, count) = match region {
        Region::UsEast1 | Region::UsWest2 => (pick(starts, index).to_owned(), 100, 100),
        Region::ApSoutheast2 if index % 2 == 1 => {
            // The mobile numbers are no block but a list.
            let singles = [6, 110, 156, 157, 158, 159, 313, 737];
            ("+61491570".to_owned(), singles.get(index / 2).copied().unwrap_or(6), 1)
        }
        Region::ApSoutheast2 => (format!("{}{}", pick(starts, index), index / 2), 0, 1000),
        _ => (pick(starts, index).to_owned(), 0, 1000),
    };
    let mut row = [0; 12];
    row.iter_mut().zip(start.bytes()).for_each(|(octet, digit)| *octet = digit);
    Block { start: row, length: u8::try_from(start.len()).unwrap_or(12), first, count }
}

fn pick<'a>(starts: &[&'a str], index: usize) -> &'a str {
    starts.get(index % starts.len().max(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Draw, high};
    use crate::page::PAGE_OCTETS;

    #[test]
    fn numbers_are_reserved_for_fiction() {
        let (numbers, digits, mut draw) = (Numbers::new(), Digits::new(), Draw::new(1));
        for &region in Region::ALL {
            for _ in 0..2000 {
                let mut octets = [0; PAGE_OCTETS];
                let mut page = Page::new(&mut octets);
                let number = numbers.of_region(region, high(draw.word()));
                numbers.write(number, &digits, &mut page);
                assert_eq!(usize::from(numbers.length(number)), page.as_bytes().len());
                assert_eq!(numbers.text(number), page.as_bytes());
                let text = String::from_utf8(page.as_bytes().to_vec()).unwrap();
                assert!(is_fictional(&text), "{text} of {region}");
            }
        }
    }

    /// Whether a number lies in a reserved range, said apart from the list above: the digits that are free.
    fn is_fictional(number: &str) -> bool {
        let patterns = [
            "+493023125...",
            "+496990009...",
            "+494066969...",
            "+498999998...",
            "+492214710...",
            "+3319900....",
            "+3326191....",
            "+3335301....",
            "+3346571....",
            "+3353649....",
            "+3363998....",
            "+442079460...",
            "+447700900...",
            "+441134960...",
            "+441414960...",
            "+441614960...",
            "+1...55501..",
            "+6125550....",
            "+61491570006",
            "+61491570110",
            "+61491570156",
            "+61491570157",
            "+61491570158",
            "+61491570159",
            "+61491570313",
            "+61491570737",
        ];
        let same = |pattern: &str| {
            pattern.len() == number.len()
                && pattern.bytes().zip(number.bytes()).all(|(p, n)| p == n || p == b'.' && n.is_ascii_digit())
        };
        patterns.iter().any(|pattern| same(pattern))
    }
}

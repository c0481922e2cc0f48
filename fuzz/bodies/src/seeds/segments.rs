//! What somebody makes of a segment who knows the format and has no key.

use domicile_record::format::Trailer;

use crate::segment::{
    Forgery, MEND_FOOTER, MEND_HEADERS, RENUMBER_ORDINALS, RENUMBER_SEQUENCES, Step, sample_bytes,
    sample_footer_bytes,
};

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let (all, footer) = (sample_bytes(), sample_footer_bytes());
    let continued =
        |kept: usize, more: &[u8]| [&[Forgery::Continued.selector()], &two(kept)[..], more].concat();
    let edited = |mend: u8, cut: usize, edits: &[(usize, u8)]| {
        let edits = edits.iter().flat_map(|(at, octet)| [&two(*at)[..], &[*octet]].concat());
        [Forgery::Edited.selector(), mend].into_iter().chain(two(cut)).chain(edits).collect::<Vec<u8>>()
    };
    let rebuilt = |numbers: u8, steps: &[(Step, [u8; 3])]| {
        let steps = steps.iter().flat_map(|(step, operands)| [&[step.selector()], &operands[..]].concat());
        [Forgery::Rebuilt.selector(), numbers].into_iter().chain(steps).collect::<Vec<u8>>()
    };
    let by_two_engines = |mut seed: Vec<u8>| {
        seed[0] |= 0x80;
        seed
    };
    let renumbered = RENUMBER_ORDINALS | RENUMBER_SEQUENCES;
    let mended = MEND_HEADERS | MEND_FOOTER;
    // Blocks by their place: 1 opens lane 1, 2 is its preamble, 3 and 5 open others; the first data from 8 on.
    vec![
        ("unchanged", edited(0, 0, &[])),
        ("unchanged-by-two-engines", by_two_engines(rebuilt(0, &[]))),
        (
            "no-segment",
            continued(0, b"this is no segment, and longer than the header of one: ".repeat(3).as_slice()),
        ),
        ("header-alone", continued(112, b"")),
        ("cut-in-the-header", continued(50, b"")),
        ("cut-in-a-block", by_two_engines(continued(all / 3, b""))),
        ("cut-behind-a-commit-and-zeros", continued(all / 3, &[0; 100])),
        ("without-a-footer", by_two_engines(edited(0, footer, &[]))),
        ("cut-in-the-footer", edited(0, 100, &[])),
        ("octets-behind-the-end", continued(all, b"and more")),
        ("header-damaged", edited(0, 0, &[(60, 1)])),
        ("id-changed-and-mended", edited(mended, 0, &[(12, 1)])),
        ("first-distance-changed-and-mended", edited(mended, 0, &[(all - footer + 44, 1)])),
        ("offset-of-a-lane-changed-and-mended", edited(mended, 0, &[(all - Trailer::BYTES - 4300, 1)])),
        ("trailer-that-claims-many-lanes", edited(mended, 0, &[(all - Trailer::BYTES + 12, 0x80)])),
        ("trailer-that-points-at-a-block", edited(mended, 0, &[(all - Trailer::BYTES + 23, 0xff)])),
        ("ciphertext-changed", by_two_engines(rebuilt(0, &[(Step::Octet, [8, 3, 1])]))),
        ("data-left-out", rebuilt(renumbered, &[(Step::Drop, [9, 0, 0])])),
        ("lane-end-left-out", rebuilt(renumbered, &[(Step::Drop, [24, 0, 0])])),
        ("lane-0-left-out", rebuilt(RENUMBER_ORDINALS, &[(Step::Drop, [0, 0, 0])])),
        ("data-twice", rebuilt(renumbered, &[(Step::Repeat, [8, 9, 0])])),
        ("data-swapped", rebuilt(renumbered, &[(Step::Swap, [8, 10, 0])])),
        ("data-of-another-segment", by_two_engines(rebuilt(renumbered, &[(Step::Replace, [8, 8, 1])]))),
        ("data-under-anothers-header", rebuilt(0, &[(Step::SwapBodies, [8, 9, 0])])),
        ("data-in-another-lane", rebuilt(renumbered, &[(Step::Lane, [8, 2, 0])])),
        ("data-that-claims-to-go-on", rebuilt(0, &[(Step::Flags, [8, 0, 4])])),
        ("data-said-to-be-of-a-kind-to-skip", rebuilt(0, &[(Step::Kind, [8, 0, 0])])),
        ("footer-flags-that-are-ignored", rebuilt(0, &[(Step::Flags, [1, 1, 0])])),
        ("opening-of-another-segment", rebuilt(0, &[(Step::Replace, [1, 1, 1])])),
        ("wrap-of-another-lane", rebuilt(0, &[(Step::Opening, [1, 3, 2])])),
        ("wrap-of-another-segment", by_two_engines(rebuilt(0, &[(Step::Opening, [1, 1, 0x82])]))),
        ("descriptor-of-another-lane", rebuilt(0, &[(Step::Opening, [1, 5, 0])])),
        ("lane-said-to-be-of-lane-0s-scope", rebuilt(0, &[(Step::Opening, [1, 1, 14])])),
        ("lane-said-to-be-at-home-elsewhere", rebuilt(0, &[(Step::Opening, [1, 1, 15])])),
        ("key-that-nobody-knows", rebuilt(0, &[(Step::Opening, [5, 5, 13])])),
        ("edition-raised", by_two_engines(rebuilt(0, &[(Step::Header, [0, 7, 0])]))),
        (
            "edition-raised-and-blocks-moved",
            rebuilt(0, &[(Step::Header, [0, 1, 0]), (Step::Swap, [8, 9, 0])]),
        ),
        ("region-elsewhere", rebuilt(0, &[(Step::Header, [5, 0, 0])])),
        ("header-of-another-segment", rebuilt(0, &[(Step::Header, [3, 0, 0])])),
        // Found by fuzzing: it is some of that segment then, and opens as that.
        ("header-and-blocks-of-another-segment", by_two_engines(rebuilt(0, &of_another()))),
    ]
}

/// The header of another segment, and its blocks up to the first with data, each in its own place.
fn of_another() -> Vec<(Step, [u8; 3])> {
    let blocks = (0..=8).map(|place| (Step::Replace, [place, place, 0]));
    std::iter::once((Step::Header, [3, 0, 0])).chain(blocks).collect()
}

fn two(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_be_bytes()
}

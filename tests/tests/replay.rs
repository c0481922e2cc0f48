//! The fuzz targets without a fuzzer: every seed through its body, and some thousands of mutations of them, the
//! same ones on every run. `DOMICILE_FUZZ_SECONDS=600 cargo test -p domicile-tests --test replay` goes on for ten
//! minutes a body; with `scripts/fuzz` a fuzzer that sees which branches are taken goes further.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domicile_fuzz_bodies::{BODIES, Body, seeds::seeds};
use domicile_tests::hex;

/// The folder of the fuzz targets.
fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz")
}

/// The names of the files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|_| panic!("no folder {}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The committed seeds of a body, each with its name.
fn committed(body: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("seeds").join(body);
    names(&folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect()
}

/// What a body says of an input: nothing, or what it found.
fn outcome(body: Body, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| body(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[test]
fn every_seed_passes_through_its_body() {
    for (name, body) in BODIES {
        for (seed, bytes) in committed(name) {
            if let Err(what) = outcome(body, &bytes) {
                panic!("{name}: the seed {seed} fails: {what}\n{}", hex(&bytes));
            }
        }
    }
}

#[test]
fn the_committed_seeds_are_those_that_are_made() {
    const ALL_BYTES_MAX: usize = 300 << 10;
    let made = seeds();
    for (body, _) in BODIES {
        let of_body = made.iter().filter(|seed| seed.body == body);
        let expected: Vec<_> = of_body.map(|seed| (seed.name.to_owned(), seed.bytes.clone())).collect();
        let expected: BTreeSet<_> = expected.into_iter().collect();
        let found: BTreeSet<_> = committed(body).into_iter().collect();
        assert_eq!(
            expected.symmetric_difference(&found).map(|(name, _)| name).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{body}: run `cargo run -p domicile-fuzz-bodies --bin write-seeds`"
        );
        assert!(found.len() >= 10, "{body} has {} seeds", found.len());
    }
    assert!(made.iter().all(|seed| BODIES.iter().any(|(body, _)| *body == seed.body)));
    assert!(made.iter().map(|seed| seed.bytes.len()).sum::<usize>() < ALL_BYTES_MAX);
}

#[test]
fn every_body_has_a_target_of_one_line_and_every_target_a_body() {
    let bodies: BTreeSet<_> = BODIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let targets = names(&fuzz().join("fuzz_targets"));
    assert_eq!(targets, bodies.iter().map(|name| format!("{name}.rs")).collect());
    assert_eq!(names(&fuzz().join("seeds")), bodies);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for body in bodies {
        let target = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{body}.rs"))).unwrap();
        let line = format!("fuzz_target!(|data: &[u8]| domicile_fuzz_bodies::{body}(data));");
        assert!(target.contains(&line) && target.lines().count() == 3, "{target}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{body}.rs\"")), "{body} is not built");
    }
}

/// A body that finds something: two octets that are not in any of its seeds, but one bit away.
fn canary(input: &[u8]) {
    assert!(!input.windows(2).any(|octets| octets == b"!?"), "the canary sings");
}

#[test]
fn a_harness_that_notices_nothing_is_noticed() {
    assert_eq!(outcome(canary, b"nothing of interest"), Ok(()));
    assert!(outcome(canary, b"all is well!?").unwrap_err().contains("the canary sings"));
    let seeds = [b"!> is one bit away".to_vec(), b"something else".to_vec()];
    let found = mutate(canary, &seeds, Until::Count(MUTATIONS)).unwrap_err();
    assert!(found.what.contains("the canary sings") && found.input.windows(2).any(|octets| octets == b"!?"));
    // The same again, from the number that is printed.
    assert_eq!(mutation(&seeds, found.number), found.input);
    assert!(outcome(canary, &found.input).is_err());
}

#[test]
fn structures_hold_under_mutations() {
    hold_under_mutations("structures", 4 * MUTATIONS);
}

#[test]
fn framing_holds_under_mutations() {
    hold_under_mutations("framing", 2 * MUTATIONS);
}

#[test]
fn fields_hold_under_mutations() {
    hold_under_mutations("fields", 4 * MUTATIONS);
}

#[test]
fn segments_hold_under_mutations() {
    hold_under_mutations("segment", MUTATIONS);
}

#[test]
fn histories_hold_under_mutations() {
    hold_under_mutations("write_read", MUTATIONS);
}

/// Mutations of a body in the short form, some seconds at most.
const MUTATIONS: u64 = 2000;

/// Where all mutations come from.
const SEED: u64 = 0x5eed;

fn hold_under_mutations(name: &str, count: u64) {
    let (_, body) = BODIES.into_iter().find(|(other, _)| *other == name).unwrap();
    let seeds: Vec<_> = committed(name).into_iter().map(|(_, bytes)| bytes).collect();
    let seconds = std::env::var("DOMICILE_FUZZ_SECONDS").ok();
    let until = match seconds.map(|seconds| seconds.parse().unwrap()) {
        Some(seconds) => Until::Time(Instant::now() + Duration::from_secs(seconds)),
        None => Until::Count(count),
    };
    if let Err(found) = mutate(body, &seeds, until) {
        let Found { number, input, what } = found;
        panic!("{name}: mutation {number} of seed {SEED:#x} fails: {what}\n{}", hex(&input));
    }
}

/// When a run ends.
#[derive(Clone, Copy)]
enum Until {
    Count(u64),
    Time(Instant),
}

/// What a run found, and the number of its mutation.
struct Found {
    number: u64,
    input: Vec<u8>,
    what: String,
}

fn mutate(body: Body, seeds: &[Vec<u8>], until: Until) -> Result<(), Found> {
    for number in 0.. {
        let goes_on = match until {
            Until::Count(count) => number < count,
            Until::Time(end) => Instant::now() < end,
        };
        if !goes_on {
            break;
        }
        let input = mutation(seeds, number);
        if let Err(what) = outcome(body, &input) {
            return Err(Found { number, input, what });
        }
    }
    Ok(())
}

/// The mutation with this number: a seed in which a few things were changed.
fn mutation(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut draw = Draw(SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut input = seeds[draw.below(seeds.len())].clone();
    for _ in 0..=draw.below(4) {
        let at = draw.below(input.len() + 1);
        let end = (at + draw.below(16)).min(input.len());
        match draw.below(7) {
            0 => {
                if let Some(octet) = input.get_mut(at) {
                    *octet ^= 1 << draw.below(8);
                }
            }
            1 => {
                if let Some(octet) = input.get_mut(at) {
                    *octet = TELLING[draw.below(TELLING.len())];
                }
            }
            2 => input.truncate(at),
            3 => drop(input.splice(at..at, (0..draw.below(8)).map(|_| draw.octet()).collect::<Vec<_>>())),
            4 => drop(input.splice(at..end, [])),
            5 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            _ => {
                // The beginning of one seed and the end of another.
                let other = &seeds[draw.below(seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[draw.below(other.len() + 1)..]);
            }
        }
    }
    input
}

/// Octets at which readers turn.
const TELLING: [u8; 12] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"', b'\\', b',', b'[', b']'];

/// Numbers that repeat (SplitMix64); they protect nothing.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

//! The limit: copying alone, and copying with one AEAD call for each full block.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use domicile::danger;
use domicile::engine::{ContentKey, Engine, Suite};
use domicile_samples::Records;

use crate::rounds::{Case, Run};

/// The name of the ideal writer.
pub const IDEAL_WRITE: &str = "ideal/write/300B";
/// The name of the ideal reader.
pub const IDEAL_READ: &str = "ideal/read/300B";
/// The name of the case that reads on two threads.
pub(crate) const IDEAL_READ_BY_TWO: &str = "ideal/read/2 threads";

/// Octets of a block, as the library's own default.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
const KEY: [u8; 32] = [7; 32];
const ASSOCIATED: [u8; 44] = [1; 44];

/// Copies each record into a block buffer, nothing else.
pub(crate) fn floor_write(records: &Records) -> Case<'_> {
    case("floor/write/300B", None, records, move || {
        Box::new(move || {
            let mut produced = 0;
            fill_blocks(records.iter(), |block| produced += black_box(&*block).len() as u64);
            (produced, produced)
        })
    })
}

/// Copies each record, and seals each full block with one call: key prepared, no header, no offsets, no
/// file.
pub(crate) fn write(records: &Records, suite: Suite, engine: Engine) -> Case<'_> {
    case(IDEAL_WRITE, Some(engine), records, move || {
        let key = key(suite, engine);
        Box::new(move || seal_blocks(records.iter(), &key))
    })
}

/// Copies these records and seals each full block: octets seen, and produced.
pub(crate) fn seal_blocks<'r>(records: impl Iterator<Item = &'r [u8]>, key: &ContentKey) -> (u64, u64) {
    let (mut seen, mut produced, mut number) = (0, 0, 0);
    fill_blocks(records, |block| {
        let tag = seal(key, number, block);
        number += 1;
        black_box((&*block, tag));
        seen += block.len() as u64;
        produced += (block.len() + tag.len()) as u64;
    });
    (seen, produced)
}

/// Copies each block into a buffer and walks its records.
pub(crate) fn floor_read(records: &Records) -> Case<'_> {
    let total = records.as_bytes().len() as u64;
    case("floor/read/300B", None, records, move || {
        let blocks = blocks(records, |_, _| [0; 16]);
        Box::new(move || (walk_blocks(&blocks, |_, _, _| {}), total))
    })
}

/// Copies each sealed block into a buffer, opens it there with one call, and walks its records.
pub(crate) fn read(records: &Records, suite: Suite, engine: Engine) -> Case<'_> {
    let total = records.as_bytes().len() as u64;
    case(IDEAL_READ, Some(engine), records, move || {
        let key = key(suite, engine);
        let blocks = blocks(records, |number, block| seal(&key, number, block));
        Box::new(move || {
            let seen = walk_blocks(&blocks, |number, block, tag| {
                key.open(&nonce(number), &ASSOCIATED, block, tag).unwrap();
            });
            (seen, total)
        })
    })
}

/// The same on two threads.
pub(crate) fn read_by_two(records: &Records, suite: Suite, engine: Engine) -> Case<'_> {
    let total = records.as_bytes().len() as u64;
    case(IDEAL_READ_BY_TWO, Some(engine), records, move || {
        let key = key(suite, engine);
        let blocks = blocks(records, |number, block| seal(&key, number, block));
        Box::new(move || {
            let next = AtomicUsize::new(0);
            let read = || {
                let mut seen = 0;
                loop {
                    let part = next.fetch_add(PART_BLOCKS, Ordering::Relaxed);
                    if part >= blocks.len() {
                        return seen;
                    }
                    let of_part = &blocks[part..blocks.len().min(part + PART_BLOCKS)];
                    seen += walk_blocks(of_part, |number, block, tag| {
                        key.open(&nonce(part as u64 + number), &ASSOCIATED, block, tag).unwrap();
                    });
                }
            };
            let seen = std::thread::scope(|scope| {
                let other = scope.spawn(read);
                read() + other.join().unwrap()
            });
            (seen, total)
        })
    })
}

/// Blocks that a thread takes at once: as many as the library's own threads do.
const PART_BLOCKS: usize = 16;

struct Block {
    sealed: Vec<u8>,
    tag: [u8; 16],
    ends: Vec<u32>,
}

fn blocks(records: &Records, mut seal: impl FnMut(u64, &mut [u8]) -> [u8; 16]) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    let mut current = Block { sealed: Vec::with_capacity(BLOCK_BYTES), tag: [0; 16], ends: Vec::new() };
    for record in records.iter() {
        if current.sealed.len() + record.len() > BLOCK_BYTES {
            let next = Block { sealed: Vec::with_capacity(BLOCK_BYTES), tag: [0; 16], ends: Vec::new() };
            all.push(std::mem::replace(&mut current, next));
        }
        current.sealed.extend_from_slice(record);
        current.ends.push(u32::try_from(current.sealed.len()).unwrap());
    }
    all.push(current);
    for (number, block) in (0..).zip(&mut all) {
        block.tag = seal(number, &mut block.sealed);
    }
    all
}

fn walk_blocks(blocks: &[Block], mut open: impl FnMut(u64, &mut [u8], &[u8; 16])) -> u64 {
    let mut buffer = Vec::with_capacity(BLOCK_BYTES);
    let mut seen = 0;
    for (number, block) in (0..).zip(blocks) {
        buffer.clear();
        buffer.extend_from_slice(&block.sealed);
        open(number, &mut buffer, &block.tag);
        let mut start = 0;
        for end in &block.ends {
            let end = *end as usize;
            seen += black_box(&buffer[start..end]).len() as u64;
            start = end;
        }
    }
    seen
}

fn fill_blocks<'r>(records: impl Iterator<Item = &'r [u8]>, mut full: impl FnMut(&mut [u8])) {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for record in records {
        if block.len() + record.len() > BLOCK_BYTES {
            full(&mut block);
            block.clear();
        }
        block.extend_from_slice(record);
    }
    full(&mut block);
}

/// The one call that seals a block.
pub(crate) fn seal(key: &ContentKey, number: u64, block: &mut [u8]) -> [u8; 16] {
    key.seal(danger::nonce(nonce(number)), &ASSOCIATED, block).unwrap()
}

/// A key for it.
pub(crate) fn key(suite: Suite, engine: Engine) -> ContentKey {
    danger::content_key(suite, engine, &KEY).unwrap()
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [9; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn case<'a>(
    name: &'static str,
    engine: Option<Engine>,
    records: &'a Records,
    prepare: impl FnOnce() -> Run<'a> + 'a,
) -> Case<'a> {
    Case {
        name: name.to_owned(),
        engine,
        // The floor has no engine, and is no sealing at all: it is held against nothing.
        ideal: engine.map(|engine| (name, engine)),
        records: records.len(),
        expected: records.as_bytes().len() as u64,
        prepare: Box::new(prepare),
    }
}

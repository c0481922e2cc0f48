//! Seeds: small inputs of each body, each named for what it is. `write-seeds` writes them.
//!
//! They are made by the same code that a body takes them apart with, so that none says something else than its
//! name once a layout changes. Telephone numbers are of the ranges set aside for fiction.

mod histories;
mod records;
mod segments;
mod structures;

/// An input of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The body's name, and the folder's.
    pub body: &'static str,
    /// What it is, and the file's name.
    pub name: &'static str,
    /// The input.
    pub bytes: Vec<u8>,
}

/// Every seed, in the order of the bodies.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let of = |body: &'static str, seeds: Vec<(&'static str, Vec<u8>)>| {
        seeds.into_iter().map(move |(name, bytes)| Seed { body, name, bytes })
    };
    of("structures", structures::seeds())
        .chain(of("framing", records::framing()))
        .chain(of("fields", records::fields()))
        .chain(of("segment", segments::seeds()))
        .chain(of("write_read", histories::seeds()))
        .collect()
}

/// A text with its length before it.
fn short(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

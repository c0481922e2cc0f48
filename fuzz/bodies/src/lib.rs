//! What the fuzz targets call: a function for each target, on stable Rust, that tests call too.
//!
//! A body asserts more than that nothing panics. What reads writes back to the same octets; a second engine
//! and an independent reader agree; no read asks for more than there is; whatever opens was sealed. The page
//! `fuzzing.md` of the book says what each holds to.
//!
//! ```
//! domicile_fuzz_bodies::framing(b"\x02\x07\x03one line\nanother line\n");
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "this crate is only ever part of a test: a body that finds something panics"
)]

mod fields;
mod framing;
mod octets;
mod place;
mod sample;
pub mod seeds;
mod segment;
mod structures;
mod write_read;

pub use fields::fields;
pub use framing::framing;
pub use segment::segment;
pub use structures::structures;
pub use write_read::write_read;

/// A function that holds the library to its word on any octets, and panics where it does not keep it.
pub type Body = fn(&[u8]);

/// Every body, by the name of its target and of the folder of its seeds.
pub const BODIES: [(&str, Body); 5] = [
    ("structures", structures),
    ("framing", framing),
    ("fields", fields),
    ("segment", segment),
    ("write_read", write_read),
];

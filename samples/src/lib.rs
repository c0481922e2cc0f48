//! Call and message detail records that are about nobody, by the million.
//!
//! ```
//! use domicile_samples::{Format, Generator, Options};
//!
//! let generator = Generator::new(Options { tenants: 50, ..Options::default() })?;
//! let mut records = Vec::new();
//! generator.write(Format::Jsonl, 1_000_000..1_000_003, &mut records);
//! assert_eq!(records.split(|&octet| octet == b'\n').count(), 4);
//! # Ok::<(), domicile_samples::OptionsError>(())
//! ```
//!
//! # What it promises
//!
//! The same options give the same octets, on any machine. Record k depends on k and the options alone, so
//! that several threads or processes can make parts of one stream. Where a scope (a tenant and a record type)
//! is at home depends on nothing but the scope and the list of regions, so that a test can hold where records
//! went against [`Generator::scopes`]. Tenants get records by Zipf's law.
//!
//! Telephone numbers are from ranges set aside for fiction, subscribers' identities of the test network
//! 001-01, addresses and host names those reserved for documentation.
//!
//! None of this is cryptography: the draws come from SplitMix64, and anybody can repeat them.
//!
//! # Columns
//!
//! CSV has `record_type`, `tenant`, `region`, `record_id` (a UUID), `session_id`, `start_time` and `end_time` (RFC
//! 3339, milliseconds, UTC), `duration_ms`, `direction`, `from` and `to` (E.164), `status`, `cost`, `currency` and
//! `attributes`: always quoted, `name=value` with `;` between, and with commas, quotes and UTF-8 in some. JSON has
//! the same names, with each attribute as a member of its own.
//!
//! # The length-prefixed layout
//!
//! [`Format::Lp`] writes for each record its length and then as many octets. All numbers are big-endian.
//!
//! | octets | what |
//! |---|---|
//! | 4 | length of the rest |
//! | 1 | version of this layout: 1 |
//! | 1 | record type: its place in [`RecordType::ALL`] |
//! | 1 | region: its place in [`Region::ALL`] |
//! | 1 | direction: 0 inbound, 1 outbound |
//! | 4 | number of the tenant |
//! | 16 | record id, a UUID |
//! | 8 | session id |
//! | 8 | start, in milliseconds since 1970 |
//! | 4 | duration in milliseconds |
//! | 4 | cost in millionths |
//! | 1 | status: completed, busy, no-answer, canceled, failed, sent, delivered, read, undelivered, delivery_unconfirmed, accepted, expired, invalid, partial |
//! | 1 + n | from: n, then n octets of ASCII |
//! | 1 + n | to: n, then n octets of ASCII |
//! | 2 + n | attributes: n, then n octets of UTF-8, `name=value` with `;` between |
//!
//! # The layout of BER
//!
//! [`Format::Ber`] writes values with the choices of 3GPP TS 32.298: calls as `moCallRecord` (tag A0), messages as
//! `moSMSRecord` (A6), sessions of SIM cards as `pGWRecord` (BF 4F), all others as `aSRecord` (BF 45). Members are the
//! record type, the parties (swapped digits behind 91; `tel:` and the number in an `aSRecord`), times as nine octets of
//! `YYMMDDhhmmss+hhmm`, seconds, and the session. Scope and attributes stand in the extensions, as one UTF-8 text under
//! the object identifier 2.999.1.1, which is for examples. One value in four, and its extensions, are of indefinite
//! length.
//!
//! [`Format::Ts32297`] puts a file header before them, of 53 octets, and before each a CDR header, of four octets or of five.

mod attributes;
mod ber;
mod draw;
mod format;
mod generator;
mod moment;
mod number;
mod options;
mod page;
mod records;
mod render;
mod samples;
mod scope;

pub use format::Format;
pub use generator::{Generator, records_of_about_300_bytes};
pub use moment::micros_from_text;
pub use options::{Options, OptionsError};
pub use records::Records;
pub use samples::{Sample, sample_files};
pub use scope::{Mix, MixError, RecordType, Region, Scope, Tenant, UnknownName};

#![doc = include_str!("../README.md")]

pub mod audit;
mod chain;
pub mod checkpoint;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
pub mod checkup;
mod choosing;
pub mod config;
pub mod context;
pub mod danger;
pub mod doctor;
mod domicile;
pub mod encapsulation;
pub mod engine;
mod error;
pub mod event_window;
pub mod export;
pub mod files;
pub mod guard;
pub mod hex;
pub mod home;
mod kdf;
pub mod keyring;
pub mod kms;
mod known_regions;
pub mod ledger;
mod name;
mod observe;
pub mod period;
pub mod post;
pub mod posts;
mod private_file;
pub mod processing;
mod puncture;
pub mod random;
mod region;
pub mod retention;
mod scope;
pub mod secret;
#[cfg(feature = "sqlite")]
pub mod setup;
mod severity;
pub mod store;
mod time;
pub mod wire;
mod witness;

pub use choosing::ChoiceReport;
pub use config::Config;
pub use domicile::{Builder, Domicile};
pub use error::{Class, Code, Error, Result};
pub use guard::{Action, Permit, Purpose, Request};
pub use known_regions::KnownRegion;
pub use period::{Period, PeriodUnit};
pub use puncture::LeafNumber;
pub use region::{Jurisdiction, Place, Region};
pub use scope::{RecordType, Scope, TenantId};
pub use time::{Clock, FixedClock, ManualClock, SystemClock, Time};

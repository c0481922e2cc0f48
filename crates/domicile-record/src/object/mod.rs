//! Segments in object stores: S3 and its kin, local files, memory.
//!
//! Keys are async and bytes are sync, here too: an [`ObjectSource`] is a [`Source`](crate::Source) like a file. What it asks
//! the store is asked by a thread of its own, so that it may be read inside a runtime and outside.
//!
//! ```no_run
//! # async fn example(domicile: domicile::Domicile, acme: domicile::Scope) -> domicile::Result<()> {
//! use domicile::Purpose;
//! use domicile_record::object::ObjectUrl;
//! use domicile_record::{Segment, Selection};
//!
//! let object = ObjectUrl::parse("file:///srv/objects/voice.dseg")?;
//! // One lane of however many, by three requests: the object's end, a page of its footer, the lane.
//! let one: Selection = (&acme).into();
//! let segment = Segment::open_source(&domicile, object.open()?, Purpose::Billing, one.alone()).await?;
//! for block in segment.blocks() {
//!     println!("{} records", block?.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Finished segments are uploaded by [`upload`], which resumes what was cut.

mod bridge;
mod failure;
#[cfg(feature = "s3")]
mod s3;
mod source;
mod upload;
mod url;

pub use object_store;
pub use source::{ObjectSource, Objects};
pub use upload::{Destination, UploadOptions, Uploaded, upload};
pub use url::ObjectUrl;

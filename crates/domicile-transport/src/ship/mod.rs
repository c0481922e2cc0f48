//! Shipping home: finished segments go over placed connections to a host in their home region, which says that it has them once
//! that is so.
//!
//! [`Landing`] is the directory that they come into, [`Server`] takes requests for it, and [`Shipper`] sends. In between is HTTP/1.1,
//! so that `curl` with a client certificate can do what a [`Shipper`] does:
//!
//! | request | answer |
//! |---|---|
//! | `PUT /v1/segments/{id}`, the file or a part of it | 201 it is here now; 200 it was here already; 204 so far so good |
//! | `HEAD /v1/segments/{id}` | 200 it is here; 204 a part of it is, and how much; 404 |
//! | `GET /v1/segments/{id}` | the file or a range of it, for those who may |
//! | `GET /v1/health`, `GET /v1/metrics` | whether uploads are begun; counts for Prometheus |
//!
//! An upload goes on where it was cut by `Content-Range` in the request (RFC 9110, section 14.5), as `curl --continue-at` writes it;
//! where that is, answers say in `Upload-Offset`. The page "Shipping" of the book has the whole of it.

mod digest;
mod examine;
mod failure;
mod landing;
mod mark;
mod outgoing;
mod part;
mod request;
mod routes;
mod serve;
mod shelf;
mod shipper;
mod turns;

use domicile_record::format::SegmentId;
use http::HeaderName;

pub use digest::Digest;
pub use landing::{Landing, Limits, Status};
pub use serve::Server;
pub use shelf::Kept;
pub use shipper::{Patience, Progress, Shipped, Shipper, is_passing};

/// So many octets, from the first on, are on disk.
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
/// So many octets has the whole.
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
/// `incomplete`, `stored` or `adopted`.
const SEGMENT_STATE: HeaderName = HeaderName::from_static("segment-state");
/// The edition of a segment that is here.
const SEGMENT_EDITION: HeaderName = HeaderName::from_static("segment-edition");
/// Whether it came from a post: `post`, or `writer`.
const SEGMENT_ORIGIN: HeaderName = HeaderName::from_static("segment-origin");
/// The digest of the whole (RFC 9530).
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// A segment's name, of 64 hexadecimal digits in lower case.
fn segment_id(text: &str) -> Option<SegmentId> {
    domicile::hex::decode(text).map(SegmentId)
}

//! What is answered to which request.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::routing::{MethodRouter, get};
use axum::{Router, response::Response};
use domicile::processing::Processing;
use domicile::{Code, Error};
use domicile_record::format::SegmentId;
use headers::{ContentRange, HeaderMapExt as _};
use http::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::failure::Failure;
use super::landing::{Landing, Status};
use super::outgoing::Outgoing;
use super::request::Sent;
use super::shelf::Kept;
use super::{SEGMENT_EDITION, SEGMENT_ORIGIN, SEGMENT_STATE, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::exchange::Exchange;
use crate::observe;
use crate::{Identity, Peer};

/// How much of a body that was refused is read, so that whoever sends it comes to read why; and for how long.
const DRAINED_BYTES_MAX: u64 = 64 << 20;
const DRAINED_FOR_MAX: Duration = Duration::from_secs(10);

/// What gives the counts, in the text format of Prometheus.
pub(super) type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What requests need.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) landing: Landing,
    /// Who may have segments that are here.
    pub(super) readers: Arc<[Identity]>,
    /// Where they may be for that.
    pub(super) exchange: Exchange,
    pub(super) processing: Processing,
    pub(super) metrics: Option<Metrics>,
}

/// The requests that are understood.
pub(super) fn router(desk: Desk) -> Router {
    let segment: MethodRouter<Desk> = get(read).head(ask).put(take);
    Router::new()
        .route("/v1/segments/{id}", segment)
        .route("/v1/health", get(health))
        .route("/v1/metrics", get(metrics))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .with_state(desk)
}

async fn take(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Response {
    // On its own: what was taken is made durable also when the connection is gone.
    let work = tokio::spawn(async move {
        let outcome = desk.take(&peer, &id, &headers, &mut body).await;
        (outcome, body)
    });
    let outcome = match work.await {
        Ok((outcome, body)) => {
            if !body.is_end_stream() {
                tokio::spawn(drain(body));
            }
            outcome
        }
        Err(source) => {
            Err(Error::new(Code::ShipmentFailed, "an upload ended before its work").because(source).into())
        }
    };
    answer("put", outcome)
}

async fn ask(State(desk): State<Desk>, Extension(peer): Extension<Peer>, Path(id): Path<String>) -> Response {
    let work = tokio::spawn(async move {
        let status = desk.landing.status(peer.identity(), &named(&id)?).await?;
        Ok(described(&status, StatusCode::OK))
    });
    let outcome = work.await.unwrap_or_else(|source| {
        Err(Error::new(Code::ShipmentFailed, "a question ended before its answer").because(source).into())
    });
    answer("head", outcome)
}

async fn read(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    answer("get", desk.read(&peer, &id, &headers).await)
}

async fn health(State(desk): State<Desk>) -> Response {
    let (status, state) = match desk.landing.is_open() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
    };
    let mut response = Response::new(Body::from(format!("{{\"state\":\"{state}\"}}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let Some(metrics) = desk.metrics else { return unknown().await };
    let mut response = Response::new(Body::from(metrics()));
    let text = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

async fn unknown() -> Response {
    let error = Error::new(Code::ShipmentNone, "there is nothing under this path")
        .advise("/v1/segments/{id}, /v1/health, /v1/metrics");
    Failure::from(error).response()
}

async fn not_allowed() -> Response {
    let error =
        Error::new(Code::ShipmentInvalid, "this is not done here").rule("GET, HEAD, and PUT for segments");
    let mut response = Failure::new(StatusCode::METHOD_NOT_ALLOWED, error).response();
    response.headers_mut().entry(ALLOW).or_insert(HeaderValue::from_static("GET, HEAD"));
    response
}

impl Desk {
    async fn take(
        &self,
        peer: &Peer,
        id: &str,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<Response, Failure> {
        let id = named(id)?;
        let sent = Sent::of(headers, self.landing.limits())?;
        let (status, new) = self.landing.take(peer.identity(), &id, sent, body).await?;
        Ok(described(&status, if new { StatusCode::CREATED } else { StatusCode::OK }))
    }

    async fn read(&self, peer: &Peer, id: &str, headers: &HeaderMap) -> Result<Response, Failure> {
        let id = named(id)?;
        if !self.readers.contains(peer.identity()) {
            return Err(Error::new(Code::ShipmentRefused, "this peer sends segments, and reads none")
                .at(peer.identity().to_string())
                .rule("segments are given to those whom this host names as readers")
                .into());
        }
        self.exchange.check(peer.place(), &self.processing)?;
        let (file, kept) = self.landing.open_kept(&id).await?;
        let length = file.metadata().map_err(|source| {
            Error::new(Code::ShipmentFailed, "what is kept here cannot be read").because(source)
        })?;
        part_of(file, length.len(), &kept, headers)
    }
}

/// The file, or one range of it. Of several ranges the whole is given, as RFC 9110 allows.
fn part_of(file: File, length: u64, kept: &Kept, headers: &HeaderMap) -> Result<Response, Failure> {
    let asked = headers.typed_get::<headers::Range>().map(|range| {
        let ranges: Vec<_> = range.satisfiable_ranges(length).collect();
        ranges
    });
    let range = match asked.as_deref() {
        None => None,
        Some([one]) => Some(bounded(*one, length).ok_or_else(|| unsatisfiable(length))?),
        Some([]) => return Err(unsatisfiable(length)),
        Some(_) => None,
    };
    let Range { start, end } = range.clone().unwrap_or(0..length);
    let mut response = Response::new(Body::new(Outgoing::of(Arc::new(file), start..end, drop)));
    if range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(range) = ContentRange::bytes(start..end, length) {
            response.headers_mut().typed_insert(range);
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // What was adopted is another file than the one whose digest is known.
    if !kept.adopted {
        insert(headers, ETAG, &kept.digest.etag());
    }
    Ok(response)
}

/// A range within the file, with at least one octet.
fn bounded(range: (std::ops::Bound<u64>, std::ops::Bound<u64>), length: u64) -> Option<Range<u64>> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match range.0 {
        Included(start) => start,
        Excluded(before) => before.checked_add(1)?,
        Unbounded => 0,
    };
    let end = match range.1 {
        Included(last) => last.saturating_add(1),
        Excluded(end) => end,
        Unbounded => length,
    };
    let end = end.min(length);
    (start < end).then_some(start..end)
}

fn unsatisfiable(length: u64) -> Failure {
    let error = Error::new(Code::ShipmentInvalid, "there is no such range").rule(format!("{length} octets"));
    Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, error)
}

/// The name of a segment.
fn named(id: &str) -> Result<SegmentId, Failure> {
    super::segment_id(id).ok_or_else(|| {
        Error::new(Code::ShipmentInvalid, "this is not the name of a segment")
            .rule("64 hexadecimal digits in lower case")
            .into()
    })
}

/// What is here of a segment, in headers; `status` is that of what is kept.
fn described(status: &Status, kept_status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    let (offset, length, state) = match status {
        Status::Incomplete { offset, length } => (*offset, *length, "incomplete"),
        Status::Kept(kept) => {
            insert(headers, ETAG, &kept.digest.etag());
            headers.insert(SEGMENT_EDITION, HeaderValue::from(kept.edition));
            let origin = if kept.of_a_post { "post" } else { "writer" };
            headers.insert(SEGMENT_ORIGIN, HeaderValue::from_static(origin));
            headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            (kept.length, kept.length, if kept.adopted { "adopted" } else { "stored" })
        }
    };
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    headers.insert(UPLOAD_LENGTH, HeaderValue::from(length));
    headers.insert(SEGMENT_STATE, HeaderValue::from_static(state));
    let is_kept = matches!(status, Status::Kept(_));
    *response.status_mut() = if is_kept { kept_status } else { StatusCode::NO_CONTENT };
    if is_kept {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

fn insert(headers: &mut HeaderMap, name: http::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn answer(method: &'static str, outcome: Result<Response, Failure>) -> Response {
    let response = outcome.unwrap_or_else(|failure| failure.response());
    observe::answered(method, response.status().as_u16());
    response
}

/// Reads on for a while: whoever still sends would otherwise find the connection gone, and no answer.
async fn drain(mut body: Body) {
    let read = async {
        let mut drained = 0;
        while drained < DRAINED_BYTES_MAX {
            let Some(Ok(frame)) = body.frame().await else { return };
            drained += frame.into_data().map_or(0, |data| data.len() as u64);
        }
    };
    // Enough was read then.
    let _ = tokio::time::timeout(DRAINED_FOR_MAX, read).await;
}

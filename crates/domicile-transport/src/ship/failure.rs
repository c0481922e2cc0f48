//! What a request came to when it did not come to what was asked: a status of HTTP, and the words.

use std::error::Error as _;
use std::io;

use axum::body::Body;
use domicile::{Class, Code, Error};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

/// A request that failed, and how far its upload is on disk, if it is one.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) error: Error,
    /// Octets on disk, and octets of the whole.
    pub(super) reached: Option<(u64, u64)>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error, reached: None }
    }

    pub(super) fn reached(mut self, durable: u64, total: u64) -> Self {
        self.reached = Some((durable, total));
        self
    }

    /// Whether what was sent is at fault, so that nothing can come of going on with it.
    pub(super) fn is_of_the_content(&self) -> bool {
        matches!(self.status, StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY)
            || matches!(self.error.code(), Code::ShipmentConflict | Code::ShipmentInvalid)
    }

    /// The answer. What failed here, and not at the other end, is told there without its place, and logged here with it.
    pub(super) fn response(&self) -> Response<Body> {
        let Self { status, error, reached } = self;
        let ours = status.is_server_error();
        if ours {
            tracing::error!(code = %error.code(), %error, cause = error.source().map(tracing::field::display), "a request failed");
        } else {
            tracing::info!(code = %error.code(), %error, rule = error.broken_rule(), status = status.as_u16(), "a request was refused");
        }
        let body = json!({ "error": {
            "code": error.code().as_str(),
            "what": error.what(),
            "where": error.place().filter(|_| !ours),
            "rule": error.broken_rule(),
            "do": error.advice(),
        }});
        let mut response = Response::new(Body::from(format!("{body}\n")));
        *response.status_mut() = *status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(*status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if let Some((durable, total)) = reached {
            headers.insert(super::UPLOAD_OFFSET, HeaderValue::from(*durable));
            headers.insert(super::UPLOAD_LENGTH, HeaderValue::from(*total));
        }
        response
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.code() {
            Code::ShipmentInvalid => StatusCode::BAD_REQUEST,
            Code::ShipmentRefused | Code::HomeMismatch | Code::PeerRefused => StatusCode::FORBIDDEN,
            Code::ShipmentNone => StatusCode::NOT_FOUND,
            Code::ConnectionFailed => StatusCode::REQUEST_TIMEOUT,
            Code::ShipmentOffset | Code::ShipmentConflict => StatusCode::CONFLICT,
            Code::SegmentLimit => StatusCode::PAYLOAD_TOO_LARGE,
            Code::ShipmentUnverified
            | Code::SegmentForeign
            | Code::SegmentUnsupported
            | Code::SegmentCorrupt
            | Code::SegmentUnfinished
            | Code::SegmentTorn
            | Code::NameInvalid
            | Code::NameReserved => StatusCode::UNPROCESSABLE_ENTITY,
            Code::ShipmentBusy => StatusCode::SERVICE_UNAVAILABLE,
            Code::OutputFailed if is_full(&error) => StatusCode::INSUFFICIENT_STORAGE,
            _ if error.class() == Class::KeyService => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}

/// Whether there is no room on the disk.
fn is_full(error: &Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    })
}

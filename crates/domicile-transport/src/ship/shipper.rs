//! The sender's end: one segment at a time to its home, however often the way is cut.

use std::collections::HashMap;
use std::error::Error as _;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domicile::random::{OsRandom, Randomness as _};
use domicile::{Code, Error, Place, Result};
use domicile_record::format::SegmentId;
use http::header::{CONTENT_RANGE, ETAG, TRAILER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::digest::Digest;
use super::examine::{Examined, examine};
use super::landing::blocking;
use super::outgoing::Outgoing;
use super::shelf::Kept;
use super::{REPR_DIGEST, SEGMENT_EDITION, SEGMENT_ORIGIN, SEGMENT_STATE, UPLOAD_LENGTH, UPLOAD_OFFSET};
use crate::HttpConnector;
use crate::exchange::Exchange;
use crate::transport::Transport;

/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How often is tried again, and after how long.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Patience {
    /// So many attempts in a row may come to nothing; 8.
    pub attempts_max: u32,
    /// The longest wait behind the first of them; half a second. It doubles with each, and each waits for a random part of it.
    pub wait_min: Duration,
    /// The longest wait of all; a minute.
    pub wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts_max: 8, wait_min: Duration::from_millis(500), wait_max: Duration::from_secs(60) }
    }
}

/// Ships segments to one host. Before an octet leaves, the handshake has found that host in the region where the segment is at
/// home.
#[derive(Debug)]
pub struct Shipper {
    transport: Transport,
    to: Uri,
    patience: Patience,
    /// A client for each region: a connection is made for what is at home there.
    clients: Mutex<HashMap<Place, Client<HttpConnector, Outgoing>>>,
}

/// A segment that its home has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shipped {
    /// Which.
    pub segment: SegmentId,
    /// What its home says of it. The digest is that of the file here.
    pub kept: Kept,
    /// Whether it came there now; otherwise it was there already.
    pub new: bool,
    /// So many octets were sent, those among them that were lost on the way.
    pub sent: u64,
}

/// Told of octets on their way: how many of how many the home has or will have next.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What an attempt came to.
enum Attempt {
    Done(Box<Kept>, bool),
    /// Not yet, and it is worth trying again; at once if it came further.
    Again {
        error: Error,
        further: bool,
    },
}

/// What the home has.
enum Answer {
    Kept(Kept, StatusCode),
    Incomplete { offset: u64, length: u64 },
    Nothing,
}

impl Shipper {
    /// Ships to `https://HOST[:PORT]`, whose certificate is for that name.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for anything else.
    pub fn new(transport: &Transport, to: &str) -> Result<Self> {
        let invalid = || {
            Error::new(Code::ArgumentInvalid, format!("{to:?} is no address to ship to"))
                .rule("https://HOST[:PORT]")
        };
        let to: Uri = to.parse().map_err(|source| invalid().because(source))?;
        let is_plain = to.path() == "/" && to.query().is_none();
        if to.scheme_str() != Some("https") || to.host().is_none() || !is_plain {
            return Err(invalid());
        }
        let (patience, clients) = (Patience::default(), Mutex::default());
        Ok(Self { transport: transport.clone(), to, patience, clients })
    }

    /// The same with another patience.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Ships the segment in a file, from where its home has it, and returns when the home says that it is on disk there. A file
    /// that is not whole is refused here.
    ///
    /// # Errors
    /// [`SegmentUnfinished`](Code::SegmentUnfinished) and the like for what is not whole;
    /// [`PeerRefused`](Code::PeerRefused) where the other end is not in the segment's home; what the home refuses it for, such as
    /// [`ShipmentConflict`](Code::ShipmentConflict) and [`HomeMismatch`](Code::HomeMismatch); what the last attempt came to,
    /// where patience ended, such as [`ConnectionFailed`](Code::ConnectionFailed).
    pub async fn ship(&self, path: &Path, progress: Option<Progress>) -> Result<Shipped> {
        let name = path.display().to_string();
        self.ship_file(path, progress).await.map_err(|error| error.at(name))
    }

    async fn ship_file(&self, path: &Path, progress: Option<Progress>) -> Result<Shipped> {
        let file = {
            let path = path.to_owned();
            blocking(move || File::open(path)).await?.map_err(unreadable)?
        };
        let file = Arc::new(file);
        let examined = {
            let file = Arc::clone(&file);
            blocking(move || examine(&file)).await??
        };
        let (examined, digest, sent) = (Arc::new(examined), Arc::default(), Arc::default());
        let shipment = Shipment { file, examined, digest, progress, sent };
        let client = self.client(&shipment.examined.header.place);
        let mut in_vain = 0;
        loop {
            let attempt = match self.attempt(&client, &shipment).await {
                Ok(attempt) => attempt,
                Err(error) if is_passing(&error) => Attempt::Again { error, further: false },
                Err(error) => return Err(error),
            };
            match attempt {
                Attempt::Done(kept, new) => {
                    let (segment, sent) = (shipment.examined.header.id, shipment.sent());
                    return Ok(Shipped { segment, kept: *kept, new, sent });
                }
                Attempt::Again { error, further } => {
                    in_vain = if further { 1 } else { in_vain + 1 };
                    if in_vain >= self.patience.attempts_max {
                        return Err(error);
                    }
                    let wait = self.wait(in_vain)?;
                    tracing::info!(%error, attempt = in_vain, wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), "tried again soon");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Asks where the upload is, and sends what is missing.
    async fn attempt(
        &self,
        client: &Client<HttpConnector, Outgoing>,
        shipment: &Shipment,
    ) -> Result<Attempt> {
        let total = shipment.examined.bytes;
        let known = self.request(client, shipment, None).await?;
        let offset = match known {
            Answer::Kept(kept, _) => {
                return shipment.same(kept).await.map(|()| Attempt::Done(Box::new(kept), false));
            }
            Answer::Incomplete { offset, length } if length == total && offset < total => offset,
            Answer::Incomplete { .. } | Answer::Nothing => 0,
        };
        shipment.progress(offset);
        let outcome = self.request(client, shipment, Some(offset)).await;
        match outcome {
            Ok(Answer::Kept(kept, status)) => {
                shipment.same(kept).await?;
                Ok(Attempt::Done(Box::new(kept), status == StatusCode::CREATED))
            }
            Ok(Answer::Incomplete { .. } | Answer::Nothing) => {
                Err(unexpected("the home has less than was sent"))
            }
            Err(error) if is_passing(&error) => {
                // Whether it came further, the home knows.
                let reached = match self.request(client, shipment, None).await {
                    Ok(Answer::Incomplete { offset, .. }) => offset,
                    Ok(Answer::Kept(..)) => total,
                    _ => 0,
                };
                Ok(Attempt::Again { error, further: reached > offset })
            }
            Err(error) => Err(error),
        }
    }

    /// One request: a question, or the octets from an offset on.
    async fn request(
        &self,
        client: &Client<HttpConnector, Outgoing>,
        shipment: &Shipment,
        from: Option<u64>,
    ) -> Result<Answer> {
        let (total, id) = (shipment.examined.bytes, shipment.examined.header.id);
        let uri = format!("https://{}/v1/segments/{id}", self.to.authority().map_or("", |of| of.as_str()));
        let request = Request::builder().uri(uri);
        let request = match from {
            None => request.method(Method::HEAD).body(Outgoing::empty()),
            Some(from) => {
                let (file, on_its_way) = (Arc::clone(&shipment.file), shipment.clone());
                let sent = move |piece: Range<u64>| {
                    let length = piece.end - piece.start;
                    on_its_way.sent.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
                    on_its_way.progress(piece.end);
                };
                let request = request.method(Method::PUT);
                let request = request.header(CONTENT_RANGE, format!("bytes {from}-{}/{total}", total - 1));
                // The first time, the file is read once: what it is, is known when all of it has been sent.
                if from == 0 && shipment.digest.get().is_none() {
                    let digest = Arc::clone(&shipment.digest);
                    let body = Outgoing::with_digest(file, total, digest, sent);
                    request.header(TRAILER, REPR_DIGEST.as_str()).body(body)
                } else {
                    let digest = shipment.digest().await?;
                    request.header(REPR_DIGEST, digest.repr()).body(Outgoing::of(file, from..total, sent))
                }
            }
        };
        let request = request.map_err(|source| unexpected("a request could not be made").because(source))?;
        let response = client.request(request).await.map_err(explained)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|source| cut().because(source))?.to_bytes();
        understood(&Response::from_parts(parts, body))
    }

    fn client(&self, home: &Place) -> Client<HttpConnector, Outgoing> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let made = clients.entry(home.clone()).or_insert_with(|| {
            let connector = self.transport.connector(Exchange::home(home)).protocols(&[b"http/1.1"]);
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(20))
                .build(connector.http())
        });
        made.clone()
    }

    /// A random part of what there is to wait: many who were cut at once do not come back at once.
    fn wait(&self, in_vain: u32) -> Result<Duration> {
        let Patience { wait_min, wait_max, .. } = self.patience;
        let longest =
            wait_min.saturating_mul(1u32.checked_shl(in_vain - 1).unwrap_or(u32::MAX)).min(wait_max);
        let mut random = [0; 4];
        OsRandom.fill(&mut random)?;
        Ok(longest.mul_f64(f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX)))
    }
}

/// A file on its way.
#[derive(Clone)]
struct Shipment {
    file: Arc<File>,
    examined: Arc<Examined>,
    /// Of the file, once all of it was read.
    digest: Arc<OnceLock<Digest>>,
    progress: Option<Progress>,
    sent: Arc<std::sync::atomic::AtomicU64>,
}

impl Shipment {
    fn sent(&self) -> u64 {
        self.sent.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn progress(&self, at: u64) {
        if let Some(progress) = &self.progress {
            progress(at, self.examined.bytes);
        }
    }

    /// The digest, for which the file is read unless it was.
    async fn digest(&self) -> Result<Digest> {
        if let Some(digest) = self.digest.get() {
            return Ok(*digest);
        }
        let file = Arc::clone(&self.file);
        let digest = blocking(move || Digest::of(&file)).await?.map_err(unreadable)?;
        Ok(*self.digest.get_or_init(|| digest))
    }

    /// That the home has this file, and no other.
    async fn same(&self, kept: Kept) -> Result<()> {
        let digest = self.digest().await?;
        if kept.digest == digest {
            return Ok(());
        }
        Err(Error::new(Code::ShipmentConflict, "the home has another file under the name of this segment")
            .rule(format!("BLAKE3 here: {digest}; there: {}", kept.digest))
            .advise("compare the two: one of them was changed, or is of another edition"))
    }
}

/// What an answer says.
fn understood(response: &Response<Bytes>) -> Result<Answer> {
    let (status, headers) = (response.status(), response.headers());
    match status {
        StatusCode::OK | StatusCode::CREATED => {
            let kept = kept(headers).ok_or_else(|| unexpected("the home does not say what it has"))?;
            Ok(Answer::Kept(kept, status))
        }
        StatusCode::NO_CONTENT => {
            let reached = number(headers, &UPLOAD_OFFSET).zip(number(headers, &UPLOAD_LENGTH));
            let (offset, length) =
                reached.ok_or_else(|| unexpected("the home does not say how far it is"))?;
            Ok(Answer::Incomplete { offset, length })
        }
        StatusCode::NOT_FOUND => Ok(Answer::Nothing),
        _ => Err(refusal(status, response.body())),
    }
}

fn kept(headers: &HeaderMap) -> Option<Kept> {
    let text = |name| headers.get(name)?.to_str().ok();
    Some(Kept {
        length: number(headers, &UPLOAD_LENGTH)?,
        digest: Digest::from_etag(text(&ETAG)?)?,
        edition: text(&SEGMENT_EDITION)?.parse().ok()?,
        adopted: match text(&SEGMENT_STATE)? {
            "adopted" => true,
            "stored" => false,
            _ => return None,
        },
        of_a_post: text(&SEGMENT_ORIGIN)? == "post",
    })
}

fn number(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// What the home says is wrong, in its own words.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Said {
        error: Words,
    }
    #[derive(Deserialize)]
    struct Words {
        code: String,
        what: String,
        r#where: Option<String>,
        rule: Option<String>,
        r#do: Option<String>,
    }
    let Ok(Said { error: said }) = serde_json::from_slice(body) else {
        // To HEAD there is no body.
        let code = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Code::ShipmentBusy,
            StatusCode::FORBIDDEN => Code::ShipmentRefused,
            StatusCode::CONFLICT => Code::ShipmentConflict,
            StatusCode::UNPROCESSABLE_ENTITY => Code::ShipmentUnverified,
            _ => Code::ShipmentFailed,
        };
        return Error::new(code, format!("the home answers {status}")).advise("its log says more");
    };
    // What failed there is no failure of this host's own key store or disk.
    let code = match Code::named(&said.code) {
        Some(code) if !status.is_server_error() || code == Code::ShipmentBusy => code,
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Code::ShipmentBusy,
        _ => Code::ShipmentFailed,
    };
    let mut error = Error::new(code, format!("the home says: {}", said.what));
    if let Some(place) = said.r#where {
        error = error.at(place);
    }
    if let Some(rule) = said.rule {
        error = error.rule(rule);
    }
    match said.r#do {
        Some(advice) => error.advise(advice),
        None => error,
    }
}

/// Whether what came of shipping may be otherwise in a while: the home was out of reach, full, or had too much to do.
#[must_use]
pub fn is_passing(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::ConnectionFailed
            | Code::ConnectionEnded
            | Code::ShipmentBusy
            | Code::ShipmentFailed
            | Code::ShipmentOffset
            | Code::ShipmentUnverified
    )
}

/// What kept a request from being answered: what the handshake said, if it was that.
fn explained(error: hyper_util::client::legacy::Error) -> Error {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(ours) = source.downcast_ref::<Error>() {
            return ours.again();
        }
        if let Some(ours) = source.downcast_ref::<io::Error>().and_then(crate::error_of) {
            return ours.again();
        }
        cause = source.source();
    }
    cut().because(error)
}

fn cut() -> Error {
    Error::new(Code::ConnectionFailed, "the connection was cut before an answer came")
        .advise("see that the home listens, and what lies between")
}

fn unexpected(what: &str) -> Error {
    Error::new(Code::ShipmentFailed, what.to_owned()).advise("see what listens there: its log says more")
}

fn unreadable(source: io::Error) -> Error {
    Error::new(Code::InputFailed, "the segment cannot be read").because(source)
}

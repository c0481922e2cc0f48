//! Requests and answers of stand-ins for services: one a connection.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a client sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// What stands between the method and the version.
    pub path: String,
    /// What was sent with it; null where that is no JSON.
    pub body: Value,
    headers: Vec<(String, String)>,
}

impl Request {
    /// Reads one; none where the client goes before it is whole.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut received = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let length = stream.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
            received.extend(chunk.iter().take(length));
            let text = String::from_utf8_lossy(&received);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let mut lines = head.lines();
            let mut words = lines.next()?.split(' ').map(str::to_owned);
            let header = |line: &str| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_ascii_lowercase(), value.trim().to_owned()))
            };
            let request = Self {
                method: words.next()?,
                path: words.next()?,
                body: serde_json::from_str(body).unwrap_or(Value::Null),
                headers: lines.filter_map(header).collect(),
            };
            let expected = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= expected {
                return Some(request);
            }
        }
    }

    /// The value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }
}

/// One answer of a server that says what a test has it say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reply {
    /// A status and a body.
    Json(u16, Value),
    /// A status and a body that may be anything.
    Text(u16, String),
    /// A status, further headers, each with its end of line, and no body.
    Headers(u16, String),
    /// Octets without end, or of a length that is announced and never sent.
    Endless {
        /// What is announced, if anything is.
        announced: Option<u64>,
    },
    /// Nothing, for as long as the client waits.
    Silence,
    /// The connection ends.
    HangUp,
}

impl Reply {
    /// Sends it, with these headers, each with its end of line.
    pub async fn write(self, stream: &mut (impl AsyncWrite + Unpin), headers: &str) {
        let (status, headers, body) = match self {
            Reply::Json(status, body) => (status, headers.to_owned(), body.to_string()),
            Reply::Text(status, body) => (status, headers.to_owned(), body),
            Reply::Headers(status, more) => (status, format!("{headers}{more}"), String::new()),
            Reply::HangUp => return,
            Reply::Silence => {
                tokio::time::sleep(Duration::from_secs(60)).await;
                return;
            }
            Reply::Endless { announced } => {
                let length = match announced {
                    Some(length) => format!("content-length: {length}"),
                    None => "connection: close".to_owned(),
                };
                let head = format!("HTTP/1.1 200 As told\r\n{headers}{length}\r\n\r\n");
                let mut sent = stream.write_all(head.as_bytes()).await;
                while sent.is_ok() {
                    sent = stream.write_all(&[b' '; 4096]).await;
                }
                return;
            }
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} As told\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        // The client may have gone.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

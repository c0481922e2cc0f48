//! Questions to Vault and its answers: the token, time-outs, a few tries, answers of bounded size.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, Method, Response};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};
use zeroize::Zeroizing;

use super::failure::{failed, lost};
use crate::error::{Code, Error, Result};
use crate::kms::VaultOptions;
use crate::kms::credential::Place;
use crate::kms::endpoint::check_endpoint;
use crate::random::Randomness;

// A key is waited for by whoever opens or seals: an answer after six seconds is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt at most this, and before the third at most twice, by chance: time-outs leave room for it.
const BACKOFF_MS: u64 = 200;

/// No answer is longer: a signing key with a thousand versions takes 200 KB.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
const CA_BYTES_MAX: u64 = 1 << 20;
/// The environment's word for the token, as Vault's own program has it.
const TOKEN_VARIABLE: &str = "VAULT_TOKEN";

/// What is asked.
pub(super) struct Question<'a> {
    /// In words, for errors.
    pub(super) what: &'a str,
    /// What stands behind `/v1/`.
    pub(super) path: String,
    /// A JSON object to be posted, wiped when nobody needs it any longer; without one, something is read.
    pub(super) body: Option<Bytes>,
    /// What in the body no error may repeat.
    pub(super) secret: Option<&'a str>,
    /// Whether it does something twice when it is asked twice.
    pub(super) once: bool,
}

impl<'a> Question<'a> {
    /// A look at something.
    pub(super) fn read(what: &'a str, path: String) -> Self {
        Self { what, path, body: None, secret: None, once: false }
    }

    /// A change that is the same when it is made again, or a calculation.
    pub(super) fn write(what: &'a str, path: String, body: Zeroizing<String>) -> Self {
        Self { body: Some(Bytes::from_owner(Octets(body))), ..Self::read(what, path) }
    }
}

/// A text as octets.
struct Octets(Zeroizing<String>);

impl AsRef<[u8]> for Octets {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// An answer, whose text is wiped: it may hold a key.
struct Answer {
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

/// Who is asked, and as whom.
pub(super) struct Http {
    options: VaultOptions,
    address: String,
    client: OnceCell<Client>,
    login: Mutex<Option<Login>>,
    randomness: Arc<dyn Randomness>,
}

/// What an AppRole gave.
struct Login {
    token: HeaderValue,
    /// Another is asked for before this one ends.
    until: Option<Instant>,
}

#[derive(Deserialize)]
struct LoginAnswer {
    auth: LoginAuth,
}

#[derive(Deserialize)]
struct LoginAuth {
    client_token: String,
    #[serde(default)]
    lease_duration: u64,
}

impl Http {
    /// Nothing is asked yet.
    pub(super) fn new(options: VaultOptions, randomness: Arc<dyn Randomness>) -> Result<Self> {
        let address = options.address.trim_end_matches('/').to_owned();
        check_endpoint(&address)?;
        if address.contains(['@', '?', '#']) || address.chars().any(|c| c.is_whitespace() || c.is_control()) {
            // It may be a password.
            return Err(Error::new(Code::ConfigInvalid, "the address of Vault is more than an address")
                .rule("an address is https://HOST:PORT, without a user, a query or a fragment"));
        }
        if options.role_id.is_some() != options.secret_id_file.is_some() {
            return Err(Error::new(
                Code::ConfigInvalid,
                "an AppRole is `role_id` and `secret_id_file` together",
            ));
        }
        if options.role_id.is_some() && options.token_file.is_some() {
            return Err(Error::new(
                Code::ConfigInvalid,
                "there is a `token_file` and an AppRole: which is it?",
            ));
        }
        Ok(Self { options, address, client: OnceCell::new(), login: Mutex::new(None), randomness })
    }

    /// Asks, and hands out the text of the answer if it is a good one.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Zeroizing<Vec<u8>>> {
        // The client's timers are tokio's, and it would panic without them.
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(Code::KmsUnavailable, "Vault is asked on a tokio runtime alone"));
        }
        match tokio::time::timeout(OPERATION_TIMEOUT, self.ask_as_somebody(question)).await {
            Ok(answer) => answer,
            Err(_) => Err(lost(question.what, "no answer in time")),
        }
    }

    async fn ask_as_somebody(&self, question: &Question<'_>) -> Result<Zeroizing<Vec<u8>>> {
        let token = self.token(None).await?;
        let answer = self.ask_often(question, Some(&token)).await?;
        if answer.status != 403 || self.options.role_id.is_none() {
            return good(question, answer, Some(&token));
        }
        // The login may have been ended before its time. If it is the policy, another changes nothing.
        let token = self.token(Some(&token)).await?;
        let answer = self.ask_often(question, Some(&token)).await?;
        good(question, answer, Some(&token))
    }

    /// Any answer that is not to be waited out, or the last.
    async fn ask_often(&self, question: &Question<'_>, token: Option<&HeaderValue>) -> Result<Answer> {
        let attempts_max = if question.once { 1 } else { ATTEMPTS_MAX };
        let mut attempt = 1;
        loop {
            let answer = self.ask_once(question, token).await;
            let again = match &answer {
                Ok(answer) => matches!(answer.status, 412 | 429 | 500..),
                Err(error) => error.is_retryable(),
            };
            if !again || attempt >= attempts_max {
                return answer;
            }
            tokio::time::sleep(self.pause(attempt)?).await;
            attempt += 1;
        }
    }

    fn pause(&self, attempt: u32) -> Result<Duration> {
        let mut chance = [0; 4];
        self.randomness.fill(&mut chance)?;
        let most = BACKOFF_MS * u64::from(attempt);
        Ok(Duration::from_millis(u64::from(u32::from_be_bytes(chance)) % (most + 1)))
    }

    async fn ask_once(&self, question: &Question<'_>, token: Option<&HeaderValue>) -> Result<Answer> {
        let Question { what, path, body, .. } = question;
        let client = self.client.get_or_try_init(async || self.connect()).await?;
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = client
            .request(method, format!("{}/v1/{path}", self.address))
            .timeout(ATTEMPT_TIMEOUT)
            .header("X-Vault-Request", "true");
        if let Some(token) = token {
            request = request.header("X-Vault-Token", token.clone());
        }
        if let Some(namespace) = &self.options.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = request.send().await.map_err(|error| lost(what, &why(error)))?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: bounded(what, response).await? })
    }

    /// A client that goes where it was told and nowhere else: by no proxy, and behind no redirection.
    fn connect(&self) -> Result<Client> {
        let mut builder = Client::builder()
            .tls_backend_rustls()
            .https_only(self.address.starts_with("https://"))
            .http1_only()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT);
        if let Some(path) = &self.options.ca_file {
            let place = path.display().to_string();
            let mut pem = Vec::new();
            File::open(path).and_then(|file| file.take(CA_BYTES_MAX).read_to_end(&mut pem)).map_err(
                |source| {
                    Error::new(Code::KmsUnavailable, "the certificates for Vault cannot be read")
                        .at(place.clone())
                        .because(source)
                },
            )?;
            let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if certificates.is_empty() {
                return Err(Error::new(
                    Code::ConfigInvalid,
                    "there are no certificates for Vault in this file",
                )
                .at(place)
                .rule("certificates are PEM, at most 1 MiB"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        builder.build().map_err(|error| lost("connect", &why(error)))
    }

    /// The token, as it stands now: agents replace files. With an AppRole, the one of its login, which is made again when
    /// the last has nearly ended, or was `refused`.
    async fn token(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue> {
        let Some(role_id) = &self.options.role_id else {
            let place = match &self.options.token_file {
                Some(path) => Place::File(path),
                None => Place::Env(TOKEN_VARIABLE),
            };
            return header(&place.read("token")?);
        };
        let mut login = self.login.lock().await;
        if let Some(login) = &*login
            && refused != Some(&login.token)
            && login.until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(login.token.clone());
        }
        let new = self.log_in(role_id).await?;
        let token = new.token.clone();
        *login = Some(new);
        Ok(token)
    }

    async fn log_in(&self, role_id: &str) -> Result<Login> {
        let Some(path) = &self.options.secret_id_file else {
            return Err(Error::new(Code::ConfigInvalid, "an AppRole has no `secret_id_file`"));
        };
        let secret_id = Place::File(path).read("secret id")?;
        let secret_id = std::str::from_utf8(&secret_id).map_err(|_| unreadable_token("secret id"))?;
        let quoted = |text: &str| serde_json::to_string(text).map(Zeroizing::new);
        let (role_id, quoted_id) = quoted(role_id)
            .and_then(|role| Ok((role, quoted(secret_id)?)))
            .map_err(|_| unreadable_token("role"))?;
        let body = format!("{{\"role_id\":{},\"secret_id\":{}}}", *role_id, *quoted_id);
        let path = format!("auth/{}/login", self.options.role_mount);
        let question = Question::write("log this host in", path, Zeroizing::new(body));
        let question = Question { secret: Some(secret_id), ..question };
        let begun = Instant::now();
        let answer = good(&question, self.ask_often(&question, None).await?, None)?;
        let answer: LoginAnswer = serde_json::from_slice(&answer).map_err(|_| misread("a login"))?;
        let token = Zeroizing::new(answer.auth.client_token);
        // Two thirds of its time; none where it does not end.
        let lease = answer.auth.lease_duration;
        let until = (lease > 0).then(|| begun.checked_add(Duration::from_secs(lease / 3 * 2))).flatten();
        Ok(Login { token: header(token.as_bytes())?, until })
    }
}

fn header(token: &[u8]) -> Result<HeaderValue> {
    let mut header = HeaderValue::from_bytes(token).map_err(|_| unreadable_token("token"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn unreadable_token(what: &str) -> Error {
    Error::new(Code::ConfigInvalid, format!("this is no {what}")).rule("it is one line of text")
}

/// The text of a good answer; any other becomes an error that repeats no secret.
fn good(question: &Question<'_>, answer: Answer, token: Option<&HeaderValue>) -> Result<Zeroizing<Vec<u8>>> {
    if (200..=299).contains(&answer.status) {
        return Ok(answer.body);
    }
    let secrets = [token.map(HeaderValue::as_bytes), question.secret.map(str::as_bytes)];
    Err(failed(question.what, answer.status, &answer.body, &secrets))
}

/// What an answer holds, if that is not too much: nothing is kept for a length that was not sent.
async fn bounded(what: &str, mut response: Response) -> Result<Zeroizing<Vec<u8>>> {
    let announced = response.content_length().unwrap_or(0);
    if announced > ANSWER_BYTES_MAX as u64 {
        return Err(too_long());
    }
    // Room for all that was announced, so that what is secret in it is not moved about.
    let room = usize::try_from(announced).unwrap_or(ANSWER_BYTES_MAX).max(16 * 1024);
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(what, &why(error)))? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(too_long());
        }
        if body.capacity() - body.len() < chunk.len() {
            let mut larger = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
            larger.extend_from_slice(&body);
            body = larger;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn too_long() -> Error {
    misread("more than an answer").rule(format!("an answer has at most {ANSWER_BYTES_MAX} octets"))
}

/// An answer that cannot be read. It may have been a key, and is not shown.
pub(super) fn misread(what: &str) -> Error {
    Error::new(Code::KmsUnverified, format!("Vault answered with {what} that is none"))
        .advise("see what stands between this host and the service")
}

/// Without the address, which the configuration knows.
fn why(error: reqwest::Error) -> String {
    crate::kms::said::chain(&error.without_url())
}

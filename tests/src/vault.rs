//! A stand-in for the Transit engine of HashiCorp Vault and OpenBao, over HTTP: it keeps keys with their versions, wraps with
//! AES-GCM under associated data, signs, and says what Transit says when it does not. It is written after the documentation
//! and the sources of OpenBao, and is no Vault.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64ct::{Base64, Encoding};
use domicile::random::{OsRandom, Randomness};
use ed25519_dalek::Signer;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::http::{Reply, Request};
use crate::program::repository;

/// The token that everything is allowed under.
pub const TOKEN: &str = "hvs.CAESIJ-a-token-of-the-tests";

/// A Transit engine, mounted at `transit`, and an AppRole, at `auth/approle`.
#[derive(Debug)]
pub struct Vault {
    address: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

type Script = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

#[derive(Default)]
struct State {
    keys: BTreeMap<String, Key>,
    tokens: BTreeSet<String>,
    /// What no token may do, by the beginning of its path.
    forbidden: Vec<String>,
    role: Option<(String, String, u64)>,
    namespace: Option<String>,
    ignores_associated_data: bool,
    requests: Vec<Request>,
    script: Option<Arc<Script>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// A key with its versions, from 1.
struct Key {
    kind: String,
    /// Those that were trimmed are none.
    versions: Vec<Option<[u8; 32]>>,
    min_decryption_version: usize,
    min_encryption_version: usize,
    min_available_version: usize,
    /// What is said of it besides.
    flags: BTreeMap<String, Value>,
}

impl Vault {
    /// Starts one without keys, that believes [`TOKEN`].
    pub async fn start() -> Self {
        Self::start_with("http", None).await
    }

    /// The same over TLS, under a certificate of the authority in [`authorities`].
    pub async fn start_over_tls() -> Self {
        let chain =
            CertificateDer::pem_file_iter(tls("server.pem")).unwrap().collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(tls("server.key")).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let vault = Self::start_with("https", Some(TlsAcceptor::from(Arc::new(config)))).await;
        vault.make_both();
        vault
    }

    async fn start_with(scheme: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        state.lock().unwrap().tokens.insert(TOKEN.to_owned());
        let server = tokio::spawn({
            let state = state.clone();
            async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (state, tls) = (state.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(&state, &mut stream).await,
                            Some(tls) => {
                                // A client may think better of it.
                                if let Ok(mut stream) = tls.accept(stream).await {
                                    serve(&state, &mut stream).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { address, state, server }
    }

    /// Starts one with a root key `domicile-eu` and a signing key `domicile-eu-signing`.
    pub async fn with_keys() -> Self {
        let vault = Self::start().await;
        vault.make_both();
        vault
    }

    fn make_both(&self) {
        self.make("domicile-eu", "aes256-gcm96");
        self.make("domicile-eu-signing", "ed25519");
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes a key, as its operator would.
    pub fn make(&self, name: &str, kind: &str) {
        let key = Key {
            kind: kind.to_owned(),
            versions: vec![Some(material())],
            min_decryption_version: 1,
            min_encryption_version: 0,
            min_available_version: 0,
            flags: BTreeMap::new(),
        };
        self.state().keys.insert(name.to_owned(), key);
    }

    /// Rotates a key, as its operator would.
    pub fn rotate(&self, name: &str) {
        self.state().keys.get_mut(name).unwrap().versions.push(Some(material()));
    }

    /// Destroys a key, as its operator would.
    pub fn delete(&self, name: &str) {
        self.state().keys.remove(name);
    }

    /// Says something else of a key.
    pub fn flag(&self, name: &str, flag: &str, value: Value) {
        self.state().keys.get_mut(name).unwrap().flags.insert(flag.to_owned(), value);
    }

    /// Ends a token.
    pub fn revoke(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// Believes another token.
    pub fn believe(&self, token: &str) {
        self.state().tokens.insert(token.to_owned());
    }

    /// Lets nobody do what begins with this path.
    pub fn forbid(&self, path: &str) {
        self.state().forbidden.push(path.to_owned());
    }

    /// Lets an AppRole log in, for so many seconds.
    pub fn role(&self, role_id: &str, secret_id: &str, lease: u64) {
        self.state().role = Some((role_id.to_owned(), secret_id.to_owned(), lease));
    }

    /// Answers in this namespace alone.
    pub fn namespace(&self, name: &str) {
        self.state().namespace = Some(name.to_owned());
    }

    /// Is as old as services that did not know `associated_data`, and passed over it.
    pub fn ignore_associated_data(&self) {
        self.state().ignores_associated_data = true;
    }

    /// Answers as this has it, where it does: it is given the request, and how often its path was asked before.
    pub fn script(&self, script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) {
        self.state().script = Some(Arc::new(script));
    }

    /// What was asked under a path, in order.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<Request> {
        let path = format!("/v1/{path}");
        self.state().requests.iter().filter(|request| request.path == path).cloned().collect()
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The authority that the certificate of [`Vault::start_over_tls`] comes from, and one that it does not.
#[must_use]
pub fn authorities() -> [PathBuf; 2] {
    ["ca.pem", "another-ca.pem"].map(tls)
}

fn tls(name: &str) -> PathBuf {
    repository().join("tests/vectors/tls").join(name)
}

async fn serve(state: &Mutex<State>, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    if let Some(request) = Request::read(stream).await {
        answer(state, &request).write(stream, "content-type: application/json\r\n").await;
    }
}

fn material() -> [u8; 32] {
    let mut bytes = [0; 32];
    OsRandom.fill(&mut bytes).unwrap();
    bytes
}

/// An error as Vault writes it.
#[must_use]
pub fn error(status: u16, said: &str) -> Reply {
    let errors = if said.is_empty() { vec![] } else { vec![said] };
    Reply::Json(status, json!({ "errors": errors }))
}

fn data(data: &Value) -> Reply {
    Reply::Json(200, json!({ "request_id": "r-1", "lease_id": "", "renewable": false, "data": data }))
}

fn answer(state: &Mutex<State>, request: &Request) -> Reply {
    let mut state = state.lock().unwrap();
    let before = state.requests.iter().filter(|one| one.path == request.path).count();
    state.requests.push(request.clone());
    if let Some(reply) = state.script.clone().and_then(|script| script(request, before)) {
        return reply;
    }
    if state.namespace.as_deref() != request.header("x-vault-namespace") {
        return error(403, "permission denied");
    }
    let Some(path) = request.path.strip_prefix("/v1/") else { return error(404, "") };
    if path == "auth/approle/login" {
        return log_in(&mut state, &request.body);
    }
    let known = request.header("x-vault-token").is_some_and(|token| state.tokens.contains(token));
    if !known || state.forbidden.iter().any(|forbidden| path.starts_with(forbidden.as_str())) {
        return error(403, "1 error occurred:\n\t* permission denied\n\n");
    }
    let Some(path) = path.strip_prefix("transit/") else {
        return error(404, "no handler for route");
    };
    let ignores = state.ignores_associated_data;
    let body = &request.body;
    match (request.method.as_str(), path.split('/').collect::<Vec<_>>().as_slice()) {
        ("GET", ["keys", name]) => match state.keys.get(*name) {
            Some(key) => describe(name, key),
            None => error(404, ""),
        },
        ("POST", [operation, name]) => match (*operation, state.keys.get(*name)) {
            ("encrypt", Some(key)) => encrypt(key, body, ignores),
            ("decrypt", Some(key)) => decrypt(key, body, ignores),
            ("sign", Some(key)) => sign(key, body),
            ("encrypt" | "decrypt" | "sign", None) => error(400, "encryption key not found"),
            _ => error(404, "unsupported path"),
        },
        ("POST", ["keys", name, step]) => match (*step, state.keys.get_mut(*name)) {
            ("rotate", Some(key)) => {
                key.versions.push(Some(material()));
                Reply::Text(204, String::new())
            }
            ("config", Some(key)) => configure(name, key, body),
            ("trim", Some(key)) => trim(name, key, body),
            (_, None) => error(400, "invalid key name"),
            _ => error(404, "unsupported path"),
        },
        _ => error(405, "unsupported operation"),
    }
}

fn log_in(state: &mut State, body: &Value) -> Reply {
    let Some((role_id, secret_id, lease)) = state.role.clone() else { return error(400, "invalid role ID") };
    if body.get("role_id") != Some(&json!(role_id)) || body.get("secret_id") != Some(&json!(secret_id)) {
        return error(400, "invalid role or secret ID");
    }
    let token = format!("hvs.login-{}", state.requests.len());
    state.tokens.insert(token.clone());
    let auth =
        json!({ "client_token": token, "lease_duration": lease, "renewable": true, "token_type": "service" });
    Reply::Json(200, json!({ "auth": auth, "data": null }))
}

fn describe(name: &str, key: &Key) -> Reply {
    let versions = key.versions.iter().enumerate();
    let held = versions.filter_map(|(at, material)| Some((at + 1, material.as_ref()?)));
    let held = held.filter(|(version, _)| *version >= key.min_decryption_version);
    let keys: BTreeMap<String, Value> =
        held.map(|(version, material)| (version.to_string(), version_of(&key.kind, material))).collect();
    let mut description = json!({
        "name": name, "type": key.kind, "derived": false, "exportable": false,
        "allow_plaintext_backup": false, "deletion_allowed": false, "imported_key": false,
        "latest_version": key.versions.len(), "min_decryption_version": key.min_decryption_version,
        "min_encryption_version": key.min_encryption_version, "min_available_version": key.min_available_version,
        "supports_encryption": true, "supports_decryption": true, "supports_signing": true,
        "supports_derivation": true, "auto_rotate_period": 0, "keys": keys,
    });
    for (flag, value) in &key.flags {
        description.as_object_mut().unwrap().insert(flag.clone(), value.clone());
    }
    data(&description)
}

fn version_of(kind: &str, material: &[u8; 32]) -> Value {
    let public = match kind {
        "ed25519" => {
            let key = ed25519_dalek::SigningKey::from_bytes(material);
            Base64::encode_string(key.verifying_key().as_bytes())
        }
        "ecdsa-p256" => ecdsa(material).verifying_key().to_public_key_pem(LineEnding::LF).unwrap(),
        _ => return json!(1_764_230_400),
    };
    json!({ "creation_time": "2026-11-27T08:00:00Z", "name": kind, "public_key": public })
}

fn ecdsa(material: &[u8; 32]) -> p256::ecdsa::SigningKey {
    // A secret scalar is below the order of the group, which begins with 32 ones.
    let mut scalar = *material;
    scalar.iter_mut().take(1).for_each(|octet| *octet &= 0x7f);
    p256::ecdsa::SigningKey::from_slice(&scalar).unwrap()
}

fn field(body: &Value, name: &str) -> Option<Vec<u8>> {
    Base64::decode_vec(body.get(name).and_then(Value::as_str).unwrap_or_default()).ok()
}

fn encrypt(key: &Key, body: &Value, ignores: bool) -> Reply {
    let Some(plaintext) = field(body, "plaintext") else {
        return error(400, "failed to base64-decode plaintext");
    };
    let Some(aad) = field(body, "associated_data") else {
        return error(400, "failed to base64-decode associated_data");
    };
    let version = key.versions.len();
    let nonce = *material().first_chunk::<12>().unwrap();
    let aad = if ignores { &[][..] } else { &aad };
    let cipher = cipher(key, version).unwrap();
    let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: &plaintext, aad }).unwrap();
    let ciphertext = format!("vault:v{version}:{}", Base64::encode_string(&[&nonce[..], &sealed].concat()));
    data(&json!({ "ciphertext": ciphertext, "key_version": version }))
}

fn cipher(key: &Key, version: usize) -> Option<Aes256Gcm> {
    let material = key.versions.get(version.checked_sub(1)?)?.as_ref()?;
    Some(Aes256Gcm::new_from_slice(material).unwrap())
}

fn decrypt(key: &Key, body: &Value, ignores: bool) -> Reply {
    let ciphertext = body.get("ciphertext").and_then(Value::as_str).unwrap_or_default();
    let Some(rest) = ciphertext.strip_prefix("vault:v") else {
        return error(400, "invalid ciphertext: no prefix");
    };
    let Some((version, text)) = rest.split_once(':') else {
        return error(400, "invalid ciphertext: wrong number of fields");
    };
    let Ok(version) = version.parse::<usize>() else {
        return error(400, "invalid ciphertext: version number could not be decoded");
    };
    // As Transit has it: nought is the first.
    let version = version.max(1);
    if version > key.versions.len() {
        return error(400, "invalid ciphertext: version is too new");
    }
    if version < key.min_decryption_version {
        return error(400, "ciphertext or signature version is disallowed by policy (too old)");
    }
    let Ok(sealed) = Base64::decode_vec(text) else {
        return error(400, "invalid ciphertext: could not decode base64");
    };
    let (Some((nonce, sealed)), Some(aad)) =
        (sealed.split_first_chunk::<12>(), field(body, "associated_data"))
    else {
        return error(400, "invalid ciphertext length");
    };
    let aad = if ignores { &[][..] } else { &aad };
    let Some(cipher) = cipher(key, version) else { return error(500, "internal error") };
    match cipher.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad }) {
        Ok(plaintext) => data(&json!({ "plaintext": Base64::encode_string(&plaintext) })),
        Err(_) => error(400, "cipher: message authentication failed"),
    }
}

fn sign(key: &Key, body: &Value) -> Reply {
    let Some(input) = field(body, "input") else { return error(400, "unable to decode input as base64") };
    let asked = body.get("key_version").and_then(Value::as_u64).unwrap_or(0);
    let version = match usize::try_from(asked).unwrap() {
        0 => key.versions.len(),
        asked => asked,
    };
    let Some(Some(material)) = key.versions.get(version - 1) else {
        return error(400, "requested version for signing is higher than the latest key version");
    };
    let signature = match key.kind.as_str() {
        "ed25519" => ed25519_dalek::SigningKey::from_bytes(material).sign(&input).to_bytes().to_vec(),
        "ecdsa-p256" => {
            let prehashed = body.get("prehashed") == Some(&json!(true));
            let digest = if prehashed { input } else { Sha256::digest(&input).to_vec() };
            let low: p256::ecdsa::Signature = ecdsa(material).sign_prehash(&digest).unwrap();
            let low = low.normalize_s();
            // Whichever of the two it happens to be.
            let high = p256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
            let signature = if digest.first().is_some_and(|octet| octet % 2 == 0) { low } else { high };
            signature.to_der().as_bytes().to_vec()
        }
        kind => return error(400, &format!("key type {kind} does not support signing")),
    };
    let signature = format!("vault:v{version}:{}", Base64::encode_string(&signature));
    data(&json!({ "signature": signature, "key_version": version }))
}

fn number(body: &Value, name: &str) -> Option<usize> {
    usize::try_from(body.get(name)?.as_u64()?).ok()
}

fn configure(name: &str, key: &mut Key, body: &Value) -> Reply {
    let decryption = number(body, "min_decryption_version").unwrap_or(key.min_decryption_version);
    let encryption = number(body, "min_encryption_version").unwrap_or(key.min_encryption_version);
    if decryption > key.versions.len() || encryption > key.versions.len() {
        return error(400, "cannot set min decryption version, latest key version is lower");
    }
    if encryption > 0 && encryption < decryption {
        return error(400, "cannot set min encryption/decryption values");
    }
    if key.min_available_version > decryption || key.min_available_version > encryption {
        return error(400, "min decryption version should not be less then min available version");
    }
    (key.min_decryption_version, key.min_encryption_version) = (decryption.max(1), encryption);
    describe(name, key)
}

fn trim(name: &str, key: &mut Key, body: &Value) -> Reply {
    let Some(available) = number(body, "min_available_version") else {
        return error(400, "missing min_available_version");
    };
    let refused = match () {
        () if available < key.min_available_version => "minimum available version cannot be decremented",
        () if key.min_encryption_version == 0 => {
            "minimum available version cannot be set when minimum encryption version is not set"
        }
        () if available > key.min_encryption_version => {
            "minimum available version cannot be greater than minmum encryption version"
        }
        () if available > key.min_decryption_version => {
            "minimum available version cannot be greater than minimum decryption version"
        }
        () if available == 0 => "minimum available version should be positive",
        () => {
            key.min_available_version = available;
            key.versions.iter_mut().take(available - 1).for_each(|material| *material = None);
            return describe(name, key);
        }
    };
    error(400, refused)
}

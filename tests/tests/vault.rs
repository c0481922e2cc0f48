//! The Transit engine of HashiCorp Vault and OpenBao as key service, over real HTTP against a stand-in: no Vault was asked.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domicile::context::{EncryptionContext, KeyKind};
use domicile::kms::{Kms, VaultKms, VaultOptions, VerifyingKey, conformance, conformance_of_rotation};
use domicile::{Code, Error};
use domicile_tests::http::Reply;
use domicile_tests::journey;
use domicile_tests::softhsm::write_private;
use domicile_tests::vault::{TOKEN, Vault, authorities, error};
use serde_json::{Value, json};

const REGION: &str = "eu-central-1";
const ROOT: &str = "domicile-eu";
const SIGNING: &str = "domicile-eu-signing";

fn context() -> EncryptionContext {
    EncryptionContext {
        region: REGION.parse().unwrap(),
        owner: domicile::TenantId::REGION,
        period: "2026-11".parse().unwrap(),
        kind: KeyKind::Branch,
        version: 1,
        generation: 1,
        share: None,
    }
}

fn kms(options: VaultOptions) -> VaultKms {
    VaultKms::new(REGION.parse().unwrap(), options).unwrap()
}

/// How a service is reached, under the token in a file of this directory.
fn options(vault: &Vault, directory: &Path) -> VaultOptions {
    let token = directory.join("token");
    write_private(&token, &format!("{TOKEN}\n"));
    VaultOptions { token_file: Some(token), ..VaultOptions::new(vault.address(), ROOT, SIGNING) }
}

/// A service with a root key and a signing key, and how it is asked.
async fn service() -> (Vault, VaultKms, tempfile::TempDir) {
    let (vault, directory) = (Vault::with_keys().await, tempfile::tempdir().unwrap());
    let kms = kms(options(&vault, directory.path()));
    (vault, kms, directory)
}

/// No error of ours shows the token.
fn shows_nothing(error: &Error) {
    let shown = format!("{error:?} {error} {:?} {:?}", error.advice(), std::error::Error::source(error));
    assert!(!shown.contains(TOKEN) && !shown.contains("hvs."), "{shown}");
}

#[tokio::test]
async fn it_keeps_what_a_key_service_promises() {
    let (vault, kms, _directory) = service().await;
    conformance(&kms).await.unwrap();
    conformance_of_rotation(&kms).await.unwrap();
    assert_eq!(kms.current_root().await.unwrap(), "domicile-eu:v2");
    let description = kms.describe().await.unwrap();
    assert_eq!((description.provider, description.root.as_str()), ("vault", "domicile-eu:v2"));
    assert!(matches!(description.verifying_key, VerifyingKey::Ed25519(_)));
    // What is said in each call: KEY-24.
    for request in vault.requests("transit/encrypt/domicile-eu") {
        assert_eq!(request.header("x-vault-token"), Some(TOKEN));
        assert_eq!(request.header("x-vault-request"), Some("true"));
        assert!(request.body["associated_data"].as_str().unwrap().len() > 100);
        assert_eq!(request.body.as_object().unwrap().len(), 2);
    }
    let shown = format!("{kms:?}");
    assert!(!shown.contains("token") && !shown.contains("hvs."), "{shown}");
}

#[tokio::test]
async fn a_place_whose_root_key_is_at_vault_seals_opens_and_rotates() {
    let (vault, kms, directory) = service().await;
    let key = kms.describe().await.unwrap().verifying_key;
    let line = format!(
        "kms = {{ provider = \"vault\", address = \"{}\", mount = \"transit\", root = \"{ROOT}\", signing = \"{SIGNING}\", token_file = \"token\" }}",
        vault.address()
    );
    let config = journey::place(directory.path(), &line, &key).await;
    journey::of_a_root_key(&config, &kms).await;
}

#[tokio::test]
async fn a_key_on_p256_signs_by_its_digest_and_with_the_lower_s() {
    let (vault, _, directory) = service().await;
    vault.make("p256", "ecdsa-p256");
    let kms = kms(VaultOptions { signing: "p256".into(), ..options(&vault, directory.path()) });
    let key = kms.describe().await.unwrap().verifying_key;
    assert!(matches!(key, VerifyingKey::EcdsaP256(_)));
    for length in [0, 1, 4096, 100_000] {
        let statement = vec![0x5a; length];
        key.verify(&statement, &kms.sign(&statement).await.unwrap()).unwrap();
    }
    for request in vault.requests("transit/sign/p256") {
        assert_eq!((&request.body["prehashed"], &request.body["key_version"]), (&json!(true), &json!(1)));
        assert!(request.body["input"].as_str().unwrap().len() <= 44);
    }
}

#[tokio::test]
async fn a_signing_key_that_was_rotated_signs_with_the_version_that_is_pinned() {
    let (vault, kms_before, directory) = service().await;
    let pinned = kms_before.describe().await.unwrap().verifying_key;
    pinned.verify(b"x", &kms_before.sign(b"x").await.unwrap()).unwrap();
    vault.rotate(SIGNING);
    let latest = kms(options(&vault, directory.path()));
    assert_ne!(latest.describe().await.unwrap().verifying_key, pinned);
    let of =
        |version| kms(VaultOptions { signing_version: Some(version), ..options(&vault, directory.path()) });
    assert_eq!(of(1).describe().await.unwrap().verifying_key, pinned);
    pinned.verify(b"x", &of(1).sign(b"x").await.unwrap()).unwrap();
    // A process that began before goes on with what it looked at.
    pinned.verify(b"x", &kms_before.sign(b"x").await.unwrap()).unwrap();
    assert_eq!(of(3).sign(b"x").await.unwrap_err().code(), Code::KmsDenied);
}

/// Answers to `path` as `reply` has it, and to all else as Transit does.
fn answers(
    vault: &Vault,
    path: &'static str,
    reply: impl Fn(usize) -> Option<Reply> + Send + Sync + 'static,
) {
    vault.script(
        move |request, before| {
            if request.path == format!("/v1/transit/{path}") { reply(before) } else { None }
        },
    );
}

#[tokio::test]
async fn every_error_is_an_outage_a_denial_or_unverified() {
    let table = [
        (400, "encryption key not found", Code::KmsDenied),
        (400, "something new", Code::KmsDenied),
        (403, "permission denied", Code::KmsDenied),
        (404, "", Code::KmsDenied),
        (405, "unsupported operation", Code::KmsDenied),
        (400, "ciphertext or signature version is disallowed by policy (too old)", Code::KmsDenied),
        (400, "cipher: message authentication failed", Code::KmsUnverified),
        (400, "invalid ciphertext: could not decode base64", Code::KmsUnverified),
        (412, "required index state not present", Code::KmsUnavailable),
        (429, "request path quota exceeded", Code::KmsUnavailable),
        (500, "internal error", Code::KmsUnavailable),
        (502, "", Code::KmsUnavailable),
        (503, "Vault is sealed", Code::KmsUnavailable),
    ];
    for (status, said, expected) in table {
        let (vault, kms, _directory) = service().await;
        let (_, wrap) = kms.generate(&context()).await.unwrap();
        answers(&vault, "decrypt/domicile-eu", move |_| Some(error(status, said)));
        let failed = kms.unwrap(&wrap, &context()).await.unwrap_err();
        assert_eq!(failed.code(), expected, "{status} {said}: {failed:?}");
        assert_eq!(failed.is_retryable(), expected == Code::KmsUnavailable);
        assert!(failed.advice().is_some() && failed.place() == Some("domicile-eu:v1"), "{failed:?}");
        let cause = std::error::Error::source(&failed).unwrap().to_string();
        assert!(cause.contains(said) && cause.contains(&status.to_string()), "{cause}");
        shows_nothing(&failed);
    }
}

#[tokio::test]
async fn an_outage_is_tried_three_times_a_denial_once_and_a_rotation_once() {
    let (vault, kms, _directory) = service().await;
    answers(&vault, "encrypt/domicile-eu", |before| match before {
        0 => Some(error(503, "Vault is sealed")),
        1 => Some(error(429, "")),
        _ => None,
    });
    kms.generate(&context()).await.unwrap();
    assert_eq!(vault.requests("transit/encrypt/domicile-eu").len(), 3);
    for (status, times) in [(503, 3), (412, 3), (403, 1), (400, 1)] {
        let (vault, kms, _directory) = service().await;
        answers(&vault, "encrypt/domicile-eu", move |_| Some(error(status, "")));
        kms.generate(&context()).await.unwrap_err();
        assert_eq!(vault.requests("transit/encrypt/domicile-eu").len(), times, "{status}");
    }
    answers(&vault, "keys/domicile-eu/rotate", |_| Some(error(503, "")));
    assert_eq!(kms.rotate_root().await.unwrap_err().code(), Code::KmsUnavailable);
    assert_eq!(vault.requests("transit/keys/domicile-eu/rotate").len(), 1);
}

#[tokio::test]
async fn silence_ends_and_is_an_outage() {
    let (vault, kms, directory) = service().await;
    answers(&vault, "encrypt/domicile-eu", |_| Some(Reply::Silence));
    let begun = Instant::now();
    let failed = kms.generate(&context()).await.unwrap_err();
    assert_eq!(failed.code(), Code::KmsUnavailable);
    shows_nothing(&failed);
    // Six seconds is the limit; a busy machine is given as many more.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    answers(&vault, "encrypt/domicile-eu", |_| Some(Reply::HangUp));
    assert_eq!(kms.generate(&context()).await.unwrap_err().code(), Code::KmsUnavailable);
    let nobody = VaultOptions { address: "http://127.0.0.1:1".into(), ..options(&vault, directory.path()) };
    let failed = self::kms(nobody).generate(&context()).await.unwrap_err();
    assert_eq!(failed.code(), Code::KmsUnavailable);
    shows_nothing(&failed);
}

/// Sixty octets of nought, as Transit would write them.
fn ciphertext(prefix: &str, length: usize) -> Value {
    use base64ct::{Base64, Encoding};
    json!({ "data": { "ciphertext": format!("{prefix}{}", Base64::encode_string(&vec![0; length])), "key_version": 1 } })
}

#[tokio::test]
async fn wraps_that_are_not_what_was_asked_for_are_refused() {
    let of_version = |version: i64| {
        let mut answer = ciphertext("vault:v1:", 60);
        answer["data"]["key_version"] = json!(version);
        answer
    };
    let table = [
        ("no prefix", Reply::Json(200, ciphertext("v1:", 60))),
        ("no version", Reply::Json(200, ciphertext("vault:v:", 60))),
        ("version nought", Reply::Json(200, ciphertext("vault:v0:", 60))),
        ("a version with a sign", Reply::Json(200, ciphertext("vault:v+1:", 60))),
        ("a version with a nought before", Reply::Json(200, ciphertext("vault:v01:", 60))),
        ("a version without end", Reply::Json(200, ciphertext("vault:v4294967296:", 60))),
        ("another version than it says", Reply::Json(200, of_version(2))),
        ("too short", Reply::Json(200, ciphertext("vault:v1:", 59))),
        ("too long", Reply::Json(200, ciphertext("vault:v1:", 61))),
        ("no Base64", Reply::Json(200, json!({ "data": { "ciphertext": "vault:v1:*" } }))),
        ("no wrap", Reply::Json(200, json!({ "data": {} }))),
        ("nothing", Reply::Text(204, String::new())),
        ("a page of HTML", Reply::Text(200, "<html>Welcome</html>".to_owned())),
        ("an announced giant", Reply::Endless { announced: Some(1 << 40) }),
        ("a giant", Reply::Endless { announced: None }),
    ];
    for (what, reply) in table {
        let (vault, kms, _directory) = service().await;
        answers(&vault, "encrypt/domicile-eu", move |_| Some(reply.clone()));
        let failed = kms.generate(&context()).await.unwrap_err();
        assert_eq!(failed.code(), Code::KmsUnverified, "{what}: {failed:?}");
    }
}

#[tokio::test]
async fn keys_and_signatures_that_are_none_are_refused() {
    let (vault, kms, _directory) = service().await;
    let (_, wrap) = kms.generate(&context()).await.unwrap();
    for plaintext in ["AAAA", "*", "", &"A".repeat(60)] {
        let answer = json!({ "data": { "plaintext": plaintext } });
        answers(&vault, "decrypt/domicile-eu", move |_| Some(Reply::Json(200, answer.clone())));
        let failed = kms.unwrap(&wrap, &context()).await.unwrap_err();
        assert_eq!(failed.code(), Code::KmsUnverified, "{plaintext}: {failed:?}");
        assert!(plaintext.is_empty() || !format!("{failed:?}").contains(plaintext), "{failed:?}");
    }
    kms.sign(b"x").await.unwrap();
    for signature in ["vault:v1:AAAA", "vault:v2:AAAA", "AAAA", ""] {
        let answer = json!({ "data": { "signature": signature } });
        answers(&vault, "sign/domicile-eu-signing", move |_| Some(Reply::Json(200, answer.clone())));
        assert_eq!(kms.sign(b"x").await.unwrap_err().code(), Code::KmsUnverified, "{signature}");
    }
}

#[tokio::test]
async fn a_service_that_repeats_what_it_was_sent_makes_no_error_show_it() {
    let (vault, kms, _directory) = service().await;
    vault.script(|request, _| {
        let plaintext = request.body.get("plaintext")?.as_str()?;
        let said = format!("cannot wrap {plaintext} for {}", request.header("x-vault-token")?);
        Some(error(400, &said))
    });
    let failed = kms.generate(&context()).await.unwrap_err();
    shows_nothing(&failed);
    let sent = vault.requests("transit/encrypt/domicile-eu")[0].body["plaintext"].clone();
    assert!(!format!("{failed:?}").contains(sent.as_str().unwrap()), "{failed:?}");
}

#[tokio::test]
async fn keys_that_may_leave_or_are_others_are_refused_at_the_first_use() {
    let table = [
        ("exportable", json!(true), Code::ConfigInvalid),
        ("allow_plaintext_backup", json!(true), Code::ConfigInvalid),
        ("deletion_allowed", json!(true), Code::ConfigInvalid),
        ("imported_key", json!(true), Code::ConfigInvalid),
        ("derived", json!(true), Code::ConfigInvalid),
        ("type", json!("aes128-gcm96"), Code::ConfigInvalid),
        ("type", json!("rsa-4096"), Code::ConfigInvalid),
        ("soft_deleted", json!(true), Code::KmsDenied),
        ("name", json!("another"), Code::KmsUnverified),
        ("exportable", json!("no"), Code::KmsUnverified),
        ("latest_version", json!(0), Code::KmsUnverified),
    ];
    for (flag, value, expected) in table {
        for key in [ROOT, SIGNING] {
            let (vault, kms, _directory) = service().await;
            vault.flag(key, flag, value.clone());
            let failed = kms.describe().await.unwrap_err();
            assert_eq!(failed.code(), expected, "{key} {flag} {value}: {failed:?}");
            let used = match key {
                ROOT => kms.generate(&context()).await.map(|_| ()),
                _ => kms.sign(b"x").await.map(|_| ()),
            };
            assert_eq!(used.unwrap_err().code(), expected, "{key} {flag} {value}");
            assert!(vault.requests("transit/encrypt/domicile-eu").is_empty());
        }
    }
    // One that says nothing of itself is not believed.
    let (vault, kms, _directory) = service().await;
    answers(&vault, "keys/domicile-eu", |_| Some(Reply::Json(200, json!({ "data": { "name": ROOT } }))));
    assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnverified);
    let (vault, kms, _directory) = service().await;
    vault.delete(ROOT);
    assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsDenied);
}

#[tokio::test]
async fn a_key_that_was_deleted_denies_and_opens_nothing() {
    let (vault, kms, _directory) = service().await;
    let (_, wrap) = kms.generate(&context()).await.unwrap();
    vault.delete(ROOT);
    assert_eq!(kms.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsDenied);
    assert_eq!(kms.probe().await.unwrap_err().code(), Code::KmsDenied);
}

/// KEY-24: old services take `associated_data` for a name that they do not know, and pass over it.
#[tokio::test]
async fn a_service_that_does_not_bind_the_context_is_found_out_at_the_first_wrap() {
    let (vault, kms, _directory) = service().await;
    vault.ignore_associated_data();
    let failed = kms.generate(&context()).await.unwrap_err();
    assert_eq!(failed.code(), Code::KmsUnverified);
    assert!(failed.advice().unwrap().contains("associated_data"), "{failed:?}");
    assert!(kms.probe().await.is_ok(), "which says of the token alone");
}

#[tokio::test]
async fn a_wrap_of_another_root_key_is_denied_before_any_call() {
    let (vault, kms, directory) = service().await;
    let (_, wrap) = kms.generate(&context()).await.unwrap();
    vault.make("domicile-us", "aes256-gcm96");
    let other = self::kms(VaultOptions { root: "domicile-us".into(), ..options(&vault, directory.path()) });
    let failed = other.unwrap(&wrap, &context()).await.unwrap_err();
    assert_eq!((failed.code(), failed.place()), (Code::KmsDenied, Some(ROOT)));
    assert!(vault.requests("transit/decrypt/domicile-us").is_empty());
}

#[tokio::test]
async fn hosts_that_may_not_change_keys_leave_them_to_their_operator() {
    let (vault, kms, _directory) = service().await;
    let (key, wrap) = kms.generate(&context()).await.unwrap();
    for step in ["rotate", "config", "trim"] {
        vault.forbid(&format!("transit/keys/{ROOT}/{step}"));
    }
    let failed = kms.rotate_root().await.unwrap_err();
    assert_eq!(failed.code(), Code::ArgumentInvalid);
    assert!(failed.advice().unwrap().contains("transit/keys/domicile-eu/rotate"), "{failed:?}");
    // Its operator does, or Vault by itself; and a process that runs goes on.
    vault.rotate(ROOT);
    assert_eq!(kms.current_root().await.unwrap(), "domicile-eu:v2");
    let again = kms.wrap(&key, &context()).await.unwrap();
    assert_eq!(kms.root_of(&again).as_deref(), Some("domicile-eu:v2"));
    assert_eq!(kms.root_of(&wrap).as_deref(), Some("domicile-eu:v1"));
    assert_eq!(kms.retire_root("domicile-eu:v1").await.unwrap_err().code(), Code::ArgumentInvalid);
    assert!(kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
}

#[tokio::test]
async fn versions_are_retired_in_their_order_and_taken_away() {
    let (vault, kms, _directory) = service().await;
    for _ in 0..3 {
        kms.rotate_root().await.unwrap();
    }
    for (id, advice) in [("domicile-eu:v2", "domicile-eu:v1"), ("domicile-eu:v3", "domicile-eu:v1")] {
        let failed = kms.retire_root(id).await.unwrap_err();
        assert_eq!(failed.code(), Code::ArgumentInvalid);
        assert!(failed.advice().unwrap().contains(advice), "{failed:?}");
    }
    for none in ["domicile-eu:v0", "domicile-eu:v5", "domicile-eu:v01", "domicile-us:v1", "1", ""] {
        assert_eq!(kms.retire_root(none).await.unwrap_err().code(), Code::ArgumentInvalid, "{none}");
    }
    kms.retire_root("domicile-eu:v1").await.unwrap();
    kms.retire_root("domicile-eu:v2").await.unwrap();
    let trimmed = vault.requests("transit/keys/domicile-eu/trim");
    let borders: Vec<_> =
        trimmed.iter().map(|request| request.body["min_available_version"].clone()).collect();
    assert_eq!(borders, [json!(2), json!(3)]);
    // One that was stopped between its two steps is done again.
    answers(&vault, "keys/domicile-eu/trim", |_| Some(error(503, "")));
    assert_eq!(kms.retire_root("domicile-eu:v3").await.unwrap_err().code(), Code::KmsUnavailable);
    answers(&vault, "keys/domicile-eu/trim", |_| None);
    kms.retire_root("domicile-eu:v3").await.unwrap();
}

#[tokio::test]
async fn a_token_is_its_files_and_is_read_at_each_call() {
    use std::os::unix::fs::PermissionsExt;
    let (vault, kms, directory) = service().await;
    kms.describe().await.unwrap();
    // An agent replaces it.
    let file = directory.path().join("token");
    vault.revoke(TOKEN);
    let failed = kms.describe().await.unwrap_err();
    assert_eq!(failed.code(), Code::KmsDenied);
    shows_nothing(&failed);
    vault.believe("hvs.another");
    write_private(&file, "hvs.another");
    kms.describe().await.unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsExposed);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
    for bad in ["", "two\nlines", "a\u{7f}b"] {
        write_private(&file, bad);
        assert_eq!(kms.describe().await.unwrap_err().code(), Code::ConfigInvalid, "{bad:?}");
    }
}

#[tokio::test]
async fn an_app_role_logs_in_once_and_again_when_its_token_ends() {
    let (vault, _, directory) = service().await;
    let secret_id = directory.path().join("secret-id");
    write_private(&secret_id, "5ec7e7\n");
    vault.role("r0le", "5ec7e7", 3600);
    vault.namespace("eu/records");
    let options = VaultOptions {
        role_id: Some("r0le".into()),
        secret_id_file: Some(secret_id.clone()),
        namespace: Some("eu/records".into()),
        token_file: None,
        ..options(&vault, directory.path())
    };
    let kms = self::kms(options.clone());
    let (key, wrap) = kms.generate(&context()).await.unwrap();
    assert!(kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
    let logins = || vault.requests("auth/approle/login").len();
    assert_eq!(logins(), 1);
    let token = vault.requests("transit/keys/domicile-eu")[0].header("x-vault-token").unwrap().to_owned();
    assert!(token.starts_with("hvs.login-"));
    vault.revoke(&token);
    assert!(kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
    assert_eq!(logins(), 2);
    // What the policy forbids, another login does not allow.
    vault.forbid("transit/decrypt/");
    assert_eq!(kms.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsDenied);
    assert_eq!(logins(), 3);
    // A lease that is nearly over already is asked for anew.
    vault.role("r0le", "5ec7e7", 1);
    let short = self::kms(options.clone());
    short.current_root().await.unwrap();
    short.current_root().await.unwrap();
    assert_eq!(logins(), 5);
    write_private(&secret_id, "wr0ng\n");
    let failed = self::kms(options).describe().await.unwrap_err();
    assert_eq!(failed.code(), Code::KmsDenied, "{failed:?}");
    assert!(!format!("{failed:?}").contains("wr0ng"));
}

#[tokio::test]
async fn a_probe_says_whether_the_token_may_decrypt_and_opens_nothing() {
    let (vault, kms, _directory) = service().await;
    kms.probe().await.unwrap();
    assert_eq!(vault.requests("transit/decrypt/domicile-eu").len(), 1);
    vault.forbid("transit/decrypt/");
    assert_eq!(kms.probe().await.unwrap_err().code(), Code::KmsDenied);
}

#[tokio::test]
async fn a_redirection_is_not_followed_with_a_token() {
    let other = Vault::with_keys().await;
    let (vault, kms, _directory) = service().await;
    let location = format!("location: {}/v1/transit/keys/{ROOT}\r\n", other.address());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    answers(&vault, "keys/domicile-eu", move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(Reply::Headers(307, location.clone()))
    });
    assert_eq!(kms.describe().await.unwrap_err().code(), Code::KmsUnavailable);
    assert!(asked.load(Ordering::Relaxed) > 0);
    assert!(other.requests("transit/keys/domicile-eu").is_empty());
}

#[tokio::test]
async fn configurations_that_send_keys_astray_are_refused() {
    type Change = fn(&mut VaultOptions);
    let table: [(&str, Change); 10] = [
        ("not TLS", |options| options.address = "http://vault.eu.example:8200".into()),
        ("no scheme", |options| options.address = "vault.eu.example".into()),
        ("a user", |options| options.address = "https://user:hush@vault.eu.example".into()),
        ("a query", |options| options.address = "https://vault.eu.example?x".into()),
        ("a name with a way out", |options| options.root = "../sys/raw".into()),
        ("no name", |options| options.signing = String::new()),
        ("a mount with a way out", |options| options.mount = "transit/../sys".into()),
        ("one key for both", |options| options.signing.clone_from(&options.root)),
        ("half a role", |options| options.role_id = Some("r".into())),
        ("a role and a token", |options| {
            options.role_id = Some("r".into());
            options.secret_id_file = Some("/s".into());
            options.token_file = Some("/t".into());
        }),
    ];
    for (what, change) in table {
        let mut options = VaultOptions::new("https://vault.eu.example:8200", ROOT, SIGNING);
        VaultKms::new(REGION.parse().unwrap(), options.clone()).unwrap();
        change(&mut options);
        let refused = VaultKms::new(REGION.parse().unwrap(), options).unwrap_err();
        assert_eq!(refused.code(), Code::ConfigInvalid, "{what}");
        assert!(!format!("{refused:?}").contains("hush"), "{refused:?}");
    }
    // Certificates that are none.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    let vault = Vault::with_keys().await;
    let options = VaultOptions { ca_file: Some(file.clone()), ..options(&vault, directory.path()) };
    assert_eq!(kms(options.clone()).describe().await.unwrap_err().code(), Code::KmsUnavailable);
    std::fs::write(&file, "no certificate").unwrap();
    assert_eq!(kms(options).describe().await.unwrap_err().code(), Code::ConfigInvalid);
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_named_authority_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let vault = Vault::start_over_tls().await;
    let of = |ca_file| kms(VaultOptions { ca_file, ..options(&vault, directory.path()) });
    let [ca, another] = authorities();
    let (key, wrap) = of(Some(ca.clone())).generate(&context()).await.unwrap();
    assert!(of(Some(ca)).unwrap(&wrap, &context()).await.unwrap().same_as(&key));
    let asked = vault.requests("transit/keys/domicile-eu").len();
    for ca_file in [Some(another), None] {
        let failed = of(ca_file).describe().await.unwrap_err();
        assert_eq!(failed.code(), Code::KmsUnavailable);
        assert!(format!("{failed:?}").contains("certificate"), "{failed:?}");
        shows_nothing(&failed);
    }
    assert_eq!(vault.requests("transit/keys/domicile-eu").len(), asked, "no token was sent");
}

#[test]
fn without_a_runtime_it_is_out_of_reach() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    write_private(&token, TOKEN);
    let options = VaultOptions::new("http://127.0.0.1:1", ROOT, SIGNING);
    let kms = kms(VaultOptions { token_file: Some(token), ..options });
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    match kms.describe().as_mut().poll(&mut context) {
        std::task::Poll::Ready(Err(failed)) => assert_eq!(failed.code(), Code::KmsUnavailable),
        other => panic!("{other:?}"),
    }
}

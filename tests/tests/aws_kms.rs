//! AWS KMS as key service, over real HTTP: against moto, which keeps keys and wraps, and, for what moto does not do
//! (states of keys, errors, time-outs, wrong answers), against a server that answers as the test has it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::time::{Duration, Instant};

use async_trait::async_trait;
use domicile::context::{EncryptionContext, KeyKind};
use domicile::kms::{AwsKms, AwsOptions, Kms, KmsDescription, VerifyingKey, conformance};
use domicile::secret::Secret;
use domicile::{Code, Result};
use domicile_tests::aws::{Moto, Scripted, aws_kms, error, root};
use domicile_tests::http::Reply;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use serde_json::{Value, json};

const REGION: &str = "eu-central-1";
const ROOT: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const OTHER: &str = "arn:aws:kms:eu-central-1:123456789012:key/ffffffff-12ab-34cd-56ef-1234567890ab";
const SIGNING: &str = "arn:aws:kms:eu-central-1:123456789012:key/5678abcd-12ab-34cd-56ef-1234567890ab";

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

#[tokio::test]
async fn it_keeps_what_a_key_service_promises() {
    let Some(moto) = Moto::start() else { return };
    let aws = aws_kms(REGION, moto.keys(REGION).await);
    let (_server, signing) = signing(signer()).await;
    conformance(&Signed { aws, signing }).await.unwrap();
}

/// Moto knows no rehearsal, answers Sign and GetPublicKey with a bare id, and hashes a digest once more: it keeps and wraps
/// keys here, and a server that does as AWS says signs.
#[derive(Debug)]
struct Signed {
    aws: AwsKms,
    signing: AwsKms,
}

#[async_trait]
impl Kms for Signed {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.aws.generate(context).await
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.aws.wrap(key, context).await
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.aws.unwrap(wrap, context).await
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        self.signing.sign(statement).await
    }

    async fn describe(&self) -> Result<KmsDescription> {
        let root = self.aws.current_root().await?;
        Ok(KmsDescription { root, ..self.signing.describe().await? })
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        self.aws.root_of(wrap)
    }

    async fn current_root(&self) -> Result<String> {
        self.aws.current_root().await
    }
}

fn signer() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

/// A server that signs as AWS KMS does: over a digest, and with either value of `s`.
async fn signing(key: SigningKey) -> (Scripted, AwsKms) {
    let server = Scripted::start(move |operation, body, before| match operation {
        "DescribeKey" if body["KeyId"] == SIGNING => {
            let mut answer = description(SIGNING);
            answer["KeyMetadata"]["KeyUsage"] = json!("SIGN_VERIFY");
            answer["KeyMetadata"]["KeySpec"] = json!("ECC_NIST_P256");
            Reply::Json(200, answer)
        }
        "DescribeKey" => Reply::Json(200, description(ROOT)),
        "GetPublicKey" => {
            let der = key.verifying_key().to_public_key_der().unwrap();
            Reply::Json(200, json!({ "KeyId": SIGNING, "PublicKey": base64(der.as_bytes()) }))
        }
        _ => {
            assert_eq!(
                (&body["MessageType"], &body["SigningAlgorithm"]),
                (&json!("DIGEST"), &json!("ECDSA_SHA_256"))
            );
            let digest = unbase64(body["Message"].as_str().unwrap());
            let low: Signature = key.sign_prehash(&digest).unwrap();
            let low = low.normalize_s();
            let high = Signature::from_scalars(low.r(), -low.s()).unwrap();
            let signature = if before % 2 == 0 { low } else { high };
            Reply::Json(200, json!({ "KeyId": SIGNING, "Signature": base64(signature.to_der().as_bytes()) }))
        }
    })
    .await;
    let options = AwsOptions { endpoint: Some(server.endpoint()), ..AwsOptions::new(ROOT, SIGNING) };
    let kms = aws_kms(REGION, options);
    (server, kms)
}

/// KEY-20
#[tokio::test]
async fn statements_are_signed_by_their_digest_and_with_the_lower_s() {
    let (server, kms) = signing(signer()).await;
    let key = kms.describe().await.unwrap().verifying_key;
    assert!(matches!(key, VerifyingKey::EcdsaP256(_)));
    for length in [0, 1, 4096, 4097, 100_000] {
        let statement = vec![0x5a; length];
        let (one, other) = (kms.sign(&statement).await.unwrap(), kms.sign(&statement).await.unwrap());
        assert_eq!(one, other, "whichever s the service chose");
        key.verify(&statement, &one).unwrap();
    }
    for request in server.requests("Sign") {
        assert_eq!(request["KeyId"], SIGNING);
        assert_eq!(unbase64(request["Message"].as_str().unwrap()).len(), 32);
    }
}

#[tokio::test]
async fn a_signature_that_does_not_verify_is_not_handed_on() {
    let other = SigningKey::from_slice(&[8; 32]).unwrap();
    let public = base64(other.verifying_key().to_public_key_der().unwrap().as_bytes());
    let server = Scripted::start(move |operation, _, _| match operation {
        "DescribeKey" => {
            let mut answer = description(SIGNING);
            answer["KeyMetadata"]["KeyUsage"] = json!("SIGN_VERIFY");
            answer["KeyMetadata"]["KeySpec"] = json!("ECC_NIST_P256");
            Reply::Json(200, answer)
        }
        "GetPublicKey" => Reply::Json(200, json!({ "KeyId": SIGNING, "PublicKey": public })),
        _ => {
            let signature: Signature = signer().sign_prehash(&[0; 32]).unwrap();
            Reply::Json(200, json!({ "KeyId": SIGNING, "Signature": base64(signature.to_der().as_bytes()) }))
        }
    })
    .await;
    let options = AwsOptions { endpoint: Some(server.endpoint()), ..AwsOptions::new(ROOT, SIGNING) };
    assert_eq!(aws_kms(REGION, options).sign(b"x").await.unwrap_err().code(), Code::KmsUnverified);
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let group = |group: &[u8]| {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        let digit = |at: usize| match at <= group.len() {
            true => char::from(BASE64[usize::try_from(bits >> (18 - 6 * at) & 63).unwrap()]),
            false => '=',
        };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(group).collect()
}

fn unbase64(text: &str) -> Vec<u8> {
    let text = text.trim_end_matches('=').as_bytes();
    let group = |group: &[u8]| {
        let value = |digit: &u8| BASE64.iter().position(|one| one == digit).unwrap();
        let bits = (0..4).fold(0, |bits, at| bits << 6 | group.get(at).map_or(0, value));
        let octets = [16, 8, 0].map(|shift| u8::try_from(bits >> shift & 255).unwrap());
        octets[..group.len() - 1].to_vec()
    };
    text.chunks(4).flat_map(group).collect()
}

#[tokio::test]
async fn an_alias_is_resolved_once_and_wraps_name_the_key() {
    let Some(moto) = Moto::start() else { return };
    let options = moto.keys(REGION).await;
    let alias = options.root.replace(options.root.rsplit(':').next().unwrap(), "alias/root");
    moto.ask(REGION, "CreateAlias", &json!({ "AliasName": "alias/root", "TargetKeyId": options.root })).await;
    let kms = aws_kms(REGION, AwsOptions { root: alias.clone(), ..options.clone() });
    let (key, wrap) = kms.generate(&context()).await.unwrap();
    assert_eq!(kms.root_of(&wrap).as_ref(), Some(&options.root));
    // The alias leads elsewhere: this process keeps its key, and the next one needs to be told of it.
    let next = moto.key(REGION, &root()).await;
    moto.ask(REGION, "UpdateAlias", &json!({ "AliasName": "alias/root", "TargetKeyId": next })).await;
    assert!(kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
    assert_eq!(kms.current_root().await.unwrap(), options.root);
    let later = aws_kms(REGION, AwsOptions { root: alias.clone(), ..options.clone() });
    assert_eq!(later.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsDenied);
    let told = AwsOptions { root: alias, former: vec![options.root.clone()], ..options };
    let told = aws_kms(REGION, told);
    assert!(told.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
    assert_eq!(told.current_root().await.unwrap(), next);
    assert!(told.rotate_root().await.unwrap_err().advice().unwrap().contains("former"));
}

#[tokio::test]
async fn keys_that_are_off_of_another_kind_or_gone_are_refused_at_the_first_use() {
    let Some(moto) = Moto::start() else { return };
    let options = moto.keys(REGION).await;
    let with_root = |root: String| aws_kms(REGION, AwsOptions { root, ..options.clone() });
    let code = async |kms: AwsKms| kms.generate(&context()).await.unwrap_err().code();
    assert_eq!(code(with_root(options.signing.clone())).await, Code::ConfigInvalid);
    let gone = options
        .root
        .replace(options.root.rsplit('/').next().unwrap(), "00000000-0000-0000-0000-000000000000");
    assert_eq!(code(with_root(gone)).await, Code::KmsDenied);
    let signs_with_root = aws_kms(REGION, AwsOptions { signing: options.root.clone(), ..options.clone() });
    assert_eq!(signs_with_root.sign(b"x").await.unwrap_err().code(), Code::ConfigInvalid);
    let multi = moto
        .key(
            REGION,
            &json!({ "MultiRegion": true, "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT" }),
        )
        .await;
    let refused = AwsKms::new(REGION.parse().unwrap(), AwsOptions { root: multi.clone(), ..options.clone() });
    assert_eq!(refused.unwrap_err().code(), Code::ConfigInvalid);
    moto.ask(REGION, "CreateAlias", &json!({ "AliasName": "alias/multi", "TargetKeyId": multi })).await;
    let hidden = multi.replace(multi.rsplit(':').next().unwrap(), "alias/multi");
    assert_eq!(code(with_root(hidden)).await, Code::ConfigInvalid);
    let id = options.root.rsplit('/').next().unwrap();
    moto.ask(REGION, "DisableKey", &json!({ "KeyId": id })).await;
    assert_eq!(code(with_root(options.root.clone())).await, Code::KmsDenied);
    moto.ask(REGION, "ScheduleKeyDeletion", &json!({ "KeyId": id })).await;
    assert_eq!(code(with_root(options.root.clone())).await, Code::KmsDenied);
}

/// A server whose root key is well, and that answers all else as `rest` has it.
async fn scripted(rest: impl Fn(&str, &Value, usize) -> Reply + Send + Sync + 'static) -> (Scripted, AwsKms) {
    let server = Scripted::start(move |operation, body, before| match operation {
        "DescribeKey" => Reply::Json(200, description(ROOT)),
        _ => rest(operation, body, before),
    })
    .await;
    let options = AwsOptions { endpoint: Some(server.endpoint()), ..AwsOptions::new(ROOT, SIGNING) };
    let kms = aws_kms(REGION, options);
    (server, kms)
}

fn description(arn: &str) -> Value {
    json!({ "KeyMetadata": {
        "KeyId": arn.rsplit('/').next().unwrap(), "Arn": arn, "Enabled": true, "KeyState": "Enabled",
        "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT", "MultiRegion": false,
    } })
}

/// Thirty-two zeros in Base64.
const ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn generated(arn: &str) -> Reply {
    Reply::Json(200, json!({ "KeyId": arn, "Plaintext": ZEROS, "CiphertextBlob": ZEROS }))
}

#[tokio::test]
async fn every_error_is_an_outage_a_denial_or_unverified() {
    let table = [
        ("AccessDeniedException", 400, Code::KmsDenied),
        ("DisabledException", 400, Code::KmsDenied),
        ("KMSInvalidStateException", 400, Code::KmsDenied),
        ("NotFoundException", 400, Code::KmsDenied),
        ("InvalidKeyUsageException", 400, Code::KmsDenied),
        ("UnrecognizedClientException", 400, Code::KmsDenied),
        ("InvalidSignatureException", 403, Code::KmsDenied),
        ("ValidationException", 400, Code::KmsDenied),
        ("SomethingNewException", 400, Code::KmsDenied),
        ("InvalidCiphertextException", 400, Code::KmsUnverified),
        ("IncorrectKeyException", 400, Code::KmsUnverified),
        ("ThrottlingException", 400, Code::KmsUnavailable),
        ("LimitExceededException", 400, Code::KmsUnavailable),
        ("KMSInternalException", 500, Code::KmsUnavailable),
        ("DependencyTimeoutException", 500, Code::KmsUnavailable),
        ("KeyUnavailableException", 500, Code::KmsUnavailable),
        ("ExpiredTokenException", 400, Code::KmsUnavailable),
        ("SomethingNewException", 503, Code::KmsUnavailable),
    ];
    for (name, status, expected) in table {
        let (_server, kms) = scripted(move |_, _, _| error(status, name)).await;
        let failed = kms.generate(&context()).await.unwrap_err();
        assert_eq!(failed.code(), expected, "{name}: {failed:?}");
        let cause = std::error::Error::source(&failed).unwrap().to_string();
        assert!(cause.contains(name) && cause.contains("r-1"), "{cause}");
    }
}

#[tokio::test]
async fn what_is_throttled_is_tried_three_times_and_what_is_denied_once() {
    let (server, kms) = scripted(|_, _, before| match before {
        0 => error(400, "ThrottlingException"),
        1 => error(500, "KMSInternalException"),
        _ => generated(ROOT),
    })
    .await;
    kms.generate(&context()).await.unwrap();
    let requests = server.requests("GenerateDataKey");
    assert_eq!(requests.len(), 3);
    // What is said in each call.
    for request in &requests {
        assert_eq!(request["KeyId"], ROOT);
        assert_eq!(request["EncryptionContext"]["domicile:owner"], "_region");
        assert_eq!(request["EncryptionContext"].as_object().unwrap().len(), 6);
    }
    assert_eq!(server.requests("DescribeKey").len(), 1);
    let (server, kms) = scripted(|_, _, _| error(400, "ThrottlingException")).await;
    assert_eq!(kms.generate(&context()).await.unwrap_err().code(), Code::KmsUnavailable);
    assert_eq!(server.requests("GenerateDataKey").len(), 3);
    let (server, kms) = scripted(|_, _, _| error(400, "AccessDeniedException")).await;
    assert_eq!(kms.generate(&context()).await.unwrap_err().code(), Code::KmsDenied);
    assert_eq!(server.requests("GenerateDataKey").len(), 1);
}

#[tokio::test]
async fn silence_ends_and_is_an_outage() {
    let (_server, kms) = scripted(|_, _, _| Reply::Silence).await;
    let begun = Instant::now();
    assert_eq!(kms.generate(&context()).await.unwrap_err().code(), Code::KmsUnavailable);
    // Six seconds is the limit; a busy machine is given as many more.
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    let (_server, kms) = scripted(|_, _, _| Reply::HangUp).await;
    assert_eq!(kms.generate(&context()).await.unwrap_err().code(), Code::KmsUnavailable);
    let nobody = AwsOptions { endpoint: Some("http://127.0.0.1:1".into()), ..AwsOptions::new(ROOT, SIGNING) };
    let error = aws_kms(REGION, nobody).generate(&context()).await.unwrap_err();
    assert_eq!(error.code(), Code::KmsUnavailable);
}

#[tokio::test]
async fn answers_that_name_another_key_or_cannot_be_read_are_refused() {
    let short = || Reply::Json(200, json!({ "KeyId": ROOT, "Plaintext": "AAAA", "CiphertextBlob": ZEROS }));
    type Script = fn() -> Reply;
    let table: [(&str, Script); 6] = [
        ("another key", || generated(OTHER)),
        ("an alias", || generated("alias/root")),
        ("no key", || Reply::Json(200, json!({ "Plaintext": ZEROS, "CiphertextBlob": ZEROS }))),
        ("no wrap", || Reply::Json(200, json!({ "KeyId": ROOT, "Plaintext": ZEROS }))),
        ("a short key", short),
        ("a page of HTML", || Reply::Text(200, "<html>Welcome</html>".to_owned())),
    ];
    for (what, script) in table {
        let (_server, kms) = scripted(move |_, _, _| script()).await;
        let error = kms.generate(&context()).await.unwrap_err();
        assert_eq!(error.code(), Code::KmsUnverified, "{what}: {error:?}");
    }
    // KEY-21: of a wrap too.
    let (_server, kms) = scripted(|operation, _, _| match operation {
        "Decrypt" => generated(OTHER),
        _ => generated(ROOT),
    })
    .await;
    let (_, wrap) = kms.generate(&context()).await.unwrap();
    assert_eq!(kms.unwrap(&wrap, &context()).await.unwrap_err().code(), Code::KmsUnverified);
}

#[tokio::test]
async fn a_root_key_is_the_one_that_was_asked_for() {
    for (state, expected) in [
        ("Disabled", Code::KmsDenied),
        ("PendingDeletion", Code::KmsDenied),
        ("PendingImport", Code::KmsDenied),
        ("Unavailable", Code::KmsUnavailable),
    ] {
        let mut answer = description(ROOT);
        answer["KeyMetadata"]["KeyState"] = json!(state);
        assert_eq!(first_use(answer).await, expected, "{state}");
    }
    assert_eq!(first_use(description(OTHER)).await, Code::KmsUnverified);
    assert_eq!(first_use(json!({})).await, Code::KmsUnverified);
    let mut copied = description(ROOT);
    copied["KeyMetadata"]["MultiRegion"] = json!(true);
    assert_eq!(first_use(copied).await, Code::ConfigInvalid);
}

async fn first_use(described: Value) -> Code {
    let server = Scripted::start(move |_, _, _| Reply::Json(200, described.clone())).await;
    let options = AwsOptions { endpoint: Some(server.endpoint()), ..AwsOptions::new(ROOT, SIGNING) };
    let error = aws_kms(REGION, options).generate(&context()).await.unwrap_err();
    assert!(server.requests("GenerateDataKey").is_empty());
    error.code()
}

#[tokio::test]
async fn a_rehearsal_says_whether_it_would_open() {
    let (server, kms) = scripted(|_, _, _| error(400, "DryRunOperationException")).await;
    kms.probe().await.unwrap();
    let request = &server.requests("Decrypt")[0];
    assert_eq!((&request["DryRun"], &request["KeyId"]), (&json!(true), &json!(ROOT)));
    let (_server, kms) = scripted(|_, _, _| error(400, "AccessDeniedException")).await;
    assert_eq!(kms.probe().await.unwrap_err().code(), Code::KmsDenied);
    let (_server, kms) = scripted(|_, _, _| generated(ROOT)).await;
    assert_eq!(kms.probe().await.unwrap_err().code(), Code::KmsUnverified);
}

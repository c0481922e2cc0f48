//! AWS KMS as key service: one region's root key and signing key there.
//!
//! The SDK is told everything that matters: the region, the key of each call, every time-out. A response that names
//! another key is refused. Formats: page `keys.md` of the book, KEY-20 and KEY-21.

mod arn;
mod failure;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::BehaviorVersion;
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{
    DataKeySpec, DryRunModifierType, KeyMetadata, KeySpec, KeyState, KeyUsageType, MessageType,
    SigningAlgorithmSpec,
};
use p256::pkcs8::DecodePublicKey;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use zeroize::{Zeroize, Zeroizing};

use self::arn::Arn;
use self::failure::failed;
use super::endpoint::check_endpoint;
use super::{AwsOptions, Kms, KmsDescription, VerifyingKey, low_s};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::region::Region;
use crate::secret::Secret;
use crate::wire::{Decoder, Malformed};

const WRAP_VERSION: u8 = 2;
const WRAP_BYTES_MAX: usize = 4096;

// A key is waited for by whoever opens or seals: an answer after six seconds is none.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt at most this, and before the third at most twice, by chance: time-outs leave room for it.
const BACKOFF: Duration = Duration::from_millis(200);

/// The key service of a region whose keys are at AWS KMS.
///
/// Nothing is asked before the first use; then each key is looked at once: its region, state, kind, and whether its
/// material may be elsewhere. A host needs the permissions `kms:DescribeKey`, `kms:GenerateDataKey`, `kms:Encrypt` and
/// `kms:Decrypt` on the root key, `kms:Decrypt` on former ones, and `kms:DescribeKey`, `kms:GetPublicKey` and `kms:Sign`
/// on the signing key. Keys pass through the SDK's buffers, which it does not wipe.
pub struct AwsKms {
    region: Region,
    root: Arn,
    signing: Arn,
    former: Vec<Arn>,
    multi_region: Vec<Arn>,
    options: AwsOptions,
    #[cfg(feature = "testing")]
    credentials: Option<aws_sdk_kms::config::Credentials>,
    client: OnceCell<Client>,
    checked_root: OnceCell<Arn>,
    checked_signing: OnceCell<(Arn, VerifyingKey)>,
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms")
            .field("region", &self.region)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl AwsKms {
    /// The key service behind these keys. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when a name is not the ARN of a key in this region, a multi-Region key is
    /// not allowed by name, or the endpoint is not one that keys may be sent to.
    pub fn new(region: Region, options: AwsOptions) -> Result<Self> {
        let arns = |texts: &[String]| texts.iter().map(|text| text.parse()).collect::<Result<Vec<Arn>>>();
        let kms = Self {
            root: options.root.parse()?,
            signing: options.signing.parse()?,
            former: arns(&options.former)?,
            multi_region: arns(&options.multi_region)?,
            #[cfg(feature = "testing")]
            credentials: None,
            client: OnceCell::new(),
            checked_root: OnceCell::new(),
            checked_signing: OnceCell::new(),
            region,
            options,
        };
        for arn in [&kms.root, &kms.signing].into_iter().chain(&kms.former).chain(&kms.multi_region) {
            kms.belongs_here(arn)?;
        }
        if let Some(alias) = kms.former.iter().chain(&kms.multi_region).find(|arn| arn.is_alias()) {
            return Err(Error::new(
                Code::ConfigInvalid,
                format!("{alias} is an alias, which may lead elsewhere tomorrow"),
            )
            .rule("`former` and `multi_region` name keys"));
        }
        if let Some(endpoint) = &kms.options.endpoint {
            check_endpoint(endpoint)?;
        }
        Ok(kms)
    }

    /// With these credentials in place of the SDK's chain: for a stand-in of the service, which believes any.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_credentials(mut self, id: &str, secret: &str) -> Self {
        self.credentials =
            Some(aws_sdk_kms::config::Credentials::new(id, secret, None, None, "domicile-testing"));
        self
    }

    /// Refuses a key of another region, and one whose material may be in another.
    fn belongs_here(&self, arn: &Arn) -> Result<()> {
        if !arn.is_in(&self.region) {
            return Err(Error::new(Code::ConfigInvalid, format!("{arn} is not a key of {}", self.region))
                .rule("a region's keys are in that region"));
        }
        if arn.is_multi_region() && !self.multi_region.contains(arn) {
            return Err(multi_region(arn));
        }
        Ok(())
    }

    async fn client(&self) -> Result<&Client> {
        Ok(self.client.get_or_init(|| self.connect()).await)
    }

    async fn connect(&self) -> Client {
        use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
        let AwsOptions { endpoint, profile, role, .. } = &self.options;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT)
            .build();
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX).with_initial_backoff(BACKOFF);
        let region = aws_sdk_kms::config::Region::new(self.region.as_str().to_owned());
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(region)
            .http_client(http)
            .timeout_config(timeouts)
            .retry_config(retries);
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        #[cfg(feature = "testing")]
        if let Some(credentials) = &self.credentials {
            loader = loader.credentials_provider(credentials.clone());
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_kms::config::Builder::from(&shared);
        // Ours, or the region's own. The SDK would take one from the environment, which may lead anywhere.
        config.set_endpoint_url(endpoint.clone());
        if let Some(role) = role {
            let assumed = aws_config::sts::AssumeRoleProvider::builder(role)
                .session_name("domicile")
                .configure(&shared)
                .build()
                .await;
            config = config.credentials_provider(assumed);
        }
        Client::from_conf(config.build())
    }

    /// The root key that new wraps lie under, looked at once.
    async fn root(&self) -> Result<&Arn> {
        self.checked_root.get_or_try_init(|| self.look_at_root()).await
    }

    async fn look_at_root(&self) -> Result<Arn> {
        let metadata = self.look_at(&self.root).await?;
        is_to_be(&self.root, metadata.key_usage(), &KeyUsageType::EncryptDecrypt)?;
        is_to_be(&self.root, metadata.key_spec(), &KeySpec::SymmetricDefault)?;
        self.resolved(&self.root, &metadata)
    }

    /// The signing key and its public half, looked at once.
    async fn signing(&self) -> Result<&(Arn, VerifyingKey)> {
        self.checked_signing.get_or_try_init(|| self.look_at_signing()).await
    }

    async fn look_at_signing(&self) -> Result<(Arn, VerifyingKey)> {
        let metadata = self.look_at(&self.signing).await?;
        is_to_be(&self.signing, metadata.key_usage(), &KeyUsageType::SignVerify)?;
        is_to_be(&self.signing, metadata.key_spec(), &KeySpec::EccNistP256)?;
        let arn = self.resolved(&self.signing, &metadata)?;
        let answer = self.client().await?.get_public_key().key_id(arn.as_str()).send().await;
        let answer = answer
            .map_err(|error| failed("give the public half of the signing key", &error).at(arn.as_str()))?;
        answers_for(&arn, answer.key_id())?;
        let der = answer.public_key().map(Blob::as_ref).unwrap_or_default();
        let point = p256::ecdsa::VerifyingKey::from_public_key_der(der)
            .ok()
            .and_then(|key| <[u8; 33]>::try_from(key.to_sec1_point(true).as_bytes()).ok())
            .ok_or_else(|| misread("a public key", &arn))?;
        Ok((arn, VerifyingKey::EcdsaP256(point)))
    }

    /// Asks for a key's properties, and refuses one that may not be used now.
    async fn look_at(&self, arn: &Arn) -> Result<KeyMetadata> {
        let answer = self.client().await?.describe_key().key_id(arn.as_str()).send().await;
        let answer = answer.map_err(|error| failed("describe a key", &error).at(arn.as_str()))?;
        let metadata = answer.key_metadata.ok_or_else(|| misread("a key", arn))?;
        match metadata.key_state() {
            Some(KeyState::Enabled) => Ok(metadata),
            // The way to a custom key store is broken.
            Some(KeyState::Unavailable) => {
                Err(Error::new(Code::KmsUnavailable, "AWS KMS cannot reach the store that a key is in")
                    .at(arn.as_str()))
            }
            state => {
                let state = state.map_or("unknown", KeyState::as_str);
                Err(Error::new(Code::KmsDenied, format!("a key at AWS KMS is not enabled, but {state}"))
                    .at(arn.as_str())
                    .advise("enable it, or cancel its deletion, if it was not switched off on purpose"))
            }
        }
    }

    /// The key that was described, if it is the one that was asked for and may be used.
    fn resolved(&self, asked: &Arn, metadata: &KeyMetadata) -> Result<Arn> {
        let arn: Arn =
            metadata.arn().and_then(|arn| arn.parse().ok()).ok_or_else(|| misread("a key", asked))?;
        if arn.is_alias() || (arn != *asked && !asked.is_alias()) {
            return Err(another_key(asked, arn.as_str()));
        }
        self.belongs_here(&arn)?;
        if metadata.multi_region() == Some(true) && !self.multi_region.contains(&arn) {
            return Err(multi_region(&arn));
        }
        Ok(arn)
    }

    fn context_of(&self, context: &EncryptionContext) -> Result<HashMap<String, String>> {
        if context.region != self.region {
            let what = format!("a key of {} was asked of the key service of {}", context.region, self.region);
            return Err(Error::new(Code::KmsDenied, what));
        }
        Ok(context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

#[async_trait]
impl Kms for AwsKms {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        let context = self.context_of(context)?;
        let root = self.root().await?;
        let call = self.client().await?.generate_data_key().key_id(root.as_str());
        let answer = call.key_spec(DataKeySpec::Aes256).set_encryption_context(Some(context)).send().await;
        let answer = answer.map_err(|error| failed("generate a key", &error).at(root.as_str()))?;
        answers_for(root, answer.key_id())?;
        let wrap = encode(root, answer.ciphertext_blob())?;
        Ok((secret(answer.plaintext, root)?, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        let context = self.context_of(context)?;
        let root = self.root().await?;
        let call =
            self.client().await?.encrypt().key_id(root.as_str()).plaintext(Blob::new(&key.expose()[..]));
        let answer = call.set_encryption_context(Some(context)).send().await;
        let answer = answer.map_err(|error| failed("wrap a key", &error).at(root.as_str()))?;
        answers_for(root, answer.key_id())?;
        encode(root, answer.ciphertext_blob())
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        let context = self.context_of(context)?;
        let (named, ciphertext) = decode(wrap).map_err(|_| {
            Error::new(Code::KmsUnverified, format!("a wrap of a key of {} does not verify", self.region))
        })?;
        let root = match self.former.iter().find(|arn| arn.as_str() == named) {
            Some(former) => former,
            None => self.root().await?,
        };
        if root.as_str() != named {
            return Err(Error::new(
                Code::KmsDenied,
                format!("a key of {} was wrapped by another root key", self.region),
            )
            .at(named.escape_default().to_string())
            .advise("if it is an earlier root key of this region, name it under `former`"));
        }
        let call =
            self.client().await?.decrypt().key_id(root.as_str()).ciphertext_blob(Blob::new(ciphertext));
        let answer = call.set_encryption_context(Some(context)).send().await;
        let answer = answer.map_err(|error| failed("unwrap a key", &error).at(root.as_str()))?;
        answers_for(root, answer.key_id())?;
        secret(answer.plaintext, root)
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let (arn, key) = self.signing().await?;
        let call = self
            .client()
            .await?
            .sign()
            .key_id(arn.as_str())
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        // A digest always: a message may have 4,096 octets at most, and a statement more.
        let call =
            call.message_type(MessageType::Digest).message(Blob::new(Sha256::digest(statement).to_vec()));
        let answer = call.send().await.map_err(|error| failed("sign", &error).at(arn.as_str()))?;
        answers_for(arn, answer.key_id())?;
        let signature = low_s(answer.signature().map(Blob::as_ref).unwrap_or_default());
        let signature = signature.map_err(|_| misread("a signature", arn))?;
        key.verify(statement, &signature).map_err(|_| misread("a signature", arn))?;
        Ok(signature)
    }

    /// Asks the service, each time.
    async fn describe(&self) -> Result<KmsDescription> {
        let root = self.look_at_root().await?.to_string();
        let (_, verifying_key) = self.look_at_signing().await?;
        Ok(KmsDescription { provider: "aws", root, verifying_key })
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        decode(wrap).ok().map(|(named, _)| named.to_owned())
    }

    async fn current_root(&self) -> Result<String> {
        Ok(self.root().await?.to_string())
    }

    /// A Decrypt that only says whether it would be allowed.
    async fn probe(&self) -> Result<()> {
        let root = self.root().await?;
        let context = [("domicile:kind", "branch-key"), ("domicile:region", self.region.as_str())];
        let context = context.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let call = self.client().await?.decrypt().key_id(root.as_str()).ciphertext_blob(Blob::new([0; 32]));
        let call = call.dry_run(true).dry_run_modifiers(DryRunModifierType::IgnoreCiphertext);
        match call.set_encryption_context(Some(context.into())).send().await {
            Err(error)
                if error.as_service_error().is_some_and(DecryptError::is_dry_run_operation_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(failed("say whether it would unwrap a key", &error).at(root.as_str())),
            // It would have to say that this was a rehearsal.
            Ok(_) => Err(misread("a rehearsal", root)),
        }
    }
}

/// A wrap names its root key, because a ciphertext of AWS KMS says nothing that can be read here (KEY-21).
fn encode(root: &Arn, ciphertext: Option<&Blob>) -> Result<Vec<u8>> {
    let ciphertext = ciphertext.map(Blob::as_ref).unwrap_or_default();
    let name = root.as_str().as_bytes();
    let length = u8::try_from(name.len()).map_err(|_| misread("a key", root))?;
    let wrap = [&[WRAP_VERSION, length][..], name, ciphertext].concat();
    if ciphertext.is_empty() || wrap.len() > WRAP_BYTES_MAX {
        return Err(misread("a wrap", root));
    }
    Ok(wrap)
}

fn decode(wrap: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let mut input = Decoder::new(wrap);
    if input.u8("version")? != WRAP_VERSION {
        return Err(Malformed { what: "version", at: 0 });
    }
    let named = input.text("root key")?;
    if named.is_empty() || input.remaining() == 0 || wrap.len() > WRAP_BYTES_MAX {
        return Err(Malformed { what: "wrap", at: 0 });
    }
    Ok((named, input.rest()))
}

/// A key out of an answer, whose own copy is wiped.
fn secret(plaintext: Option<Blob>, root: &Arn) -> Result<Secret> {
    let plaintext = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
    let mut bytes: [u8; 32] = plaintext[..].try_into().map_err(|_| misread("a key", root))?;
    let secret = Secret::copied_from(&bytes);
    bytes.zeroize();
    Ok(secret)
}

/// The answer must say that it comes from the key that was asked.
fn answers_for(asked: &Arn, answered: Option<&str>) -> Result<()> {
    match answered {
        Some(answered) if answered == asked.as_str() => Ok(()),
        answered => Err(another_key(asked, answered.unwrap_or("none"))),
    }
}

fn another_key(asked: &Arn, answered: &str) -> Error {
    let answered: String = answered.escape_default().take(300).collect();
    Error::new(Code::KmsUnverified, format!("AWS KMS answered for another key ({answered})"))
        .at(asked.as_str())
        .rule("an answer counts if it names the key that was asked")
}

fn misread(what: &str, arn: &Arn) -> Error {
    Error::new(Code::KmsUnverified, format!("AWS KMS answered with {what} that is none")).at(arn.as_str())
}

fn multi_region(arn: &Arn) -> Error {
    Error::new(
        Code::ConfigInvalid,
        format!("{arn} is a multi-Region key: copies of it may be in other regions"),
    )
    .rule("a root or signing key is in one region")
    .advise("make a single-Region key; if this one must be, name it under `multi_region`")
}

fn is_to_be<T: PartialEq + fmt::Display>(arn: &Arn, is: Option<&T>, is_to_be: &T) -> Result<()> {
    if is == Some(is_to_be) {
        return Ok(());
    }
    let is = is.map_or("unknown".to_owned(), ToString::to_string);
    Err(Error::new(Code::ConfigInvalid, format!("a key at AWS KMS is {is}, and not {is_to_be}"))
        .at(arn.as_str())
        .advise("a root key is SYMMETRIC_DEFAULT for ENCRYPT_DECRYPT, a signing key ECC_NIST_P256 for SIGN_VERIFY"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const SIGNING: &str = "arn:aws:kms:eu-central-1:123456789012:alias/signing";
    const MULTI: &str = "arn:aws:kms:eu-central-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab";

    fn new(change: impl Fn(&mut AwsOptions)) -> Result<AwsKms> {
        let mut options = AwsOptions::new(ROOT, SIGNING);
        change(&mut options);
        AwsKms::new("eu-central-1".parse().unwrap(), options)
    }

    #[test]
    fn keys_elsewhere_are_refused_before_any_call() {
        new(|_| ()).unwrap();
        let elsewhere = ROOT.replace("eu-central-1", "us-east-1");
        type Change<'a> = &'a dyn Fn(&mut AwsOptions);
        let bad: [(&str, Change<'_>); 7] = [
            ("a root elsewhere", &|options| options.root = elsewhere.clone()),
            ("a signing key elsewhere", &|options| options.signing = elsewhere.clone()),
            ("a former root elsewhere", &|options| options.former = vec![elsewhere.clone()]),
            ("a former alias", &|options| options.former = vec![SIGNING.into()]),
            ("an id", &|options| options.root = "1234abcd-12ab-34cd-56ef-1234567890ab".into()),
            ("a multi-Region key", &|options| options.root = MULTI.into()),
            ("a former multi-Region key", &|options| options.former = vec![MULTI.into()]),
        ];
        for (what, change) in bad {
            assert_eq!(new(change).unwrap_err().code(), Code::ConfigInvalid, "{what}");
        }
        new(|options| {
            options.root = MULTI.into();
            options.multi_region = vec![MULTI.into()];
        })
        .unwrap();
    }

    #[test]
    fn keys_are_sent_over_tls_or_stay_on_this_host() {
        for good in [
            "https://vpce-1.kms.eu-central-1.vpce.amazonaws.com",
            "http://127.0.0.1:5000",
            "http://[::1]:1/",
            "http://localhost",
        ] {
            new(|options| options.endpoint = Some(good.into())).unwrap();
        }
        for bad in [
            "http://10.0.0.1",
            "http://127.0.0.1.example.org",
            "http://localhost@example.org",
            "ftp://x",
            "",
            "https://",
        ] {
            let error = new(|options| options.endpoint = Some(bad.into())).unwrap_err();
            assert_eq!(error.code(), Code::ConfigInvalid, "{bad}");
        }
    }

    /// KEY-21
    #[test]
    fn a_wrap_names_its_root_key() {
        let kms = new(|_| ()).unwrap();
        let wrap = encode(&kms.root, Some(&Blob::new([7; 150]))).unwrap();
        assert_eq!(wrap[..2], [2, u8::try_from(ROOT.len()).unwrap()]);
        assert_eq!(decode(&wrap).unwrap(), (ROOT, &[7; 150][..]));
        assert_eq!(kms.root_of(&wrap).as_deref(), Some(ROOT));
        for length in 0..=2 + ROOT.len() {
            assert_eq!(kms.root_of(&wrap[..length]), None, "{length}");
        }
        assert_eq!(kms.root_of(&[&[1], &wrap[1..]].concat()), None);
        // At the limit and beyond it.
        let room = WRAP_BYTES_MAX - 2 - ROOT.len();
        assert_eq!(encode(&kms.root, Some(&Blob::new(vec![7; room]))).unwrap().len(), WRAP_BYTES_MAX);
        assert!(encode(&kms.root, Some(&Blob::new(vec![7; room + 1]))).is_err());
        assert!(encode(&kms.root, None).is_err());
    }

    #[tokio::test]
    async fn a_wrap_of_a_root_that_is_not_configured_is_denied_by_name() {
        let kms = new(|_| ()).unwrap();
        kms.checked_root.set(kms.root.clone()).unwrap();
        let other: Arn = ROOT.replace("1234abcd", "ffffffff").parse().unwrap();
        let wrap = encode(&other, Some(&Blob::new([7; 150]))).unwrap();
        let context = EncryptionContext {
            region: "eu-central-1".parse().unwrap(),
            owner: crate::scope::TenantId::REGION,
            period: "2026-11".parse().unwrap(),
            kind: crate::context::KeyKind::Branch,
            version: 1,
            generation: 1,
            share: None,
        };
        let error = kms.unwrap(&wrap, &context).await.unwrap_err();
        assert_eq!(error.code(), Code::KmsDenied);
        assert_eq!(error.place(), Some(other.as_str()));
        let elsewhere = EncryptionContext { region: "us-east-1".parse().unwrap(), ..context };
        assert_eq!(kms.unwrap(&wrap, &elsewhere).await.unwrap_err().code(), Code::KmsDenied);
    }
}

//! A hardware security module as key service, by PKCS#11: one region's root key and signing key on a token.
//!
//! The root key is AES-256 and wraps with AES-GCM inside the token, under the encryption context as associated data.
//! Formats: page `keys.md` of the book, KEY-25.

mod failure;
mod keys;
mod pool;
mod token;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use cryptoki::session::Session;
use zeroize::Zeroizing;

use self::failure::{Fault, for_its_operator};
use self::keys::{NONCE_BYTES, SEALED_BYTES};
use self::pool::Pool;
use self::token::{Token, pin_of_one_place};
use super::{Kms, KmsDescription, Pkcs11Options};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::Secret;
use crate::wire::{Decoder, Encoder, Malformed};

const WRAP_VERSION: u8 = 4;
const WRAP_LABEL: &str = "domicile/v1/pkcs11-wrap";
/// No context has this encoding.
const REHEARSAL_LABEL: &[u8] = b"domicile/v1/pkcs11-rehearsal";
/// A key is waited for by whoever opens or seals: an answer after six seconds is none.
const TIMEOUT: Duration = Duration::from_secs(6);

/// The key service of a region whose keys are on a token of a hardware security module.
///
/// The module that its maker gives is loaded at the first use, once for the process, and stays. Its calls block, so that
/// they are made on four threads of this key service, each with a session. At each use, keys are looked at: a root key that
/// is not sensitive, or may be extracted, or ever might have been, is refused. The first wrap of a process is opened again,
/// with and without its context, which shows that the module used both the nonce and the context that it was given. A wrong
/// PIN is tried once: tokens lock.
///
/// Keys pass through buffers of the crate `cryptoki` and of the module, of which the former wipes none.
pub struct Pkcs11Kms {
    region: Region,
    shared: Arc<Shared>,
    pool: Pool<Worker>,
}

/// What the threads know.
struct Shared {
    token: Token,
    randomness: Arc<dyn Randomness>,
    /// Whether the module was seen to do as it is told.
    proven: OnceLock<()>,
}

/// One thread's session, while there is one.
struct Worker {
    shared: Arc<Shared>,
    session: Option<Session>,
}

impl fmt::Debug for Pkcs11Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Kms")
            .field("region", &self.region)
            .field("token", &self.shared.token.options.token)
            .field("root", &self.shared.token.options.root)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Does something in a session, and once more in a new one where the first turns out to be gone.
    fn in_session<T>(
        &mut self,
        what: &str,
        mut body: impl FnMut(&Shared, &Session) -> Result<T, Fault>,
    ) -> Result<T> {
        let begun = self.session.is_some();
        let first = self.once(&mut body);
        let done = match first {
            Err(fault) if begun && fault.is_lost() => self.once(&mut body),
            done => done,
        };
        done.map_err(|fault| fault.error(what).at(self.shared.token.options.token.clone()))
    }

    fn once<T>(&mut self, body: &mut impl FnMut(&Shared, &Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let session = match self.session.take() {
            Some(session) if token::is_logged_in(&session).unwrap_or(false) => session,
            // In a session whose login is gone, a token shows no keys.
            _ => self.shared.token.session(false)?,
        };
        let done = body(&self.shared, &session);
        // What the module is ill at ease with may still be going on in its session. A refusal of ours changes nothing there.
        if !matches!(&done, Err(Fault::Module(_))) {
            self.session = Some(session);
        }
        done
    }

    /// Does something that changes the token, in a session of its own, and never twice.
    fn writing<T>(&mut self, body: impl FnOnce(&Shared, &Session) -> Result<T, Fault>) -> Result<T, Fault> {
        let session = self.shared.token.session(true)?;
        body(&self.shared, &session)
    }
}

impl Pkcs11Kms {
    /// The key service behind these keys. Nothing is loaded or asked yet.
    ///
    /// # Errors
    /// [`ConfigInvalid`](Code::ConfigInvalid) when a name is empty or the PIN does not come from one place.
    pub fn new(region: Region, options: Pkcs11Options) -> Result<Self> {
        if options.pin_file.is_some() == options.pin_env.is_some() {
            return Err(pin_of_one_place());
        }
        for name in [&options.token, &options.root, &options.signing] {
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(Error::new(Code::ConfigInvalid, "a token or a key has no name")
                    .rule("a name is printable, and not empty"));
            }
        }
        let shared = Arc::new(Shared {
            token: Token { options },
            randomness: Arc::new(OsRandom),
            proven: OnceLock::new(),
        });
        Ok(Self { region, shared, pool: Pool::new(TIMEOUT) })
    }

    /// Makes a root key and a signing key pair (ECDSA on P-256) on the token, where there is neither: so that they are
    /// sensitive, cannot be extracted, and never could.
    ///
    /// # Errors
    /// [`ConfigExists`](Code::ConfigExists) when there are keys with one of the labels; those of the token.
    pub async fn create_keys(&self) -> Result<KmsDescription> {
        self.run(|worker| {
            let token = worker.shared.token.options.token.clone();
            let made = worker.writing(|shared, session| {
                let options = &shared.token.options;
                for label in [&options.root, &options.signing] {
                    if keys::is_taken(session, label)? {
                        return Err(Error::new(Code::ConfigExists, "there are keys with this label")
                            .at(label.clone())
                            .advise("keep them: what they sealed opens with nothing else")
                            .into());
                    }
                }
                keys::make_root(session, &options.root, &[1])?;
                keys::make_signing(session, &options.signing)
            });
            made.map_err(|fault| fault.error("make keys").at(token))
        })
        .await?;
        self.describe().await
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = self.shared.clone();
        let make = move || Worker { shared: shared.clone(), session: None };
        let done = self.pool.run(make, job).await;
        done.map_err(|error| match error.place() {
            Some(_) => error,
            None => error.at(self.shared.token.options.token.clone()),
        })
    }

    fn belongs_here(&self, context: &EncryptionContext) -> Result<()> {
        if context.region == self.region {
            return Ok(());
        }
        let what = format!("a key of {} was asked of the key service of {}", context.region, self.region);
        Err(Error::new(Code::KmsDenied, what))
    }
}

impl Shared {
    /// Wraps under the current root key.
    fn seal(&self, session: &Session, ad: &[u8], secret: &Secret) -> Result<Wrap, Fault> {
        let root = keys::current(keys::roots(session, &self.token.options.root)?, &self.token.options.root)?;
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let sealed = keys::encrypt(session, &root, &nonce, ad, secret.expose())?;
        Ok(Wrap { root: root.id, nonce, sealed })
    }

    /// Opens what a root key wrapped.
    fn open(&self, session: &Session, ad: &[u8], wrap: &Wrap) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let label = &self.token.options.root;
        let root = keys::roots(session, label)?.into_iter().find(|root| root.id == wrap.root);
        let root = root.ok_or_else(|| {
            let id = hex::encode(&wrap.root);
            Error::new(Code::KmsDenied, format!("a key was wrapped by another root key ({id})"))
                .at(label.clone())
                .advise("see which token this is, and whether the key was destroyed")
        })?;
        match keys::decrypt(session, &root, wrap, ad) {
            // Some modules have no other word for a wrap that does not verify. One that is well opens what it wraps.
            Err(fault) if fault.is_vague() && self.rehearse(session).is_ok() => {
                let label = label.clone();
                Err(Error::new(Code::KmsUnverified, "a wrap does not verify").at(label).into())
            }
            opened => opened,
        }
    }

    /// Wraps octets of no meaning, and opens them.
    fn rehearse(&self, session: &Session) -> Result<(), Fault> {
        let secret = Secret::random(&*self.randomness)?;
        let label = &self.token.options.root;
        let root = keys::current(keys::roots(session, label)?, label)?;
        let mut nonce = [0; NONCE_BYTES];
        self.randomness.fill(&mut nonce)?;
        let sealed = keys::encrypt(session, &root, &nonce, REHEARSAL_LABEL, secret.expose())?;
        let wrap = Wrap { root: root.id.clone(), nonce, sealed };
        let opened = keys::decrypt(session, &root, &wrap, REHEARSAL_LABEL)?;
        if opened[..] == secret.expose()[..] { Ok(()) } else { Err(disobedient(label).into()) }
    }

    /// Shows once that the module used the nonce and the context that it was given.
    fn prove(&self, session: &Session, ad: &[u8], secret: &Secret, wrap: &Wrap) -> Result<(), Fault> {
        if self.proven.get().is_some() {
            return Ok(());
        }
        let label = &self.token.options.root;
        let opened = self.open(session, ad, wrap)?;
        if !crate::secret::same(&opened, secret.expose()) {
            return Err(disobedient(label).into());
        }
        match self.open(session, REHEARSAL_LABEL, wrap).map_err(|fault| fault.error("unwrap a key")) {
            Err(error) if error.code() == Code::KmsUnverified => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Err(disobedient(label).into()),
        }
        let _ = self.proven.set(());
        Ok(())
    }
}

/// A module that does something else than AES-GCM with what it is given.
fn disobedient(label: &str) -> Error {
    Error::new(
        Code::KmsUnverified,
        "the module does not wrap with the nonce and the context that it is given",
    )
    .at(label)
    .rule("a wrap opens under its own nonce and context alone")
    .advise("see whether the module has a mode in which AES-GCM takes the caller's nonce")
}

#[async_trait]
impl Kms for Pkcs11Kms {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        self.belongs_here(context)?;
        let key = Secret::random(&*self.shared.randomness)?;
        let wrap = self.wrap(&key, context).await?;
        Ok((key, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        self.belongs_here(context)?;
        let ad = context.encode(WRAP_LABEL);
        let secret = Secret::copied_from(key.expose());
        self.run(move |worker| {
            worker.in_session("wrap a key", |shared, session| {
                let wrap = shared.seal(session, &ad, &secret)?;
                shared.prove(session, &ad, &secret, &wrap)?;
                let encoded = wrap.encode();
                Ok(encoded.map_err(|_| Error::new(Code::KmsUnverified, "a wrap that cannot be written"))?)
            })
        })
        .await
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        self.belongs_here(context)?;
        let region = self.region.clone();
        let unverified =
            move || Error::new(Code::KmsUnverified, format!("a wrap of a key of {region} does not verify"));
        let wrap = Wrap::decode(wrap).map_err(|_| unverified())?;
        let ad = context.encode(WRAP_LABEL);
        self.run(move |worker| {
            let opened =
                worker.in_session("unwrap a key", |shared, session| shared.open(session, &ad, &wrap))?;
            let bytes: &[u8; 32] = opened[..].try_into().map_err(|_| unverified())?;
            Ok(Secret::copied_from(bytes))
        })
        .await
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let statement = statement.to_vec();
        self.run(move |worker| {
            worker.in_session("sign", |shared, session| {
                keys::signing(session, &shared.token.options.signing)?.sign(session, &statement)
            })
        })
        .await
    }

    /// Asks the token, each time.
    async fn describe(&self) -> Result<KmsDescription> {
        self.run(|worker| {
            worker.in_session("describe a key", |shared, session| {
                let options = &shared.token.options;
                let root = keys::current(keys::roots(session, &options.root)?, &options.root)?;
                let verifying_key = keys::signing(session, &options.signing)?.public;
                Ok(KmsDescription { provider: "pkcs11", root: hex::encode(&root.id), verifying_key })
            })
        })
        .await
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        Wrap::decode(wrap).ok().map(|wrap| hex::encode(&wrap.root))
    }

    async fn current_root(&self) -> Result<String> {
        self.run(|worker| {
            worker.in_session("describe a key", |shared, session| {
                let label = &shared.token.options.root;
                Ok(hex::encode(&keys::current(keys::roots(session, label)?, label)?.id))
            })
        })
        .await
    }

    async fn rotate_root(&self) -> Result<String> {
        self.run(|worker| {
            let made = worker.writing(|shared, session| {
                let label = &shared.token.options.root;
                let next = keys::next_id(&keys::current(keys::roots(session, label)?, label)?, label)?;
                let made = keys::make_root(session, label, &next)?;
                // Another host may have made one of the same id in this very moment; nothing lies under either yet, and
                // nothing is wrapped while there are two.
                if keys::roots(session, label).is_err() {
                    session.destroy_object(made)?;
                    return Err(Error::new(
                        Code::KmsUnavailable,
                        "another root key was made at the same time",
                    )
                    .at(label.clone())
                    .advise("see which root keys there are, and rotate again")
                    .into());
                }
                Ok(hex::encode(&next))
            });
            made.map_err(|fault| for_its_operator(fault, "make a root key"))
        })
        .await
    }

    async fn retire_root(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.run(move |worker| {
            let retired = worker.writing(|shared, session| {
                let label = &shared.token.options.root;
                let roots = keys::roots(session, label)?;
                let invalid = |what: &str| Error::new(Code::ArgumentInvalid, what).at(label.clone());
                let Some(at) = roots.iter().position(|root| hex::encode(&root.id) == id) else {
                    return Err(invalid("there is no root key with this id").into());
                };
                if at + 1 == roots.len() {
                    return Err(invalid("the current root key is not dropped")
                        .advise("rotate first, and rewrap what lies under it")
                        .into());
                }
                if let Some(root) = roots.get(at) {
                    session.destroy_object(root.handle)?;
                }
                Ok(())
            });
            retired.map_err(|fault| for_its_operator(fault, "destroy a root key"))
        })
        .await
    }

    /// Wraps octets of no meaning and opens them.
    async fn probe(&self) -> Result<()> {
        self.run(|worker| worker.in_session("wrap and unwrap", Shared::rehearse)).await
    }
}

/// What a wrap holds: the id of the root key (`CKA_ID`), the nonce, and what the token made of the branch key (KEY-25).
struct Wrap {
    root: Vec<u8>,
    nonce: [u8; NONCE_BYTES],
    sealed: [u8; SEALED_BYTES],
}

impl Wrap {
    fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        out.u8(WRAP_VERSION).short(&self.root, "id of the root key")?;
        out.raw(&self.nonce).raw(&self.sealed);
        Ok(out.finish())
    }

    fn decode(wrap: &[u8]) -> Result<Self, Malformed> {
        let mut input = Decoder::new(wrap);
        if input.u8("version")? != WRAP_VERSION {
            return Err(Malformed { what: "version", at: 0 });
        }
        let root = input.short("id of the root key")?.to_vec();
        let wrap = Self { root, nonce: input.array("nonce")?, sealed: input.array("sealed key")? };
        input.end("end of the wrap")?;
        if !keys::is_id(&wrap.root) {
            return Err(Malformed { what: "id of the root key", at: 1 });
        }
        Ok(wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEY-25
    #[test]
    fn a_wrap_names_its_root_key() {
        let wrap = Wrap { root: vec![7, 8], nonce: [1; 12], sealed: [2; 48] };
        let encoded = wrap.encode().unwrap();
        assert_eq!(encoded.len(), 2 + 2 + 60);
        assert_eq!(encoded[..4], [4, 2, 7, 8]);
        let read = Wrap::decode(&encoded).unwrap();
        assert_eq!((read.root, read.nonce, read.sealed), (vec![7, 8], [1; 12], [2; 48]));
        for length in 0..encoded.len() {
            assert!(Wrap::decode(&encoded[..length]).is_err(), "{length}");
        }
        assert!(Wrap::decode(&[&encoded[..], &[0]].concat()).is_err());
        assert!(Wrap::decode(&[&[3], &encoded[1..]].concat()).is_err());
        assert!(Wrap::decode(&[&[4, 0], &encoded[4..]].concat()).is_err(), "no id");
    }

    #[test]
    fn a_pin_comes_from_one_place() {
        let options = Pkcs11Options::new("/lib/m.so", "token", "root", "signing", "/etc/pin");
        let new = |change: &dyn Fn(&mut Pkcs11Options)| {
            let mut options = options.clone();
            change(&mut options);
            Pkcs11Kms::new("eu".parse().unwrap(), options).map(|_| ()).map_err(|error| error.code())
        };
        assert_eq!(new(&|_| ()), Ok(()));
        assert_eq!(new(&|options| options.pin_file = None), Err(Code::ConfigInvalid));
        assert_eq!(new(&|options| options.pin_env = Some("PIN".into())), Err(Code::ConfigInvalid));
        assert_eq!(new(&|options| options.root = String::new()), Err(Code::ConfigInvalid));
    }
}

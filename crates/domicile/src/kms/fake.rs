//! A key service in memory, for tests: it really wraps and signs, and fails when and as it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ed25519_dalek::{Signer, SigningKey};
use tokio::sync::watch;

use super::root::{Root, RootId, Wrap, old_root};
use super::{Kms, KmsDescription, VerifyingKey};
use crate::context::EncryptionContext;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::random::{OsRandom, Randomness};
use crate::region::Region;
use crate::secret::Secret;

/// A key service whose keys are in memory and whose behaviour a test scripts. Clones are one service.
///
/// Nothing in it depends on a clock or a seed of its own: a call is answered by what was set before it, and a delay
/// ends when the test moves the [`Gate`].
///
/// ```
/// use domicile::Code;
/// use domicile::kms::{Answer, FakeKms, Kms, Operation};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let kms = FakeKms::new("eu-central-1".parse()?)?;
/// kms.script(Operation::Sign, [Answer::Throttled]);
/// assert_eq!(kms.sign(b"a statement").await.unwrap_err().code(), Code::KmsUnavailable);
/// assert!(kms.sign(b"a statement").await.is_ok());
/// assert_eq!(kms.calls(Operation::Sign), 2);
/// # Ok::<(), domicile::Error>(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct FakeKms {
    inner: Arc<Inner>,
}

/// What is asked of a key service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Kms::generate`].
    Generate,
    /// [`Kms::wrap`].
    Wrap,
    /// [`Kms::unwrap`].
    Unwrap,
    /// [`Kms::sign`].
    Sign,
    /// [`Kms::describe`].
    Describe,
    /// [`Kms::rotate_root`].
    RotateRoot,
    /// [`Kms::retire_root`].
    RetireRoot,
    /// [`Kms::probe`].
    Probe,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 8] = [
        Operation::Generate,
        Operation::Wrap,
        Operation::Unwrap,
        Operation::Sign,
        Operation::Describe,
        Operation::RotateRoot,
        Operation::RetireRoot,
        Operation::Probe,
    ];
}

/// How one call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// As a key service should.
    Ok,
    /// Too many calls: [`KmsUnavailable`](Code::KmsUnavailable).
    Throttled,
    /// No answer in time: [`KmsUnavailable`](Code::KmsUnavailable).
    Unavailable,
    /// The caller may not: [`KmsDenied`](Code::KmsDenied).
    Denied,
    /// The call succeeds, and what it gives is wrong: a key, wrap or signature that is another.
    Malformed,
    /// The answer names another key than was asked for: [`KmsUnverified`](Code::KmsUnverified).
    WrongKey,
}

/// What state the service's keys are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyStatus {
    /// They may be used.
    Enabled,
    /// Somebody switched them off; they can be described.
    Disabled,
    /// They will be destroyed; they can be described.
    PendingDeletion,
}

#[derive(Debug)]
struct Inner {
    region: Region,
    signing: SigningKey,
    randomness: Arc<dyn Randomness>,
    gate: Gate,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The first is current.
    roots: Vec<Root>,
    status: KeyStatus,
    scripts: BTreeMap<Operation, VecDeque<Answer>>,
    away: BTreeSet<Operation>,
    delays: BTreeMap<Operation, Duration>,
    calls: BTreeMap<Operation, usize>,
    contexts: Vec<(Operation, EncryptionContext)>,
}

impl FakeKms {
    /// A key service with keys of its own, enabled, that answers at once.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn new(region: Region) -> Result<Self> {
        Self::with_randomness(region, Arc::new(OsRandom))
    }

    /// The same from this randomness: keys and wraps repeat if it does.
    ///
    /// # Errors
    /// [`RandomUnavailable`](Code::RandomUnavailable).
    pub fn with_randomness(region: Region, randomness: Arc<dyn Randomness>) -> Result<Self> {
        let state = State {
            roots: vec![Root::random(&*randomness)?],
            status: KeyStatus::Enabled,
            scripts: BTreeMap::new(),
            away: BTreeSet::new(),
            delays: BTreeMap::new(),
            calls: BTreeMap::new(),
            contexts: Vec::new(),
        };
        let signing = SigningKey::from_bytes(Secret::random(&*randomness)?.expose());
        let inner = Inner { region, signing, randomness, gate: Gate::new(), state: Mutex::new(state) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sets the state of its keys, until it is set again.
    pub fn set_status(&self, status: KeyStatus) {
        self.state().status = status;
    }

    /// Appends to the answers of the next calls of an operation; after them it answers as it should.
    pub fn script(&self, operation: Operation, answers: impl IntoIterator<Item = Answer>) {
        self.state().scripts.entry(operation).or_default().extend(answers);
    }

    /// Puts an operation out of reach, and leaves the others.
    pub fn take_away(&self, operation: Operation) {
        self.state().away.insert(operation);
    }

    /// Brings it back.
    pub fn bring_back(&self, operation: Operation) {
        self.state().away.remove(&operation);
    }

    /// Delays the calls of an operation that begin from now on, on the [`gate`](Self::gate)'s clock.
    pub fn delay(&self, operation: Operation, delay: Duration) {
        self.state().delays.insert(operation, delay);
    }

    /// Where delayed calls wait.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// How often an operation was asked for, whatever came of it.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        self.state().calls.get(&operation).copied().unwrap_or(0)
    }

    /// The contexts of all calls that had one, in order.
    #[must_use]
    pub fn contexts(&self) -> Vec<(Operation, EncryptionContext)> {
        self.state().contexts.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, waits as long as it is delayed, and says whether its answer is to be spoilt.
    async fn begin(&self, operation: Operation, context: Option<&EncryptionContext>) -> Result<Spoilt> {
        let (answer, delay) = {
            let mut state = self.state();
            *state.calls.entry(operation).or_default() += 1;
            if let Some(context) = context {
                state.contexts.push((operation, context.clone()));
            }
            let answer = state.scripts.get_mut(&operation).and_then(VecDeque::pop_front);
            (answer.unwrap_or(Answer::Ok), state.delays.get(&operation).copied())
        };
        if let Some(delay) = delay {
            self.inner.gate.pass(delay).await;
        }
        let region = &self.inner.region;
        if let Some(context) = context.filter(|context| context.region != *region) {
            let what = format!("a key of {} was asked of the key service of {region}", context.region);
            return Err(Error::new(Code::KmsDenied, what));
        }
        let (status, away) = {
            let state = self.state();
            (state.status, state.away.contains(&operation))
        };
        let denied = |why: &str| Error::new(Code::KmsDenied, format!("the key service of {region} {why}"));
        let unavailable =
            |why: &str| Error::new(Code::KmsUnavailable, format!("the key service of {region} {why}"));
        if away {
            return Err(unavailable("is out of reach"));
        }
        match status {
            KeyStatus::Disabled if operation != Operation::Describe => {
                return Err(denied("says that its key is disabled"));
            }
            KeyStatus::PendingDeletion if operation != Operation::Describe => {
                return Err(denied("says that its key is to be deleted"));
            }
            _ => {}
        }
        match answer {
            Answer::Ok => Ok(Spoilt(false)),
            Answer::Malformed => Ok(Spoilt(true)),
            Answer::Throttled => Err(unavailable("is asked too often")),
            Answer::Unavailable => Err(unavailable("did not answer in time")),
            Answer::Denied => Err(denied("says no")),
            Answer::WrongKey => Err(Error::new(
                Code::KmsUnverified,
                format!("the key service of {region} answered for another key"),
            )),
        }
    }

    fn wrap_now(&self, key: &Secret, context: &EncryptionContext, spoilt: &Spoilt) -> Result<Vec<u8>> {
        let state = self.state();
        let root = state.roots.first().ok_or_else(|| no_root(&self.inner.region))?;
        Ok(spoilt.bytes(root.wrap(&*self.inner.randomness, key, context)?))
    }
}

/// Whether an answer is to be wrong.
struct Spoilt(bool);

impl Spoilt {
    fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if let Some(last) = bytes.last_mut().filter(|_| self.0) {
            *last ^= 1;
        }
        bytes
    }

    fn secret(&self, secret: Secret) -> Secret {
        if !self.0 {
            return secret;
        }
        Secret::filled_by(|other| {
            other.copy_from_slice(secret.expose());
            let [first, ..] = other;
            *first ^= 1;
        })
    }
}

fn no_root(region: &Region) -> Error {
    Error::new(Code::KmsDenied, format!("the key service of {region} has no root key"))
}

#[async_trait]
impl Kms for FakeKms {
    async fn generate(&self, context: &EncryptionContext) -> Result<(Secret, Vec<u8>)> {
        let spoilt = self.begin(Operation::Generate, Some(context)).await?;
        let key = Secret::random(&*self.inner.randomness)?;
        let wrap = self.wrap_now(&key, context, &spoilt)?;
        Ok((key, wrap))
    }

    async fn wrap(&self, key: &Secret, context: &EncryptionContext) -> Result<Vec<u8>> {
        let spoilt = self.begin(Operation::Wrap, Some(context)).await?;
        self.wrap_now(key, context, &spoilt)
    }

    async fn unwrap(&self, wrap: &[u8], context: &EncryptionContext) -> Result<Secret> {
        let spoilt = self.begin(Operation::Unwrap, Some(context)).await?;
        let region = &self.inner.region;
        let unverified = || {
            Error::new(Code::KmsUnverified, format!("a wrap under the root key of {region} does not verify"))
        };
        let wrap = Wrap::decode(wrap).map_err(|_| unverified())?;
        let state = self.state();
        let root = state.roots.iter().find(|root| root.id == wrap.root).ok_or_else(|| {
            let id = hex::encode(&wrap.root);
            Error::new(Code::KmsDenied, format!("a key of {region} was wrapped by another root key ({id})"))
        })?;
        root.unwrap(&wrap, context).map(|key| spoilt.secret(key)).map_err(|_| unverified())
    }

    async fn sign(&self, statement: &[u8]) -> Result<Vec<u8>> {
        let spoilt = self.begin(Operation::Sign, None).await?;
        Ok(spoilt.bytes(self.inner.signing.sign(statement).to_bytes().to_vec()))
    }

    async fn describe(&self) -> Result<KmsDescription> {
        let spoilt = self.begin(Operation::Describe, None).await?;
        let id: RootId =
            self.state().roots.first().map(|root| root.id).ok_or_else(|| no_root(&self.inner.region))?;
        Ok(KmsDescription {
            provider: "fake",
            root: hex::encode(&spoilt.bytes(id.to_vec())),
            verifying_key: VerifyingKey::Ed25519(*self.inner.signing.verifying_key().as_bytes()),
        })
    }

    fn root_of(&self, wrap: &[u8]) -> Option<String> {
        Wrap::decode(wrap).ok().map(|wrap| hex::encode(&wrap.root))
    }

    /// Known without a call, and not counted as one.
    async fn current_root(&self) -> Result<String> {
        let root = self.state().roots.first().map(|root| hex::encode(&root.id));
        root.ok_or_else(|| no_root(&self.inner.region))
    }

    async fn rotate_root(&self) -> Result<String> {
        let spoilt = self.begin(Operation::RotateRoot, None).await?;
        let root = Root::random(&*self.inner.randomness)?;
        let id = hex::encode(&spoilt.bytes(root.id.to_vec()));
        self.state().roots.insert(0, root);
        Ok(id)
    }

    async fn retire_root(&self, id: &str) -> Result<()> {
        let Spoilt(spoilt) = self.begin(Operation::RetireRoot, None).await?;
        let mut state = self.state();
        let at = old_root(&state.roots, id)?;
        // Malformed: it says that it did.
        if !spoilt {
            state.roots.remove(at);
        }
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        self.begin(Operation::Probe, None).await.map(|_| ())
    }
}

/// A clock that a test moves by hand, and on which delayed calls wait. Clones are one clock.
#[derive(Debug, Clone)]
pub struct Gate {
    now: Arc<watch::Sender<Duration>>,
    held: Arc<watch::Sender<usize>>,
    passed: Arc<AtomicUsize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: Arc::new(watch::Sender::new(Duration::ZERO)),
            held: Arc::new(watch::Sender::new(0)),
            passed: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Moves the clock: whoever waited long enough goes on.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.saturating_add(by));
    }

    /// How many callers wait here.
    #[must_use]
    pub fn held(&self) -> usize {
        *self.held.borrow()
    }

    /// How many callers went on after they had waited.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// Waits until this many callers, or more, wait here.
    pub async fn until_held(&self, callers: usize) {
        // The sender is our own: it cannot be gone.
        let _ = self.held.subscribe().wait_for(|held| *held >= callers).await;
    }

    /// Waits for `delay` on this clock.
    pub async fn pass(&self, delay: Duration) {
        let mut now = self.now.subscribe();
        let until = now.borrow().saturating_add(delay);
        let place = Place::take(&self.held);
        let _ = now.wait_for(|now| *now >= until).await;
        drop(place);
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

/// A caller's place at the gate, given up when it goes on or is cancelled.
struct Place<'a>(&'a watch::Sender<usize>);

impl<'a> Place<'a> {
    fn take(held: &'a watch::Sender<usize>) -> Self {
        held.send_modify(|held| *held += 1);
        Self(held)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held = held.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::KeyKind;
    use crate::scope::TenantId;

    fn kms() -> FakeKms {
        FakeKms::new("eu-central-1".parse().unwrap()).unwrap()
    }

    impl FakeKms {
        /// Adds one that is not current.
        fn add_root(&self, root: Root) -> RootId {
            let id = root.id;
            self.state().roots.push(root);
            id
        }
    }

    fn context() -> EncryptionContext {
        EncryptionContext {
            region: "eu-central-1".parse().unwrap(),
            owner: TenantId::REGION,
            period: "2026-11".parse().unwrap(),
            kind: KeyKind::Branch,
            version: 1,
            generation: 1,
            share: None,
        }
    }

    /// What each operation answers: nothing, or an error's code.
    async fn ask(kms: &FakeKms, operation: Operation) -> Result<()> {
        let context = context();
        match operation {
            Operation::Generate => kms.generate(&context).await.map(|_| ()),
            Operation::Wrap => kms.wrap(&Secret::copied_from(&[7; 32]), &context).await.map(|_| ()),
            Operation::Unwrap => {
                let wrap = kms.wrap_now(&Secret::copied_from(&[7; 32]), &context, &Spoilt(false))?;
                kms.unwrap(&wrap, &context).await.map(|_| ())
            }
            Operation::Sign => kms.sign(b"a statement").await.map(|_| ()),
            Operation::Describe => kms.describe().await.map(|_| ()),
            Operation::RotateRoot => kms.rotate_root().await.map(|_| ()),
            Operation::RetireRoot => {
                let id = hex::encode(&kms.add_root(Root::random(&OsRandom)?));
                kms.retire_root(&id).await
            }
            Operation::Probe => kms.probe().await,
        }
    }

    async fn code(kms: &FakeKms, operation: Operation) -> Option<Code> {
        ask(kms, operation).await.err().map(|error| error.code())
    }

    #[tokio::test]
    async fn it_keeps_what_a_key_service_promises() {
        super::super::conformance(&kms()).await.unwrap();
        super::super::conformance_of_rotation(&kms()).await.unwrap();
    }

    #[tokio::test]
    async fn keys_that_are_off_are_described_and_not_used() {
        let kms = kms();
        for status in [KeyStatus::Disabled, KeyStatus::PendingDeletion] {
            kms.set_status(status);
            for operation in Operation::ALL {
                let expected = (operation != Operation::Describe).then_some(Code::KmsDenied);
                assert_eq!(code(&kms, operation).await, expected, "{operation:?} {status:?}");
            }
        }
        kms.set_status(KeyStatus::Enabled);
        for operation in Operation::ALL {
            assert_eq!(code(&kms, operation).await, None, "{operation:?}");
        }
    }

    #[tokio::test]
    async fn every_operation_follows_its_script_and_then_answers() {
        for operation in Operation::ALL {
            let kms = kms();
            let script =
                [Answer::Throttled, Answer::Unavailable, Answer::Denied, Answer::WrongKey, Answer::Ok];
            kms.script(operation, script);
            let expected = [
                Some(Code::KmsUnavailable),
                Some(Code::KmsUnavailable),
                Some(Code::KmsDenied),
                Some(Code::KmsUnverified),
                None,
                None,
            ];
            for expected in expected {
                assert_eq!(code(&kms, operation).await, expected, "{operation:?}");
            }
            for other in Operation::ALL {
                let expected = if other == operation { expected.len() } else { 0 };
                assert_eq!(kms.calls(other), expected, "{other:?} while scripting {operation:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_malformed_answer_succeeds_and_is_wrong() {
        let (kms, context) = (kms(), context());
        for operation in Operation::ALL {
            kms.script(operation, [Answer::Malformed]);
        }
        let (_, wrap) = kms.generate(&context).await.unwrap();
        let (key, good) = kms.generate(&context).await.unwrap();
        assert!(!kms.unwrap(&good, &context).await.unwrap().same_as(&key));
        assert!(kms.unwrap(&good, &context).await.unwrap().same_as(&key));
        assert_eq!(kms.unwrap(&wrap, &context).await.unwrap_err().code(), Code::KmsUnverified);
        let wrap = kms.wrap(&key, &context).await.unwrap();
        assert_eq!(kms.unwrap(&wrap, &context).await.unwrap_err().code(), Code::KmsUnverified);
        let (bad, good) = (kms.describe().await.unwrap(), kms.describe().await.unwrap());
        assert_ne!(bad.root, good.root);
        let signature = kms.sign(b"a statement").await.unwrap();
        assert!(good.verifying_key.verify(b"a statement", &signature).is_err());
    }

    #[tokio::test]
    async fn one_operation_can_be_away_alone() {
        let kms = kms();
        for away in Operation::ALL {
            kms.take_away(away);
            for operation in Operation::ALL {
                let expected = (operation == away).then_some(Code::KmsUnavailable);
                assert_eq!(code(&kms, operation).await, expected, "{operation:?} while {away:?} is away");
            }
            kms.bring_back(away);
        }
    }

    #[tokio::test]
    async fn contexts_are_kept_in_order_and_another_regions_is_denied() {
        let kms = kms();
        let elsewhere = EncryptionContext { region: "us-east-1".parse().unwrap(), ..context() };
        kms.generate(&context()).await.unwrap();
        assert_eq!(kms.generate(&elsewhere).await.unwrap_err().code(), Code::KmsDenied);
        let seen = kms.contexts();
        assert_eq!(seen, [(Operation::Generate, context()), (Operation::Generate, elsewhere)]);
    }

    #[tokio::test]
    async fn thousands_of_callers_are_held_and_let_go_on_a_clock_of_the_tests_own() {
        const CALLERS: usize = 5_000;
        let kms = kms();
        kms.delay(Operation::Sign, Duration::from_secs(3600));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let kms = kms.clone();
                tokio::spawn(async move { kms.sign(b"a statement").await })
            })
            .collect();
        kms.gate().until_held(CALLERS).await;
        assert_eq!((kms.calls(Operation::Sign), kms.gate().passed()), (CALLERS, 0));
        // Others are not delayed.
        ask(&kms, Operation::Describe).await.unwrap();
        kms.gate().advance(Duration::from_secs(3599));
        tokio::task::yield_now().await;
        assert_eq!((kms.gate().held(), kms.gate().passed()), (CALLERS, 0));
        kms.gate().advance(Duration::from_secs(1));
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        assert_eq!((kms.gate().held(), kms.gate().passed()), (0, CALLERS));
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_leaves_the_gate() {
        let kms = kms();
        kms.delay(Operation::Sign, Duration::from_secs(1));
        let caller = tokio::spawn({
            let kms = kms.clone();
            async move { kms.sign(b"a statement").await }
        });
        kms.gate().until_held(1).await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!((kms.gate().held(), kms.gate().passed()), (0, 0));
    }

    #[tokio::test]
    async fn what_changes_while_a_call_is_held_counts() {
        let kms = kms();
        kms.delay(Operation::Sign, Duration::from_secs(1));
        let caller = tokio::spawn({
            let kms = kms.clone();
            async move { kms.sign(b"a statement").await }
        });
        kms.gate().until_held(1).await;
        kms.set_status(KeyStatus::Disabled);
        kms.gate().advance(Duration::from_secs(1));
        assert_eq!(caller.await.unwrap().unwrap_err().code(), Code::KmsDenied);
    }
}

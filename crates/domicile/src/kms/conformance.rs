//! The suites that hold every key service, ours and others', to the guarantees of [`Kms`].

#![expect(clippy::panic, clippy::missing_panics_doc, reason = "a conformance suite is a test")]

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::{Kms, VerifyingKey};
use crate::context::{EncryptionContext, KeyKind, Share};
use crate::engine::Unverified;
use crate::error::{Class, Code, Error, Result};
use crate::period::Period;
use crate::region::Region;
use crate::scope::TenantId;

/// No wrap is longer.
const WRAP_BYTES_MAX: usize = 4096;
/// How many ask at once.
const CALLERS: usize = 32;

/// Holds the key service of `eu-central-1` to the guarantees of the trait. Panics where it breaks one.
///
/// It makes some thousand calls, and leaves no trace in the service.
///
/// # Errors
/// Whatever the service answers when it should have worked.
pub async fn conformance(kms: &dyn Kms) -> Result<()> {
    conformance_in(kms, &"eu-central-1".parse()?).await
}

/// As [`conformance`], for the key service of any region.
///
/// # Errors
/// Whatever the service answers when it should have worked.
pub async fn conformance_in(kms: &dyn Kms, region: &Region) -> Result<()> {
    let context = context(region)?;
    kms.ready()?;
    kms.probe().await?;
    wraps_open_to_what_was_wrapped(kms, &context).await?;
    contexts_are_bound(kms, &context).await?;
    changed_wraps_do_not_open(kms, &context).await?;
    many_may_ask_at_once(kms, &context).await?;
    signatures_verify(kms).await
}

/// Holds a key service that makes its own root keys to what the trait says of them. Panics where it breaks that.
///
/// The service has another root key afterwards.
///
/// # Errors
/// Whatever the service answers when it should have worked.
pub async fn conformance_of_rotation(kms: &dyn Kms) -> Result<()> {
    let context = context(&"eu-central-1".parse()?)?;
    let old = kms.current_root().await?;
    let (key, under_old) = kms.generate(&context).await?;

    let new = kms.rotate_root().await?;
    assert_ne!(new, old, "rotation makes another root key");
    assert_eq!(kms.current_root().await?, new, "the new root key is current");
    assert_eq!(kms.describe().await?.root, new, "and is the one that is described");
    let under_new = kms.wrap(&key, &context).await?;
    assert_eq!(kms.root_of(&under_old), Some(old.clone()), "an old wrap says under which root key it lies");
    assert_eq!(kms.root_of(&under_new), Some(new.clone()), "and so does a new one");
    for wrap in [&under_old, &under_new] {
        assert!(kms.unwrap(wrap, &context).await?.same_as(&key), "old and new wraps open");
    }

    for (id, why) in [(&*new, "the current root key"), ("no such root", "one that is not there")] {
        let Err(error) = kms.retire_root(id).await else { panic!("{why} was dropped") };
        assert_eq!(error.code(), Code::ArgumentInvalid, "{why}");
    }
    kms.retire_root(&old).await?;
    let Err(error) = kms.unwrap(&under_old, &context).await else {
        panic!("a wrap opened under a root key that was dropped");
    };
    assert_eq!(error.code(), Code::KmsDenied, "a root key that is gone is a denial, and no outage");
    assert!(kms.unwrap(&under_new, &context).await?.same_as(&key), "the others open as before");
    assert!(kms.retire_root(&old).await.is_err(), "a root key is dropped once");
    Ok(())
}

fn context(region: &Region) -> Result<EncryptionContext> {
    Ok(EncryptionContext {
        region: region.clone(),
        owner: TenantId::REGION,
        period: "2026-11".parse::<Period>()?,
        kind: KeyKind::Branch,
        version: 1,
        generation: 1,
        share: None,
    })
}

async fn wraps_open_to_what_was_wrapped(kms: &dyn Kms, context: &EncryptionContext) -> Result<()> {
    let (key, wrap) = kms.generate(context).await?;
    assert!(wrap.len() <= WRAP_BYTES_MAX, "a wrap has at most 4,096 bytes");
    assert!(kms.unwrap(&wrap, context).await?.same_as(&key), "a wrap opens to what was wrapped");
    assert!(kms.unwrap(&wrap, context).await?.same_as(&key), "and again");

    let again = kms.wrap(&key, context).await?;
    assert!(again.len() <= WRAP_BYTES_MAX, "a wrap has at most 4,096 bytes");
    assert_ne!(again, wrap, "two wraps of one key differ");
    assert!(kms.unwrap(&again, context).await?.same_as(&key), "the second wrap opens too");
    let (other, _) = kms.generate(context).await?;
    assert!(!other.same_as(&key), "two generated keys differ");

    let root = kms.current_root().await?;
    assert_eq!(kms.describe().await?.root, root, "the current root key is the one that is described");
    if let Some(named) = kms.root_of(&wrap) {
        assert_eq!(named, root, "a wrap names the root key that it lies under");
    }
    for nothing in [&b""[..], b"\0", &[0xff; 64]] {
        assert_eq!(kms.root_of(nothing), None, "what is no wrap names no root key");
    }
    Ok(())
}

async fn contexts_are_bound(kms: &dyn Kms, context: &EncryptionContext) -> Result<()> {
    let elsewhere = if context.region.as_str() == "us-east-1" { "us-west-2" } else { "us-east-1" };
    let others = [
        EncryptionContext { region: elsewhere.parse()?, ..context.clone() },
        EncryptionContext { owner: "acme".parse()?, ..context.clone() },
        EncryptionContext { period: "2026-12".parse::<Period>()?, ..context.clone() },
        EncryptionContext { kind: KeyKind::Tenant, ..context.clone() },
        EncryptionContext { version: 2, ..context.clone() },
        EncryptionContext { generation: 2, ..context.clone() },
        EncryptionContext { share: Some(Share { index: 1, of: 2 }), ..context.clone() },
    ];
    let (_, wrap) = kms.generate(context).await?;
    for other in &others {
        let Err(error) = kms.unwrap(&wrap, other).await else {
            panic!("a wrap opens under its own context alone");
        };
        refused(&error, "a wrap under another context");
    }
    let foreign = &others[..1];
    for context in foreign {
        let Err(error) = kms.generate(context).await else {
            panic!("a key service makes keys of its own region alone");
        };
        assert_eq!(error.code(), Code::KmsDenied, "another region's key is a denial");
    }
    Ok(())
}

async fn changed_wraps_do_not_open(kms: &dyn Kms, context: &EncryptionContext) -> Result<()> {
    let (_, wrap) = kms.generate(context).await?;
    for bit in 0..wrap.len() * 8 {
        let mut flipped = wrap.clone();
        if let Some(octet) = flipped.get_mut(bit / 8) {
            *octet ^= 1 << (bit % 8);
        }
        let Err(error) = kms.unwrap(&flipped, context).await else {
            panic!("bit {bit} of a wrap went unnoticed");
        };
        refused(&error, "a wrap of which one bit was changed");
    }
    for length in 0..wrap.len() {
        let cut = wrap.get(..length).unwrap_or_default();
        let Err(error) = kms.unwrap(cut, context).await else {
            panic!("a wrap cut to {length} bytes opened");
        };
        refused(&error, "a wrap that was cut");
    }
    for more in [&[0][..], &wrap] {
        let Err(error) = kms.unwrap(&[&wrap, more].concat(), context).await else {
            panic!("an extended wrap opened");
        };
        refused(&error, "a wrap that was extended");
    }
    Ok(())
}

async fn many_may_ask_at_once(kms: &dyn Kms, context: &EncryptionContext) -> Result<()> {
    let context = &context;
    let each = |number: usize| async move {
        let context =
            EncryptionContext { version: u32::try_from(number).unwrap_or(0) + 1, ..(*context).clone() };
        let (key, wrap) = kms.generate(&context).await?;
        let again = kms.wrap(&key, &context).await?;
        let opened = (kms.unwrap(&wrap, &context).await?, kms.unwrap(&again, &context).await?);
        assert!(opened.0.same_as(&key) && opened.1.same_as(&key), "answers go to whoever asked");
        Ok(key)
    };
    let keys = all((0..CALLERS).map(each)).await.into_iter().collect::<Result<Vec<_>>>()?;
    for (number, key) in keys.iter().enumerate() {
        let same = keys.iter().filter(|other| other.same_as(key)).count();
        assert_eq!(same, 1, "key {number} was given twice");
    }
    Ok(())
}

async fn signatures_verify(kms: &dyn Kms) -> Result<()> {
    let key = kms.describe().await?.verifying_key;
    assert_eq!(key.to_string().parse::<VerifyingKey>()?, key, "a verifying key reads back as it is written");
    // Statements may be longer than what a service signs at once.
    for statement in [&b""[..], b"a statement", &[0x5a; 100_000]] {
        let signature = kms.sign(statement).await?;
        let Ok(()) = key.verify(statement, &signature) else {
            panic!("a signature verifies under the key that describe names");
        };
        assert_eq!(key.verify(b"another statement", &signature), Err(Unverified));
        for bit in 0..signature.len() * 8 {
            let mut flipped = signature.clone();
            if let Some(octet) = flipped.get_mut(bit / 8) {
                *octet ^= 1 << (bit % 8);
            }
            assert_eq!(key.verify(statement, &flipped), Err(Unverified), "bit {bit} of a signature");
        }
        for length in 0..signature.len() {
            let cut = signature.get(..length).unwrap_or_default();
            assert_eq!(key.verify(statement, cut), Err(Unverified), "a signature cut to {length} bytes");
        }
        assert_eq!(
            key.verify(statement, &[&signature[..], &[0]].concat()),
            Err(Unverified),
            "an extended one"
        );
    }
    Ok(())
}

/// What does not verify, or is another key's, must not look like an outage: that would be waited out.
fn refused(error: &Error, what: &str) {
    assert!(!error.is_retryable(), "{what} looked like an outage: {error:?}");
    assert!(
        error.code() == Code::KmsDenied || error.class() == Class::Corrupt,
        "{what} is denied or does not verify: {error:?}"
    );
}

/// Runs all at once, on one task.
async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    poll_fn(|task| {
        for (future, output) in running.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(done) = future.as_mut().poll(task)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

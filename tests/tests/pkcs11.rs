//! A hardware security module as key service, by PKCS#11: against SoftHSM, which is one in software.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::{AuthPin, Ulong};
use domicile::Code;
use domicile::context::{EncryptionContext, KeyKind};
use domicile::kms::{Kms, Pkcs11Kms, Pkcs11Options, VerifyingKey, conformance, conformance_of_rotation};
use domicile_tests::journey;
use domicile_tests::softhsm::{PIN, Softhsm, TOKEN, on_a_token, write_private};

const REGION: &str = "eu-central-1";

fn kms(options: Pkcs11Options) -> Pkcs11Kms {
    Pkcs11Kms::new(REGION.parse().unwrap(), options).unwrap()
}

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

/// The token as its operator has it.
fn operator(hsm: &Softhsm) -> Session {
    let module = Pkcs11::new(&hsm.module).unwrap();
    // The key service may have done so already.
    let _ = module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
    let slots = module.get_slots_with_initialized_token().unwrap();
    let slot = slots.into_iter().find(|slot| module.get_token_info(*slot).unwrap().label() == TOKEN);
    let session = module.open_rw_session(slot.unwrap()).unwrap();
    let _ = session.login(UserType::User, Some(&AuthPin::new(PIN.into())));
    session
}

fn aes(label: &str, id: u8, change: &[Attribute]) -> Vec<Attribute> {
    let mut template = vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(Ulong::new(32)),
        Attribute::Label(label.into()),
        Attribute::Id(vec![id]),
    ];
    for attribute in change {
        template.retain(|one| std::mem::discriminant(one) != std::mem::discriminant(attribute));
        template.push(attribute.clone());
    }
    template
}

#[test]
fn it_keeps_what_a_key_service_promises() {
    on_a_token("it_keeps_what_a_key_service_promises", async |hsm| {
        let kms = kms(hsm.options());
        let made = kms.create_keys().await.unwrap();
        assert_eq!((made.provider, made.root.as_str()), ("pkcs11", "01"));
        assert!(matches!(made.verifying_key, VerifyingKey::EcdsaP256(_)));
        conformance(&kms).await.unwrap();
        conformance_of_rotation(&kms).await.unwrap();
        assert_eq!(kms.current_root().await.unwrap(), "02");
        // What was made is not made over.
        assert_eq!(kms.create_keys().await.unwrap_err().code(), Code::ConfigExists);
        let shown = format!("{kms:?}");
        assert!(!shown.contains(PIN) && !shown.contains("pin"), "{shown}");
    });
}

#[test]
fn a_place_whose_root_key_is_in_a_module_seals_opens_and_rotates() {
    on_a_token("a_place_whose_root_key_is_in_a_module_seals_opens_and_rotates", async |hsm| {
        let options = hsm.options();
        let kms = kms(options.clone());
        let key = kms.create_keys().await.unwrap().verifying_key;
        // By its serial number: labels are not always one token's.
        let module = Pkcs11::new(&hsm.module).unwrap();
        let slot = module.get_slots_with_initialized_token().unwrap()[0];
        let serial = module.get_token_info(slot).unwrap().serial_number().to_owned();
        let line = format!(
            "kms = {{ provider = \"pkcs11\", module = \"{}\", token = \"{serial}\", root = \"root\", signing = \"signing\", pin_file = \"pin\" }}",
            hsm.module.display()
        );
        let config = journey::place(&hsm.directory, &line, &key).await;
        journey::of_a_root_key(&config, &kms).await;
    });
}

/// A key that may leave its token, or might have, is no root.
#[test]
fn keys_that_can_be_exported_are_refused() {
    on_a_token("keys_that_can_be_exported_are_refused", async |hsm| {
        let options = hsm.options();
        kms(options.clone()).create_keys().await.unwrap();
        let session = operator(&hsm);
        let generated = |label: &str, change: &[Attribute]| {
            session.generate_key(&Mechanism::AesKeyGen, &aes(label, 1, change)).unwrap();
        };
        generated("extractable", &[Attribute::Extractable(true)]);
        generated("readable", &[Attribute::Sensitive(false)]);
        generated("short", &[Attribute::ValueLen(Ulong::new(16))]);
        generated("wraps-only", &[Attribute::Decrypt(false)]);
        generated("nameless", &[Attribute::Id(Vec::new())]);
        generated("twice", &[]);
        generated("twice", &[]);
        let mut imported = aes("imported", 1, &[Attribute::Value(vec![7; 32])]);
        imported.retain(|one| !matches!(one, Attribute::ValueLen(_)));
        session.create_object(&imported).unwrap();
        for label in ["extractable", "readable", "short", "wraps-only", "nameless", "twice", "imported"] {
            let kms = kms(Pkcs11Options { root: label.into(), ..options.clone() });
            for error in [
                kms.describe().await.unwrap_err(),
                kms.generate(&context()).await.unwrap_err(),
                kms.probe().await.unwrap_err(),
            ] {
                assert_eq!(error.code(), Code::ConfigInvalid, "{label}: {error:?}");
                assert!(error.advice().is_some() && error.place().unwrap().contains(label), "{error:?}");
            }
        }
        // And what is no signing key is none.
        let signing = kms(Pkcs11Options { signing: "root".into(), ..options });
        assert_eq!(signing.sign(b"x").await.unwrap_err().code(), Code::KmsDenied);
    });
}

#[test]
fn a_key_that_its_operator_made_is_the_newest_by_its_id() {
    on_a_token("a_key_that_its_operator_made_is_the_newest_by_its_id", async |hsm| {
        let kms = kms(hsm.options());
        kms.create_keys().await.unwrap();
        let (key, old) = kms.generate(&context()).await.unwrap();
        let session = operator(&hsm);
        let made = session.generate_key(&Mechanism::AesKeyGen, &aes("root", 0x30, &[])).unwrap();
        assert_eq!(kms.current_root().await.unwrap(), "30");
        let new = kms.wrap(&key, &context()).await.unwrap();
        assert_eq!((kms.root_of(&old).as_deref(), kms.root_of(&new).as_deref()), (Some("01"), Some("30")));
        assert_eq!(kms.rotate_root().await.unwrap(), "31");
        for wrap in [&old, &new] {
            assert!(kms.unwrap(wrap, &context()).await.unwrap().same_as(&key));
        }
        session.destroy_object(made).unwrap();
        let error = kms.unwrap(&new, &context()).await.unwrap_err();
        assert_eq!(error.code(), Code::KmsDenied, "{error:?}");
        assert!(kms.unwrap(&old, &context()).await.unwrap().same_as(&key));
    });
}

#[test]
fn a_wrong_pin_is_tried_once_and_the_right_one_then() {
    on_a_token("a_wrong_pin_is_tried_once_and_the_right_one_then", async |hsm| {
        let options = hsm.options();
        let file = options.pin_file.clone().unwrap();
        write_private(&file, "000000\n");
        let kms = kms(options);
        let first = kms.create_keys().await.unwrap_err();
        assert_eq!(first.code(), Code::KmsDenied, "{first:?}");
        assert!(format!("{first:?}").contains("PIN"), "{first:?}");
        for _ in 0..5 {
            let again = kms.describe().await.unwrap_err();
            assert_eq!(again.code(), Code::KmsDenied);
            assert!(again.what().contains("not tried again"), "{again:?}");
            assert!(!format!("{again:?}").contains("000000"));
        }
        write_private(&file, &format!("{PIN}\n"));
        kms.create_keys().await.unwrap();
    });
}

#[test]
fn a_pin_that_others_can_read_or_that_is_missing_is_refused() {
    on_a_token("a_pin_that_others_can_read_or_that_is_missing_is_refused", async |hsm| {
        use std::os::unix::fs::PermissionsExt;
        let options = hsm.options();
        let file = options.pin_file.clone().unwrap();
        let kms_of = || kms(options.clone());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(kms_of().describe().await.unwrap_err().code(), Code::KmsExposed);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(kms_of().describe().await.unwrap_err().code(), Code::KmsUnavailable);
        let env =
            Pkcs11Options { pin_file: None, pin_env: Some("DOMICILE_NO_SUCH_PIN".into()), ..options.clone() };
        assert_eq!(kms(env).describe().await.unwrap_err().code(), Code::KmsUnavailable);
    });
}

#[test]
fn a_login_that_is_lost_is_made_again() {
    on_a_token("a_login_that_is_lost_is_made_again", async |hsm| {
        let kms = kms(hsm.options());
        kms.create_keys().await.unwrap();
        let (key, wrap) = kms.generate(&context()).await.unwrap();
        // A login is the whole process's, and so is its end: as if the token had been taken out and put in again.
        operator(&hsm).logout().unwrap();
        assert!(kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key));
        operator(&hsm).logout().unwrap();
        kms.sign(b"a statement").await.unwrap();
    });
}

#[test]
fn tokens_modules_and_keys_that_are_not_there_are_told_apart() {
    on_a_token("tokens_modules_and_keys_that_are_not_there_are_told_apart", async |hsm| {
        let options = hsm.options();
        let code = async |change: &dyn Fn(&mut Pkcs11Options)| {
            let mut options = options.clone();
            change(&mut options);
            kms(options).describe().await.unwrap_err().code()
        };
        assert_eq!(code(&|_| ()).await, Code::KmsDenied, "no key was made yet");
        assert_eq!(code(&|options| options.token = "another".into()).await, Code::KmsUnavailable);
        assert_eq!(code(&|options| options.module = "/nowhere.so".into()).await, Code::KmsUnavailable);
        // No library, and one that others could change.
        let other = hsm.directory.join("module.so");
        std::fs::write(&other, "no library").unwrap();
        assert_eq!(code(&|options| options.module = other.clone()).await, Code::KmsUnavailable);
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(code(&|options| options.module = other.clone()).await, Code::KmsExposed);
        kms(options.clone()).create_keys().await.unwrap();
        assert_eq!(code(&|options| options.root = "another".into()).await, Code::KmsDenied);
        assert_eq!(code(&|options| options.signing = "another".into()).await, Code::KmsDenied);
    });
}

#[test]
fn a_token_with_ed25519_signs_with_it() {
    on_a_token("a_token_with_ed25519_signs_with_it", async |hsm| {
        let options = Pkcs11Options { signing: "edwards".into(), ..hsm.options() };
        kms(hsm.options()).create_keys().await.unwrap();
        let session = operator(&hsm);
        let (label, id) = (Attribute::Label("edwards".into()), Attribute::Id(vec![9]));
        // The curve's object identifier, as SoftHSM has it.
        let curve = vec![0x06, 0x03, 0x2b, 0x65, 0x70];
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(curve),
            label.clone(),
            id.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label,
            id,
        ];
        session.generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private).unwrap();
        let kms = kms(options);
        assert!(matches!(kms.describe().await.unwrap().verifying_key, VerifyingKey::Ed25519(_)));
        conformance(&kms).await.unwrap();
    });
}

/// The threads that call the module need no runtime of the caller's.
#[test]
fn it_is_asked_on_any_runtime() {
    on_a_token("it_is_asked_on_any_runtime", async |hsm| {
        let asked = std::thread::spawn(move || {
            let kms = kms(hsm.options());
            alone(async {
                kms.create_keys().await.unwrap();
                let (key, wrap) = kms.generate(&context()).await.unwrap();
                kms.unwrap(&wrap, &context()).await.unwrap().same_as(&key)
            })
        });
        assert!(asked.join().unwrap());
    });
}

/// Runs a future on this thread and nothing else.
fn alone<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}

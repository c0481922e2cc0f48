//! What others have published, through every engine and every primitive that keys pass through:
//! Wycheproof's AES-GCM, ChaCha20-Poly1305, HKDF-SHA-512 and HMAC-SHA-256, C2SP's XAES-256-GCM, and X-Wing's, through
//! HPKE. Each test
//! counts what it ran, so that a file that cannot be read does not pass for one that holds.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

use domicile::danger;
use domicile::engine::{Engine, Suite, Unverified};
use domicile_tests::{hex, program::repository, unhex};
use serde_json::Value;

/// The test groups of a file of Wycheproof's.
fn groups(name: &str) -> Vec<Value> {
    let path = repository().join("tests/vectors/wycheproof").join(name);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["testGroups"].as_array().unwrap().clone()
}

fn octets(test: &Value, field: &str) -> Vec<u8> {
    unhex(test[field].as_str().unwrap())
}

fn tests(group: &Value) -> &[Value] {
    group["tests"].as_array().unwrap()
}

/// Every vector with keys and nonces of our sizes, through every engine: what is valid opens and is sealed to the
/// same octets, what is not is refused and wiped.
fn aead(name: &str, suite: Suite) -> (usize, usize) {
    let (mut valid, mut invalid) = (0, 0);
    let of_our_sizes = |group: &&Value| group["keySize"] == 256 && group["ivSize"] == 96;
    for group in groups(name).iter().filter(of_our_sizes) {
        assert_eq!(group["tagSize"], 128);
        for (test, engine) in tests(group)
            .iter()
            .flat_map(|test| Engine::available().into_iter().map(move |engine| (test, engine)))
        {
            let context = format!("{name}, {engine}, test {}: {}", test["tcId"], test["comment"]);
            let key = danger::content_key(suite, engine, &octets(test, "key").try_into().unwrap()).unwrap();
            let (nonce, tag) =
                (octets(test, "iv").try_into().unwrap(), octets(test, "tag").try_into().unwrap());
            let (associated, plain, sealed) = (octets(test, "aad"), octets(test, "msg"), octets(test, "ct"));
            let mut payload = sealed.clone();
            let opened = key.open(&nonce, &associated, &mut payload, &tag);
            if test["result"] == "valid" {
                assert_eq!(opened, Ok(()), "{context}");
                assert_eq!(hex(&payload), hex(&plain), "{context}");
                let made = key.seal(danger::nonce(nonce), &associated, &mut payload).unwrap();
                assert_eq!((hex(&payload), made), (hex(&sealed), tag), "{context}");
                valid += 1;
            } else {
                assert_eq!(opened, Err(Unverified), "{context}");
                assert!(payload.iter().all(|octet| *octet == 0), "{context}");
                invalid += 1;
            }
        }
    }
    (valid / Engine::available().len(), invalid / Engine::available().len())
}

#[test]
fn every_engine_of_the_default_build_is_held_to_them() {
    let names: Vec<_> = Engine::available().into_iter().map(Engine::as_str).collect();
    for engine in ["rustcrypto", "ring", "aws-lc-rs"] {
        assert!(names.contains(&engine), "{names:?}");
    }
}

#[test]
fn aes_256_gcm_of_wycheproof() {
    assert_eq!(aead("aes_gcm_test.json", Suite::Aes256Gcm), (39, 27));
}

#[test]
fn chacha20_poly1305_of_wycheproof() {
    assert_eq!(aead("chacha20_poly1305_test.json", Suite::ChaCha20Poly1305), (256, 60));
}

#[test]
fn hkdf_sha512_of_wycheproof() {
    const LONGEST: usize = 255 * 64;
    let (mut valid, mut too_long) = (0, 0);
    for group in groups("hkdf_sha512_test.json") {
        for test in tests(&group) {
            let size = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
            if test["result"] == "valid" {
                // A shorter output is the beginning of a longer one.
                let mut output = [0; LONGEST];
                danger::hkdf_sha512(
                    &octets(test, "ikm"),
                    &octets(test, "salt"),
                    &octets(test, "info"),
                    &mut output,
                );
                assert_eq!(output.get(..size), Some(&octets(test, "okm")[..]), "test {}", test["tcId"]);
                valid += 1;
            } else {
                // What the RFC forbids: code that asks for it does not compile here.
                assert!(size > LONGEST, "test {}", test["tcId"]);
                too_long += 1;
            }
        }
    }
    assert_eq!((valid, too_long), (80, 3));
}

#[test]
fn hmac_sha256_of_wycheproof() {
    let (mut valid, mut invalid) = (0, 0);
    for group in groups("hmac_sha256_test.json").iter().filter(|group| group["keySize"] == 256) {
        for test in tests(group) {
            let mac = danger::hmac_sha256(&octets(test, "key").try_into().unwrap(), &octets(test, "msg"));
            // Half of the vectors have half of the tag.
            let is_tag = mac.starts_with(&octets(test, "tag"));
            assert_eq!(is_tag, test["result"] == "valid", "test {}", test["tcId"]);
            if is_tag { valid += 1 } else { invalid += 1 }
        }
    }
    assert_eq!((valid, invalid), (54, 108));
}

/// C2SP's vectors of XAES-256-GCM.
fn c2sp() -> Value {
    let path = repository().join("tests/vectors/c2sp/xaes-256-gcm.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Seals by a derived key of one engine, as sealed records are (REC-4), and opens again.
fn sealed_by(engine: Engine, key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let (selector, nonce) = nonce.split_at(12);
    let (selector, nonce) = (selector.try_into().unwrap(), nonce.try_into().unwrap());
    let derived = danger::xaes_key(key).derive(&selector, engine).unwrap();
    let mut sealed = plain.to_vec();
    let tag = derived.seal(danger::nonce(nonce), aad, &mut sealed).unwrap();
    let mut opened = sealed.clone();
    derived.open(&nonce, aad, &mut opened, &tag).unwrap();
    assert_eq!(opened, plain, "{engine}");
    sealed.extend_from_slice(&tag);
    sealed
}

#[test]
fn xaes_256_gcm_of_c2sp() {
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::{Aead, KeyInit, Payload};
    let vectors = c2sp();
    let tests = vectors["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 2);
    for test in tests {
        let key: [u8; 32] = octets(test, "key").try_into().unwrap();
        let nonce: [u8; 24] = octets(test, "nonce").try_into().unwrap();
        let (aad, plain) = (octets(test, "aad"), octets(test, "plaintext"));
        let expected = test["ciphertext"].as_str().unwrap();
        // What wraps keys, and what seals records.
        let payload = Payload { msg: &plain, aad: &aad };
        let whole = Xaes256Gcm::new(&key.into()).encrypt(&nonce.into(), payload).unwrap();
        assert_eq!(hex(&whole), expected);
        for engine in Engine::available() {
            assert_eq!(hex(&sealed_by(engine, &key, &nonce, &aad, &plain)), expected, "{engine}");
            // The derived key itself, which nobody sees, by what it seals.
            let said = octets(test, "derived").try_into().unwrap();
            let said = danger::content_key(Suite::Aes256Gcm, engine, &said).unwrap();
            let mut sealed = plain.clone();
            let tag = said.seal(danger::nonce(nonce[12..].try_into().unwrap()), &aad, &mut sealed).unwrap();
            assert_eq!(hex(&[&sealed[..], &tag].concat()), expected, "{engine}");
        }
    }
}

/// Ten thousand random cases through every engine, and a million in the long form: one hash over all ciphertexts.
#[test]
fn xaes_256_gcm_of_c2sp_accumulated() {
    use shake::{ExtendableOutput, Shake128, Update, XofReader};
    for accumulated in c2sp()["accumulated"].as_array().unwrap() {
        let iterations = accumulated["iterations"].as_u64().unwrap();
        if iterations > 10_000 && !domicile_tests::long_form() {
            continue;
        }
        for engine in Engine::available() {
            let mut random = Shake128::default().finalize_xof();
            let mut hash = Shake128::default();
            for _ in 0..iterations {
                let (mut key, mut nonce) = ([0; 32], [0; 24]);
                random.read(&mut key);
                random.read(&mut nonce);
                let mut text = || {
                    let mut length = [0];
                    random.read(&mut length);
                    let mut text = vec![0; usize::from(length[0])];
                    random.read(&mut text);
                    text
                };
                let (plain, aad) = (text(), text());
                hash.update(&sealed_by(engine, &key, &nonce, &aad, &plain));
            }
            let mut digest = [0; 32];
            hash.finalize_xof().read(&mut digest);
            assert_eq!(hex(&digest), accumulated["hash"].as_str().unwrap(), "{engine}, {iterations}");
        }
    }
}

/// A generator that gives what the vectors say.
#[derive(Debug)]
struct Given(Vec<u8>);

impl domicile::random::Randomness for Given {
    fn fill(&self, bytes: &mut [u8]) -> domicile::Result<()> {
        bytes.copy_from_slice(&self.0);
        Ok(())
    }
}

/// The key and nonce of RFC 9180, section 5.1, base mode, for our suite: written from the RFC, and not with the
/// library that seals.
fn key_schedule(shared_secret: &[u8], info: &[u8]) -> ([u8; 32], [u8; 12]) {
    use hkdf::Hkdf;
    use sha2::Sha512;
    let suite =
        [&b"HPKE"[..], &0x647a_u16.to_be_bytes(), &3_u16.to_be_bytes(), &2_u16.to_be_bytes()].concat();
    let extract = |salt: &[u8], label: &[u8], ikm: &[u8]| {
        Hkdf::<Sha512>::extract(Some(salt), &[b"HPKE-v1", &suite[..], label, ikm].concat())
    };
    let context =
        [&[0][..], &extract(b"", b"psk_id_hash", b"").0, &extract(b"", b"info_hash", info).0].concat();
    let (_, secret) = extract(shared_secret, b"secret", b"");
    let expand = |label: &[u8], output: &mut [u8]| {
        let length = u16::try_from(output.len()).unwrap().to_be_bytes();
        secret.expand(&[&length, &b"HPKE-v1"[..], &suite, label, &context].concat(), output).unwrap();
    };
    let (mut key, mut nonce) = ([0; 32], [0; 12]);
    expand(b"key", &mut key);
    expand(b"base_nonce", &mut nonce);
    (key, nonce)
}

#[test]
fn x_wing_of_its_draft_through_hpke() {
    use domicile::encapsulation::{Encapsulation, PublicKey};
    use domicile::secret::Secret;
    let path = repository().join("tests/vectors/x-wing/test-vectors.json");
    let vectors: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for vector in &vectors {
        let seed = Secret::copied_from(&octets(vector, "sk").try_into().unwrap());
        let public = PublicKey::of(&seed);
        assert_eq!(hex(public.as_bytes()), vector["pk"].as_str().unwrap());

        // What RFC 9180 makes of the vector's shared secret is what the library opens, and seals.
        let (info, secret) = (b"what it is for", [0x5e; 32]);
        let (key, nonce) = key_schedule(&octets(vector, "ss"), info);
        let key = danger::content_key(Suite::Aes256Gcm, Engine::available()[0], &key).unwrap();
        let mut sealed = secret.to_vec();
        let tag = key.seal(danger::nonce(nonce), b"", &mut sealed).unwrap();
        let whole = [&octets(vector, "ct")[..], &sealed, &tag].concat();
        let whole = Encapsulation::from_bytes(&whole.try_into().unwrap());
        assert!(whole.open(&seed, info).unwrap().same_as(&Secret::copied_from(&secret)));
        let randomness = Given(octets(vector, "eseed"));
        let again = Encapsulation::seal(&public, info, &Secret::copied_from(&secret), &randomness).unwrap();
        assert_eq!(hex(again.as_bytes()), hex(whole.as_bytes()));
    }
    assert_eq!(vectors.len(), 3);
}

//! The way of a region whose root key is somewhere else, from its configuration to the end of a root key.

use std::path::Path;

use domicile::kms::{Kms, VerifyingKey};
use domicile::store::{KeyStore, SqliteStore};
use domicile::{Action, Config, Domicile, Purpose, doctor};
use domicile_record::format::Contents;
use domicile_record::{Segment, SegmentWriter, Selection, Stamp, WriterOptions};

use crate::{descriptor, region, scope};

/// A place whose region has this line `kms` in its configuration, in a directory of its own.
pub async fn place(directory: &Path, kms: &str, key: &VerifyingKey) -> Config {
    let text = format!(
        "here = \"eu-central-1\"\nstore = \"sqlite://domicile.db\"\n\
         [regions.eu-central-1]\njurisdiction = \"EU\"\nsigning_key = \"{key}\"\n{kms}\n"
    );
    KeyStore::close(&SqliteStore::create(&directory.join("domicile.db")).await.unwrap()).await;
    let path = directory.join("domicile.toml");
    std::fs::write(&path, text).unwrap();
    Config::read(&path).unwrap()
}

/// Seals, opens in another process, rotates the root key, and retires the old one: what was sealed before opens all the same.
pub async fn of_a_root_key(config: &Config, kms: &dyn Kms) {
    let process = async || Domicile::from_config(config).await.unwrap();
    let domicile = process().await;
    domicile.choose_home(&scope("acme"), "eu-central-1").await.unwrap();
    let bytes = sealed(&domicile).await;
    assert_eq!(opened(&process().await, &bytes).await, "a record of acme");
    healthy(&domicile).await;

    let old = kms.current_root().await.unwrap();
    let permit = async || {
        let action = Action::Manage(Purpose::Maintenance.into());
        domicile.permit_region(&region("eu-central-1"), action).await.unwrap()
    };
    let early = domicile.keyring().retire_root(permit().await, &old).await.unwrap_err();
    assert_eq!(early.code(), domicile::Code::ArgumentInvalid, "a branch key lies under it");
    let report = domicile.keyring().rotate_roots(permit().await, true).await.unwrap();
    assert_eq!((report.roots.len(), report.rewrapped), (1, 1), "one branch key lies under the new root key");
    assert_ne!(kms.current_root().await.unwrap(), old);
    let again = domicile.keyring().rotate_roots(permit().await, false).await.unwrap();
    assert_eq!((again.roots.len(), again.rewrapped), (0, 0), "done is done");
    domicile.keyring().retire_root(permit().await, &old).await.unwrap();
    assert_eq!(opened(&process().await, &bytes).await, "a record of acme");
    assert_eq!(opened(&process().await, &sealed(&process().await).await).await, "a record of acme");
    healthy(&process().await).await;
}

/// The doctor finds nothing wrong with keys, the ledger or homes.
async fn healthy(domicile: &Domicile) {
    let found = doctor::examine(domicile).await.unwrap();
    let of_keys: Vec<_> = found.iter().filter(|ailment| ailment.about != "host").collect();
    assert!(of_keys.is_empty(), "{of_keys:?}");
}

async fn sealed(domicile: &Domicile) -> Vec<u8> {
    let home = region("eu-central-1");
    let mut writer =
        SegmentWriter::create(domicile, &home, Vec::new(), WriterOptions::default()).await.unwrap();
    let lane = writer.open_lane(descriptor("acme", Contents::default()), b"").await.unwrap();
    writer.append(lane, b"a record of acme", Stamp::default()).unwrap();
    writer.finish().await.unwrap().0
}

async fn opened(domicile: &Domicile, bytes: &[u8]) -> String {
    let segment = Segment::open_source(domicile, bytes, Purpose::Billing, Selection::all()).await.unwrap();
    let mut output = Vec::new();
    segment.restore(&mut output).unwrap();
    String::from_utf8(output).unwrap()
}

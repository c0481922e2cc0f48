//! `domicile key passphrase`: the passphrase over a root-key file.

use domicile::config::KmsConfig;
use domicile::kms::{LocalKms, PassphraseCost, PassphraseSource};
use domicile::{Code, Error, Result};
use serde::Serialize;

use crate::arguments::{Common, KeyPassphrase};
use crate::input;
use crate::report::Report;

#[derive(Serialize)]
struct ChangedJson {
    root: String,
    passphrase: bool,
}

/// The file is opened as the configuration says, and replaced whole. The configuration itself is its owner's to change.
pub(crate) fn run(common: &Common, passphrase: &KeyPassphrase, report: &Report) -> Result<()> {
    let config = input::config(common, report)?;
    let region = passphrase.region.as_ref().unwrap_or(&config.here().region);
    let kms = config.regions().get(region).and_then(|known| known.kms.as_ref());
    let Some(KmsConfig::Local { root, signing, passphrase: old }) = kms else {
        return Err(Error::new(Code::ConfigInvalid, format!("{region} has no root-key file here"))
            .advise("root keys in other key services are protected there"));
    };
    let mut local = LocalKms::new(region.clone(), root.clone(), signing.clone());
    if let Some(old) = old {
        local = local.under(old.clone());
    }
    let new = passphrase.new_file.clone().map(PassphraseSource::File);
    local.change_passphrase(new, PassphraseCost::default())?;
    let json = ChangedJson { root: root.display().to_string(), passphrase: passphrase.new_file.is_some() };
    report.print(&json, || {
        let (what, then) = match &passphrase.new_file {
            Some(file) => (
                "is under the new passphrase",
                format!(
                    "write passphrase = {{ file = \"{}\" }} beside its root in the configuration",
                    file.display()
                ),
            ),
            None => (
                "lies open: whoever reads it opens everything",
                "take `passphrase` out of the configuration".to_owned(),
            ),
        };
        format!("{} {what}\n{then}; what the disk kept of the old file opens as it did before", json.root)
    })
}

//! Whether key stores and the registry of homes are what they should be, told without a key: their schema and what guards
//! them, their rows, what regions signed, and that they are not an earlier state of themselves. Nothing is changed, and no
//! key service is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::chain::verify_chain;
use crate::checkpoint;
use crate::choosing::verify_all;
use crate::config::{Config, RegionConfig, Url};
use crate::error::{Code, Error, Result};
use crate::keyring::{Follower, taken_by};
use crate::ledger::Ledger;
use crate::region::Region;
use crate::store::{self, Condition, Finding, KeyName, Opened, Severity, StoreMark};
use crate::time::SystemClock;
use crate::witness::Witness;

/// What was found in one store.
#[derive(Debug)]
#[non_exhaustive]
pub struct Checkup {
    /// The store.
    pub store: Url,
    /// The regions whose keys are in it, of those that were asked for.
    pub regions: Vec<RegionCheckup>,
    /// Whether it is the registry of homes.
    pub registry: bool,
    /// What was found.
    pub condition: Condition,
}

/// How far the proofs of one region have come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionCheckup {
    /// The region.
    pub region: Region,
    /// Entries of its ledger that verify.
    pub entries: u64,
    /// Its audit chains.
    pub chains: u64,
}

/// Looks at the stores of all regions that a configuration names and at the registry of homes, or at the store of one
/// region.
///
/// # Errors
/// None for what is wrong, which is the answer; [`StoreUnavailable`](Code::StoreUnavailable) for a store that cannot be
/// reached; [`ConfigInvalid`](Code::ConfigInvalid) for a region that is not configured.
pub async fn check(config: &Config, region: Option<&Region>) -> Result<Vec<Checkup>> {
    let wanted: Vec<&RegionConfig> = match region {
        None => config.regions().values().collect(),
        Some(region) => vec![config.regions().get(region).ok_or_else(|| {
            Error::new(Code::ConfigInvalid, format!("the region {region} is not configured"))
        })?],
    };
    let registry = region.is_none().then_some(config.homes());
    let urls: BTreeMap<String, &Url> =
        wanted.iter().map(|region| &region.store).chain(registry).map(|url| (url.to_string(), url)).collect();
    let mut checkups = Vec::new();
    for url in urls.into_values() {
        let mut checkup = Checkup {
            store: url.clone(),
            regions: Vec::new(),
            registry: url == config.homes(),
            condition: store::examine(url).await?,
        };
        if checkup.condition.versions.is_some() {
            let opened = store::open(url).await?;
            let looked = look(config, &wanted, &opened, &mut checkup).await;
            opened.keys.close().await;
            opened.homes.close().await;
            looked?;
        }
        checkups.push(checkup);
    }
    Ok(checkups)
}

async fn look(
    config: &Config,
    wanted: &[&RegionConfig],
    opened: &Opened,
    checkup: &mut Checkup,
) -> Result<()> {
    let mut findings = Vec::new();
    let of_store = |region: &&&RegionConfig| region.store == checkup.store;
    for region in wanted.iter().filter(of_store) {
        let mut proofs = RegionCheckup { region: region.place.region.clone(), entries: 0, chains: 0 };
        let looked =
            proofs_of(config, region, opened, checkup.condition.mark.as_ref(), &mut proofs, &mut findings);
        found(looked.await, &mut findings)?;
        checkup.regions.push(proofs);
    }
    if checkup.registry {
        found(homes(config, opened, &mut findings).await, &mut findings)?;
    }
    checkup.condition.findings.extend(findings);
    checkup.condition.findings.sort_by_key(|finding| finding.severity);
    Ok(())
}

/// What ends a look at one thing is a finding, unless the store has gone.
fn found(looked: Result<()>, findings: &mut Vec<Finding>) -> Result<()> {
    match looked {
        Err(error) if error.code() == Code::StoreUnavailable => Err(error),
        Err(error) => {
            findings.push(Finding::of(Severity::Wrong, &error));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// The ledger, the chains, and whether the store is behind what this host saw or what the ledger says of its rows.
async fn proofs_of(
    config: &Config,
    region: &RegionConfig,
    opened: &Opened,
    mark: Option<&StoreMark>,
    proofs: &mut RegionCheckup,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let name = &region.place.region;
    let ledger = Ledger {
        region: name.clone(),
        verifying_key: region.signing_key,
        kms: None,
        store: opened.keys.clone(),
        clock: Arc::new(SystemClock),
    };
    if mark.is_some() {
        let follower = Follower::new(Some(Arc::new(Witness::new(config.witness().to_owned()))));
        found(follower.check_seen(&ledger).await, findings)?;
    }
    let mut taken: BTreeMap<KeyName, (u64, u64)> = BTreeMap::new();
    let mut checkpoints = Vec::new();
    let followed = ledger.follow(0, None, |statement, _| {
        proofs.entries = statement.number;
        checkpoint::keep(statement, &mut checkpoints);
        for (name, generation) in taken_by(statement)? {
            taken.insert(name, (generation, statement.number));
        }
        Ok(())
    });
    found(followed.await.map(drop), findings)?;
    for (key, (generation, entry)) in taken {
        let Some(stored) = opened.keys.named(key).await? else { continue };
        let floored = stored.floor.is_some_and(|floor| floor.generation >= generation);
        let error = if stored.row.generation < generation {
            let slot = &stored.row.identity.slot;
            Error::new(Code::KeyRolledBack, format!("an old row of the {slot} was put back"))
                .at(format!(
                    "generation {} where entry {entry} of the ledger says {generation}",
                    stored.row.generation
                ))
                .advise("find out who restored it; `domicile key replay` takes again what was erased since")
        } else if floored {
            continue;
        } else {
            Error::new(
                Code::StoreCorrupt,
                format!("the store forgot that entry {entry} of the ledger took from a key"),
            )
            .at(format!("key {key}"))
            .advise("find out who changed the store; restore it, then `domicile key replay`")
        };
        findings.push(Finding::of(Severity::Wrong, &error));
    }
    let mut chains = opened.keys.chains().await?;
    chains.retain(|(beginning, _)| beginning.place.region == *name);
    for (beginning, events) in &chains {
        proofs.chains += 1;
        found(verify_chain(beginning, events, &region.signing_key), findings)?;
    }
    found(checkpoint::hold(&checkpoints, &chains), findings)
}

async fn homes(config: &Config, opened: &Opened, findings: &mut Vec<Finding>) -> Result<()> {
    let homes = opened.homes.homes(None).await?;
    let unknown: BTreeSet<_> = homes
        .iter()
        .map(|home| &home.choice.region)
        .filter(|region| !config.regions().contains_key(*region))
        .collect();
    for region in unknown {
        let error = Error::new(Code::ConfigInvalid, format!("homes in {region} cannot be verified here"))
            .advise(format!("add [regions.{region}] to the configuration, with its signing key"));
        findings.push(Finding::of(Severity::Weak, &error));
    }
    let pinned = |region: &Region| {
        let known = config.regions().get(region);
        let known = known.map(|known| (known.place.clone(), known.signing_key));
        known.ok_or_else(|| Error::new(Code::ConfigInvalid, format!("the region {region} is not configured")))
    };
    for (home, state) in verify_all(homes.clone(), pinned) {
        match state {
            Err(error) if error.code() != Code::ConfigInvalid => {
                findings.push(Finding::of(Severity::Wrong, &error.at(home.choice.to_string())));
            }
            _ => {}
        }
    }
    Ok(())
}

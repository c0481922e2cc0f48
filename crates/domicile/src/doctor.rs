//! What is wrong with a place, before it matters: nothing is changed, and no record is opened.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

use crate::domicile::Domicile;
use crate::error::{Error, Result};
use crate::export::Export;
use crate::guard::{Action, Purpose};
use crate::keyring::Cause;
use crate::ledger::{Statement, StatementKind};
use crate::region::Region;
pub use crate::severity::Severity;
use crate::time::Time;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ailment {
    /// How bad.
    pub severity: Severity,
    /// What it is about: `keys`, `homes`, `ledger`, `host`, `places`, `posts`, `stores`.
    pub about: &'static str,
    /// What, in a sentence.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// How far a clock may be behind what the ledger says before it is wrong, in microseconds.
const CLOCK_BEHIND_MAX: i64 = 60_000_000;

/// Looks at the configuration's regions, this host's keys, its stores and the host itself.
///
/// Every configured key service is asked whether it would open a wrap for this host, without a wrap: also those of places
/// whose records may not be here, which should say no.
///
/// # Errors
/// None for what is wrong, which is the answer; those of reading homes.
pub async fn examine(domicile: &Domicile) -> Result<Vec<Ailment>> {
    let mut found = Examination::default();
    host(&mut found);
    let regions: Vec<_> = domicile.regions().map(|known| known.place.region.clone()).collect();
    for region in &regions {
        places(domicile, region, &mut found).await?;
    }
    let here = domicile.here().region.clone();
    stores(domicile, &mut found).await;
    ledger(domicile, &here, &mut found).await;
    keys_due(domicile, &here, &mut found).await;
    for (home, state) in domicile.homes(None).await? {
        if let Err(error) = state {
            found.add(Severity::Wrong, "homes", &error.at(home.choice.to_string()));
        }
    }
    found.0.sort_by_key(|ailment| ailment.severity);
    Ok(found.0)
}

#[derive(Default)]
struct Examination(Vec<Ailment>);

impl Examination {
    fn add(&mut self, severity: Severity, about: &'static str, error: &Error) {
        let advice = error.advice().unwrap_or_default().to_owned();
        self.say(severity, about, error.to_string(), advice);
    }

    fn say(&mut self, severity: Severity, about: &'static str, what: String, advice: impl Into<String>) {
        self.0.push(Ailment { severity, about, what, advice: advice.into() });
    }
}

/// Keys are in this host's memory while they are used: it should leave it for no disk.
fn host(found: &mut Examination) {
    if getrlimit(Resource::Core).current != Some(0) {
        let advice = "ulimit -c 0, or LimitCORE=0 in the unit, for whatever opens or seals";
        found.say(
            Severity::Weak,
            "host",
            "a process that dies may write its keys into a core dump".to_owned(),
            advice,
        );
    }
    // One line is the heading; each other is a place that memory is written to.
    let swaps = fs::read_to_string("/proc/swaps").map_or(0, |swaps| swaps.lines().count().saturating_sub(1));
    if swaps > 0 {
        let advice = "turn swap off, or encrypt it under a key of each boot";
        found.say(Severity::Weak, "host", "keys in memory may be written to swap".to_owned(), advice);
    }
}

/// The key services of one region: those of here must answer, those of places that are not permitted here must not.
async fn places(domicile: &Domicile, region: &Region, found: &mut Examination) -> Result<()> {
    let known = domicile.region(region)?;
    let permitted = domicile.check_region_processing(&known.place).await.is_ok();
    let Some(kms) = &known.kms else { return Ok(()) };
    let answer = kms.probe().await;
    match (permitted, answer) {
        (true, Err(error)) => found.add(Severity::Wrong, "keys", &error.at(region.to_string())),
        (false, Ok(())) => found.say(
            Severity::Wrong,
            "places",
            format!("the key service of {} would open records that may not be opened here", known.place),
            format!("take its credential or key files off this host, and `kms` out of [regions.{region}]"),
        ),
        _ => {}
    }
    if permitted {
        match kms.describe().await {
            Ok(description) if description.verifying_key != known.verifying_key => found.say(
                Severity::Wrong,
                "keys",
                format!("the key service of {region} signs with another key than the one that is configured"),
                "find out which of the two is right; every host must have the same",
            ),
            Ok(_) => {}
            Err(error) => found.add(Severity::Wrong, "keys", &error.at(region.to_string())),
        }
        for (owner, holder) in domicile.keyring().holders(region) {
            if let Err(error) = holder.kms.probe().await {
                found.add(
                    Severity::Wrong,
                    "keys",
                    &error.at(format!("{region}, {} of {owner}", holder.name)),
                );
            }
        }
    }
    Ok(())
}

/// What guards the stores, each once, and their servers' clocks.
async fn stores(domicile: &Domicile, found: &mut Examination) {
    let mut seen: Vec<&std::sync::Arc<dyn crate::store::KeyStore>> = Vec::new();
    for known in domicile.regions() {
        if seen.iter().any(|store| std::sync::Arc::ptr_eq(store, &known.store)) {
            continue;
        }
        seen.push(&known.store);
        match known.store.weaknesses().await {
            Ok(findings) => found.0.extend(findings.into_iter().map(|finding| Ailment {
                severity: finding.severity,
                about: "stores",
                what: match finding.place {
                    Some(place) => format!("{} ({place})", finding.what),
                    None => finding.what,
                },
                advice: finding.advice,
            })),
            Err(error) => found.add(Severity::Wrong, "stores", &error.at(known.place.region.to_string())),
        }
        match known.store.now().await {
            Ok(Some(theirs)) => {
                let ahead = domicile.now().micros().saturating_sub(theirs.micros());
                if ahead.saturating_abs() > CLOCK_BEHIND_MAX {
                    let (seconds, side) =
                        (ahead.saturating_abs() / 1_000_000, if ahead > 0 { "ahead of" } else { "behind" });
                    found.say(
                        Severity::Wrong,
                        "host",
                        format!(
                            "this host's clock is {seconds} s {side} that of the key store of {}",
                            known.place.region
                        ),
                        "set both clocks: periods, ages and retention are counted by them",
                    );
                }
            }
            Ok(None) => {}
            Err(error) => found.add(Severity::Wrong, "stores", &error.at(known.place.region.to_string())),
        }
    }
}

/// The ledger must verify, and this host's clock must not be behind it.
async fn ledger(domicile: &Domicile, here: &Region, found: &mut Examination) {
    let verified = async {
        let export = domicile.export(here).await?;
        let statements = export.verify(&domicile.region(here)?.verifying_key)?;
        let checkpoint = domicile.check_checkpoint(here, &statements).await?;
        Ok((export, statements, checkpoint))
    };
    match verified.await {
        Err(error) => {
            let error: Error = error;
            found.add(Severity::Wrong, "ledger", &error);
        }
        Ok((export, statements, checkpoint)) => {
            exposed(domicile, &export, &statements, checkpoint, found);
            cache(&export, found);
            let ahead = statements.last().map_or(0, |last| last.said.micros() - domicile.now().micros());
            if ahead > CLOCK_BEHIND_MAX {
                found.say(
                    Severity::Wrong,
                    "host",
                    format!("this host's clock is {} s behind the ledger's newest entry", ahead / 1_000_000),
                    "set the clock: periods, ages and retention are counted by it",
                );
            }
        }
    }
}

/// How long the ends of chains may be exposed before it is worth a word, in microseconds.
const CHECKPOINT_AGE_MAX: i64 = 86_400_000_000;

/// What whoever may write the store could still take back unseen.
fn exposed(
    domicile: &Domicile,
    export: &Export,
    statements: &[Statement],
    checkpoint: Option<Time>,
    found: &mut Examination,
) {
    let here = &export.region;
    let since = checkpoint.or_else(|| export.chains.iter().map(|(begun, _)| begun.begun).min());
    if since.is_some_and(|since| domicile.now().micros() - since.micros() > CHECKPOINT_AGE_MAX) {
        let what = match checkpoint {
            Some(said) => {
                format!("the newest checkpoint of {here} is of {said}: later events can be cut off unseen")
            }
            None => format!(
                "no checkpoint of {here} was ever said: the ends of audit chains can be cut off unseen"
            ),
        };
        found.say(
            Severity::Weak,
            "ledger",
            what,
            "domicile audit export --every '5 minutes' -o DIR, where the store's writers cannot write",
        );
    }
    let exported = match domicile.exported(here) {
        Ok(Some(exported)) => exported,
        // A host that remembers nothing cannot say.
        Ok(None) => return,
        Err(error) => return found.add(Severity::Wrong, "ledger", &error),
    };
    let is_tombstone =
        |statement: &&Statement| matches!(statement.kind, StatementKind::Erased | StatementKind::Destroyed);
    let alone =
        statements.iter().filter(|statement| statement.number > exported).filter(is_tombstone).count();
    if alone > 0 {
        found.say(
            Severity::Weak,
            "ledger",
            format!("{alone} erasures stand in the store of {here} alone, and in no export from this host"),
            "domicile audit export -o FILE: after a restore, what no export says is not erased again",
        );
    }
}

/// How often a process may have one branch key unwrapped in an hour, and more, before its cache does not work.
const UNWRAPS_AN_HOUR_MAX: u64 = 30;

/// A process that has its branch keys unwrapped again and again does not keep them.
fn cache(export: &Export, found: &mut Examination) {
    /// What of an event is looked at.
    #[derive(Deserialize)]
    struct Unwrap {
        time: String,
        event: String,
        key: Option<String>,
        outcome: String,
    }
    let mut worst: Option<(u64, String)> = None;
    for (_, events) in &export.chains {
        let mut by_hour: BTreeMap<(String, String), u64> = BTreeMap::new();
        for event in events {
            let Ok(Unwrap { time, event, key: Some(key), outcome }) = serde_json::from_str(&event.body)
            else {
                continue;
            };
            if event == "unwrap" && outcome == "ok" {
                // `2026-11-25T08`
                *by_hour.entry((key, time.get(..13).unwrap_or_default().to_owned())).or_default() += 1;
            }
        }
        let most = by_hour.into_iter().map(|((_, hour), count)| (count, hour)).max();
        worst = worst.max(most);
    }
    if let Some((count, hour)) = worst.filter(|(count, _)| *count > UNWRAPS_AN_HOUR_MAX) {
        found.say(
            Severity::Weak,
            "keys",
            format!("one process had one branch key unwrapped {count} times in the hour of {hour}:00Z"),
            "a key is asked for every ten minutes by a process that keeps one Domicile: open it once, and clone it",
        );
    }
}

async fn keys_due(domicile: &Domicile, here: &Region, found: &mut Examination) {
    let action = Action::Manage(Purpose::Maintenance.into());
    let due = async {
        let permit = domicile.permit_region(here, action).await?;
        Ok(domicile.keyring().expire(permit, domicile.retention(), true).await?.due)
    };
    let due = match due.await {
        Ok(due) => due,
        Err(error) => {
            let error: Error = error;
            return found.add(Severity::Wrong, "keys", &error);
        }
    };
    let waiting = |cause: Cause| due.iter().filter(|due| due.cause == cause && due.held.is_none()).count();
    for (cause, what) in [(Cause::Expiry, "expired"), (Cause::Shredding, "are to be shredded")] {
        let count = waiting(cause);
        if count > 0 {
            found.say(
                Severity::Weak,
                "keys",
                format!("the keys of {count} periods of scopes {what}, and are not destroyed yet"),
                "domicile key expire",
            );
        }
    }
}

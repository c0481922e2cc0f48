//! `domicile key`: keys and what becomes of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use domicile::context::KeyKind;
use domicile::export::Export;
use domicile::files::NewFile;
use domicile::keyring::{Concerned, ErasureReport, RotationReport};
use domicile::store::{KeySlot, RowFilter};
use domicile::{Action, Code, Domicile, Error, Permit, Purpose, Region, Request, Result, Scope, TenantId};
use domicile_record::format::LaneNo;
use domicile_record::{Erasable, Rewrapped, erase as erase_of, rewrap as rewrap_of};
use serde::Serialize;

use super::home::table;
use crate::arguments::{
    Common, HoldChange, HoldCommand, KeyAhead, KeyErase, KeyExpire, KeyList, KeyReplay, KeyRewrap, KeyRotate,
    KeyShred, KeyUnshred,
};
use crate::input::{self, Input};
use crate::report::{Report, counted};

/// How many rows are read at once.
const PAGE: u32 = 1_000;

fn manage() -> Action {
    Action::Manage(Purpose::Maintenance.into())
}

/// The region that was named, or where this host is.
fn region(domicile: &Domicile, named: Option<&Region>) -> Region {
    named.unwrap_or(&domicile.here().region).clone()
}

async fn permit(domicile: &Domicile, named: Option<&Region>) -> Result<Permit> {
    domicile.permit_region(&region(domicile, named), manage()).await
}

#[derive(Serialize)]
struct KeyJson {
    kind: &'static str,
    tenant: String,
    #[serde(rename = "type")]
    record_type: String,
    period: String,
    version: u32,
    state: &'static str,
    generation: u64,
    name: String,
}

pub(crate) async fn list(common: &Common, list: &KeyList, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let region = region(&domicile, list.region.as_ref());
    let store = &domicile.region(&region)?.store;
    let mut all = Vec::new();
    for kind in KeyKind::ALL {
        let filter = RowFilter { region: region.clone(), kind, period: None, tenant: list.tenant.clone() };
        let mut after = None;
        loop {
            let page = store.load_many(&filter, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.row.identity.clone());
            all.extend(page.into_iter().map(|stored| {
                let KeySlot { kind, scope, period, .. } = stored.row.identity.slot;
                KeyJson {
                    kind: kind.as_str(),
                    tenant: scope.tenant.to_string(),
                    record_type: scope.record_type.to_string(),
                    period: period.to_string(),
                    version: stored.row.identity.version,
                    state: stored.row.state.as_str(),
                    generation: stored.row.generation,
                    name: stored.row.name.to_string(),
                }
            }));
        }
    }
    report.print(&all, || {
        let numbers: Vec<_> =
            all.iter().map(|key| (key.version.to_string(), key.generation.to_string())).collect();
        let rows: Vec<_> = all
            .iter()
            .zip(&numbers)
            .map(|(key, (version, generation))| {
                [key.kind, &key.tenant, &key.record_type, &key.period, version, key.state, generation]
            })
            .collect();
        table(["KIND", "TENANT", "TYPE", "PERIOD", "VERSION", "STATE", "GENERATION"], &rows)
    })
}

#[derive(Serialize)]
struct RotationJson {
    made: usize,
    rewrapped: usize,
    destroyed: usize,
    roots: Vec<String>,
}

pub(crate) async fn rotate(common: &Common, rotate: &KeyRotate, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let keys = domicile.keyring();
    if let (Some(region), Some(old)) = (&rotate.root, &rotate.retire) {
        keys.retire_root(permit(&domicile, Some(region)).await?, old).await?;
        return report.print_line(&format!("the root key {old} is gone: no copy of what lay under it opens"));
    }
    let RotationReport { made, rewrapped, destroyed, roots, without, .. } =
        match (&rotate.tenant, &rotate.record_type, &rotate.root, &rotate.branch) {
            (Some(tenant), Some(record_type), ..) => {
                let scope = Scope { tenant: tenant.clone(), record_type: record_type.clone() };
                keys.rotate(domicile.permit(&scope, manage()).await?).await?
            }
            (.., Some(root), _) => {
                keys.rotate_roots(permit(&domicile, Some(root)).await?, !rotate.finish).await?
            }
            (.., Some(branch)) => {
                keys.rotate_branches(permit(&domicile, Some(branch)).await?, !rotate.finish).await?
            }
            _ => {
                return Err(Error::new(
                    Code::ArgumentInvalid,
                    "name a tenant and a type, --root or --branch",
                ));
            }
        };
    let json = RotationJson { made, rewrapped, destroyed, roots };
    report.print(&json, || {
        let mut lines: Vec<_> = json.roots.iter().map(|root| format!("new root key {root}")).collect();
        lines.push(format!(
            "{} made, {rewrapped} wrapped or sealed anew, {destroyed} destroyed that nothing lay under",
            counted(made as u64, "key version")
        ));
        lines.join("\n")
    })?;
    left_alone(&without)
}

/// Tenants whose own key services kept their keys from being changed: what was done stands, and the rest is to be done again.
fn left_alone(without: &BTreeSet<TenantId>) -> Result<()> {
    if without.is_empty() {
        return Ok(());
    }
    let tenants: Vec<_> = without.iter().map(TenantId::as_str).collect();
    Err(Error::new(
        Code::KmsUnavailable,
        format!("the key services of {} do not answer, deny, or are not configured here", tenants.join(", ")),
    )
    .rule("a tenant with custody of its own keeps nobody else's keys waiting, and its own are as they were")
    .advise("do it again once they answer; of a tenant that left, shred the keys"))
}

#[derive(Serialize)]
struct ErasureJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    record_type: Option<String>,
    tombstone: Option<u64>,
    keys: usize,
    leaves: usize,
    erased: String,
    done: String,
    #[serde(rename = "final")]
    final_: Option<String>,
    scrubbed: bool,
}

impl ErasureJson {
    fn new(scope: Option<&Scope>, report: &ErasureReport) -> Self {
        Self {
            tenant: scope.map(|scope| scope.tenant.to_string()),
            record_type: scope.map(|scope| scope.record_type.to_string()),
            tombstone: report.tombstone,
            keys: report.keys,
            leaves: report.leaves,
            erased: report.erased.to_string(),
            done: report.done.to_string(),
            final_: report.final_.map(|time| time.to_string()),
            scrubbed: report.scrubbed,
        }
    }

    fn dates(&self) -> String {
        let final_ = match &self.final_ {
            Some(time) => format!("final {time}, when the last backup is gone"),
            None => "final when the last backup of the key store is gone".to_owned(),
        };
        format!("done {}, when every process has taken note\n{final_}", self.done)
    }
}

#[derive(Serialize)]
struct AheadJson {
    made: usize,
    there: usize,
    later: usize,
}

pub(crate) async fn ahead(common: &Common, ahead: &KeyAhead, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let made = domicile.keyring().make_ahead(permit(&domicile, ahead.region.as_ref()).await?).await?;
    let json = AheadJson { made: made.made, there: made.there, later: made.later };
    report.print(&json, || {
        format!(
            "{} of the next period made; {} were there, and the time of {} has not come",
            counted(json.made as u64, "key"),
            json.there,
            json.later
        )
    })?;
    left_alone(&made.without)
}

#[derive(Serialize)]
struct RewrapJson {
    file: String,
    lanes: u64,
    current: u64,
    erased: u64,
}

/// Each file is replaced under its own name, once the next edition is whole; what is wrong with one stops no other.
pub(crate) async fn rewrap(common: &Common, rewrap: &KeyRewrap, report: &Report) -> Result<()> {
    let inputs = Input::all(&rewrap.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    for input in inputs {
        let Input::File(path) = &input else {
            return Err(Error::new(
                Code::ArgumentInvalid,
                "a segment is rewrapped where it lies, and not in a pipe",
            ));
        };
        match rewrap_file(&domicile, path).await {
            Ok(json) => report.print(&json, || match json.lanes {
                0 => format!("{}: current", json.file),
                lanes => format!("{}: {} moved", json.file, counted(lanes, "lane")),
            })?,
            Err(error) => report.fail(&error.at(input.name())),
        }
    }
    Ok(())
}

async fn rewrap_file(domicile: &Domicile, path: &Path) -> Result<RewrapJson> {
    let file = File::open(path)
        .map_err(|source| Error::new(Code::InputFailed, "the segment cannot be opened").because(source))?;
    let mode = file.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let mut edition = NewFile::create(path, mode, true)?;
    let rewrapped = rewrap_of(domicile, file, Purpose::Maintenance, &mut edition).await?;
    if rewrapped.lanes > 0 {
        edition.publish()?;
    }
    let Rewrapped { lanes, current, erased, .. } = rewrapped;
    Ok(RewrapJson { file: path.display().to_string(), lanes, current, erased })
}

pub(crate) async fn erase(common: &Common, erase: &KeyErase, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let what = match &erase.lanes[..] {
        [all] if all == "all" => Erasable::Segment,
        lanes => {
            let number = |lane: &String| {
                lane.parse().map(LaneNo).map_err(|source: std::num::ParseIntError| {
                    Error::new(Code::ArgumentInvalid, format!("{lane:?} is no lane"))
                        .advise("name lanes by their numbers, or say `all`")
                        .because(source)
                })
            };
            Erasable::Lanes(lanes.iter().map(number).collect::<Result<_>>()?)
        }
    };
    let place = erase.file.display().to_string();
    let file = File::open(&erase.file).map_err(|source| {
        Error::new(Code::InputFailed, "the segment cannot be opened").at(place.clone()).because(source)
    })?;
    let request = Request::new(erase.purpose, erase.reference.as_deref())?;
    let erased = erase_of(&domicile, file, &what, &erase.confirm, request).await;
    for (scope, erasure) in erased.map_err(|error| error.at(place))? {
        let json = ErasureJson::new(Some(&scope), &erasure);
        report.print(&json, || {
            let what = match what {
                Erasable::Segment => "the segment is retired, in every copy".to_owned(),
                _ => format!("{} of {scope} erased, in every copy", counted(erasure.leaves as u64, "lane")),
            };
            let tombstone =
                erasure.tombstone.map_or(String::new(), |number| format!(" (tombstone {number})"));
            format!("{what}{tombstone}\n{}", json.dates())
        })?;
    }
    Ok(())
}

#[derive(Serialize)]
struct ExpiryJson {
    due: Vec<DueJson>,
    destroyed: Option<ErasureJson>,
    /// Keys of days on which posts sealed, and after which nothing of theirs is adopted any more.
    post_keys: usize,
}

#[derive(Serialize)]
struct DueJson {
    tenant: String,
    #[serde(rename = "type")]
    record_type: String,
    period: String,
    cause: &'static str,
    due: String,
    held: Option<String>,
}

pub(crate) async fn expire(common: &Common, expire: &KeyExpire, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let permit = permit(&domicile, expire.region.as_ref()).await?;
    let expired = domicile.keyring().expire(permit, domicile.retention(), expire.dry_run).await?;
    let post_keys = if expire.dry_run {
        0
    } else {
        domicile.destroy_post_keys(&region(&domicile, expire.region.as_ref()), manage()).await?.keys
    };
    let due = expired.due.iter().map(|due| DueJson {
        tenant: due.scope.tenant.to_string(),
        record_type: due.scope.record_type.to_string(),
        period: due.period.to_string(),
        cause: due.cause.as_str(),
        due: due.due.to_string(),
        held: due.held.clone(),
    });
    let destroyed = expired.destroyed.as_ref().map(|erasure| ErasureJson::new(None, erasure));
    let json = ExpiryJson { due: due.collect(), destroyed, post_keys };
    report.print(&json, || {
        let row = |due: &DueJson| {
            let held = due.held.as_ref().map_or(String::new(), |held| format!(", kept: {held}"));
            format!("{}/{} {}: {}, due {}{held}", due.tenant, due.record_type, due.period, due.cause, due.due)
        };
        let mut lines: Vec<_> = json.due.iter().map(row).collect();
        match &json.destroyed {
            None => {
                lines
                    .push(format!("{} due; nothing was destroyed", counted(json.due.len() as u64, "period")));
            }
            Some(destroyed) if destroyed.keys == 0 => lines.push("nothing was destroyed".to_owned()),
            Some(destroyed) => {
                lines.push(format!("{} destroyed", counted(destroyed.keys as u64, "key")));
                lines.push(destroyed.dates());
            }
        }
        if json.post_keys > 0 {
            let keys = counted(json.post_keys as u64, "key");
            lines.push(format!(
                "{keys} of posts destroyed: what they sealed to them and was not adopted is gone"
            ));
        }
        lines.join("\n")
    })
}

#[derive(Serialize)]
struct OrderJson {
    entry: u64,
}

pub(crate) async fn hold(common: &Common, hold: &HoldCommand, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let keys = domicile.keyring();
    let whom = |change: &HoldChange| Concerned { tenant: change.tenant.clone(), types: change.types.clone() };
    let (change, entry, what) = match hold {
        HoldCommand::Add(change) => {
            let permit = permit(&domicile, change.region.as_ref()).await?;
            (change, keys.hold(permit, whom(change), &change.reason).await?, "held")
        }
        HoldCommand::Release(change) => {
            let permit = permit(&domicile, change.region.as_ref()).await?;
            (change, keys.release(permit, whom(change), &change.reason).await?, "released")
        }
        HoldCommand::List(list) => {
            let holds = keys.holds(&region(&domicile, list.region.as_ref())).await?;
            return print_holds(&holds, report);
        }
    };
    report.print(&OrderJson { entry }, || format!("{} {what} (entry {entry} of the ledger)", whom(change)))
}

#[derive(Serialize)]
struct HoldJson {
    tenant: String,
    #[serde(rename = "type")]
    types: String,
    since: String,
    reason: String,
}

fn print_holds(holds: &[domicile::keyring::Hold], report: &Report) -> Result<()> {
    let all: Vec<_> = holds
        .iter()
        .map(|hold| HoldJson {
            tenant: hold.whom.tenant.to_string(),
            types: hold.whom.types.to_string(),
            since: hold.since.to_string(),
            reason: hold.reason.clone(),
        })
        .collect();
    report.print(&all, || {
        let rows: Vec<_> =
            all.iter().map(|hold| [&hold.tenant[..], &hold.types, &hold.since, &hold.reason]).collect();
        table(["TENANT", "TYPE", "SINCE", "REASON"], &rows)
    })
}

pub(crate) async fn shred(common: &Common, shred: &KeyShred, report: &Report) -> Result<()> {
    confirmed(shred.tenant == shred.confirm)?;
    let domicile = input::domicile(common, report).await?;
    let whom = Concerned { tenant: shred.tenant.clone(), types: shred.types.clone() };
    let pending = Duration::from_secs(u64::from(shred.pending) * 86_400);
    let permit = permit(&domicile, shred.region.as_ref()).await?;
    let entry = domicile.keyring().shred(permit, whom.clone(), pending).await?;
    report.print(&OrderJson { entry }, || {
        format!(
            "the keys of {whom} are used no longer, and destroyed by `domicile key expire` after {} (entry {entry} of the ledger)",
            counted(u64::from(shred.pending), "day")
        )
    })
}

pub(crate) async fn unshred(common: &Common, unshred: &KeyUnshred, report: &Report) -> Result<()> {
    confirmed(unshred.tenant == unshred.confirm)?;
    let domicile = input::domicile(common, report).await?;
    let whom = Concerned { tenant: unshred.tenant.clone(), types: unshred.types.clone() };
    let permit = permit(&domicile, unshred.region.as_ref()).await?;
    let entry = domicile.keyring().unshred(permit, whom.clone()).await?;
    report.print(&OrderJson { entry }, || {
        format!("the keys of {whom} are used again (entry {entry} of the ledger)")
    })
}

fn confirmed(same: bool) -> Result<()> {
    if same {
        return Ok(());
    }
    Err(Error::new(Code::ArgumentInvalid, "--confirm names another tenant")
        .advise("say the tenant whose keys are meant, twice"))
}

#[derive(Serialize)]
struct ReplayJson {
    entries: usize,
    keys: usize,
    homes: usize,
    gone: Vec<GoneJson>,
    buried: Vec<GoneJson>,
}

#[derive(Serialize)]
struct GoneJson {
    key: String,
    whose: String,
}

pub(crate) async fn replay(common: &Common, replay: &KeyReplay, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let export = read_export(&replay.export)?;
    let replayed = domicile.replay(&export, manage()).await?;
    let gone =
        replayed.gone.iter().map(|(name, whose)| GoneJson { key: name.to_string(), whose: whose.clone() });
    let buried =
        replayed.buried.iter().map(|(name, whose)| GoneJson { key: name.to_string(), whose: whose.clone() });
    let json = ReplayJson {
        entries: replayed.entries,
        keys: replayed.keys,
        homes: replayed.homes,
        gone: gone.collect(),
        buried: buried.collect(),
    };
    report.print(&json, || {
        let mut lines = vec![format!(
            "{} of the ledger, {} and {} brought back; the store may be used again",
            counted(json.entries as u64, "entry"),
            counted(json.homes as u64, "home"),
            counted(json.keys as u64, "erased key"),
        )];
        let gone = |gone: &GoneJson| {
            format!("gone: key {} of {}: what it sealed opens with nothing", gone.key, gone.whose)
        };
        lines.extend(json.gone.iter().map(gone));
        let buried = |buried: &GoneJson| {
            format!(
                "refused: key {} of {}, which nobody opens here: replay again once its key services answer",
                buried.key, buried.whose
            )
        };
        lines.extend(json.buried.iter().map(buried));
        lines.join("\n")
    })
}

pub(super) fn read_export(path: &std::path::Path) -> Result<Export> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|source| {
        Error::new(Code::InputFailed, "the export cannot be opened").at(place.clone()).because(source)
    })?;
    Export::read(BufReader::new(file)).map_err(|error| error.at(place))
}

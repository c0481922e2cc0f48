//! Who could open a segment, and what stands in the way here: without a call of a key service.

use std::collections::{BTreeMap, HashSet};

use domicile::store::KeyState;
use domicile::{Code, Domicile, Error, Result, Scope};
use serde::Serialize;

use crate::format::LaneNo;
use crate::reader::{SegmentFile, Source, unadopted};

/// Who could open a segment, and what stands in the way here.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The segment's name, in hexadecimal.
    pub segment: String,
    /// Where its records are at home, as the file says.
    pub region: String,
    /// The jurisdiction of that region.
    pub jurisdiction: String,
    /// Where this host is.
    pub here: String,
    /// Who could open it.
    pub who: String,
    /// What stands in the way here, of all of it.
    pub obstacles: Vec<Obstacle>,
    /// Its scopes, lane 0 left out.
    pub scopes: Vec<ScopeExplanation>,
}

/// What stands in the way of one scope's lanes.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ScopeExplanation {
    /// Whose records.
    pub tenant: String,
    /// Of which type.
    #[serde(rename = "type")]
    pub record_type: String,
    /// How many lanes.
    pub lanes: u64,
    /// The home that the scope has chosen.
    pub home: Option<String>,
    /// What stands in the way here.
    pub obstacles: Vec<Obstacle>,
}

/// One reason why something does not open here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Obstacle {
    /// The stable code.
    pub code: &'static str,
    /// What, in a sentence.
    pub what: String,
    /// Where, if that is somewhere else than in the segment.
    #[serde(rename = "where")]
    pub place: Option<String>,
    /// The rule behind it.
    pub rule: Option<String>,
    /// What to do.
    pub advice: Option<String>,
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().as_str(),
            what: error.what().to_owned(),
            place: error.place().map(str::to_owned),
            rule: error.broken_rule().map(str::to_owned),
            advice: error.advice().map(str::to_owned),
        }
    }
}

impl Explanation {
    /// Whether anything stands in the way of anything.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.obstacles.is_empty() && self.scopes.iter().all(|scope| scope.obstacles.is_empty())
    }
}

/// Obstacles of one scope that are told apart: a file may name as many keys as it likes.
const OBSTACLES_MAX: usize = 20;

/// Explains a segment. Homes and key rows are looked up; no key service is called and no key is opened.
///
/// # Errors
/// [`SegmentForeign`](domicile::Code::SegmentForeign) and the like when there is no header to begin with;
/// those of reading the file and the stores. What stands in the way of opening is no error.
pub async fn why<S: Source>(domicile: &Domicile, source: S) -> Result<Explanation> {
    let mut file = SegmentFile::open(source)?;
    file.rewalk()?;
    let place = &file.header.place;
    let mut explanation = Explanation {
        segment: file.header.id.to_string(),
        region: place.region.to_string(),
        jurisdiction: place.jurisdiction.to_string(),
        here: domicile.here().to_string(),
        who: format!(
            "whoever may use the root key of {} and its key store, on a host in {}, for a stated purpose",
            place.region, place.jurisdiction
        ),
        obstacles: Vec::new(),
        scopes: Vec::new(),
    };
    let known = match domicile.region(&place.region) {
        Ok(known) => Some(known),
        Err(error) => {
            explanation.obstacles.push(error.into());
            None
        }
    };
    if let Some(known) = known {
        if let Err(error) = domicile.check_region_processing(&known.place).await {
            explanation.obstacles.push(error.into());
        }
        match &known.kms {
            Some(kms) => explanation.obstacles.extend(kms.ready().err().map(Obstacle::from)),
            None => explanation.obstacles.push(
                Error::new(
                    Code::KmsUnavailable,
                    format!("this host has no key service for {}", place.region),
                )
                .advise(format!("open it on a host whose configuration has kms for {}", place.region))
                .into(),
            ),
        }
    }

    let region_lane = file.walked().and_then(|walked| walked.lanes.get(&LaneNo::REGION)?.open.as_ref());
    if let Some(open) = region_lane.filter(|open| open.wrapped.is_none()) {
        explanation.obstacles.push(unadopted(open).into());
    }

    let mut scopes: BTreeMap<Scope, Vec<_>> = BTreeMap::new();
    for lane in file.walked().into_iter().flat_map(|walked| walked.lanes.values()) {
        let Some(open) = &lane.open else { continue };
        if !open.descriptor.scope.is_region() {
            scopes.entry(open.descriptor.scope.clone()).or_default().push(open);
        }
    }
    for (scope, lanes) in scopes {
        let mut obstacles: Vec<Obstacle> = Vec::new();
        let home = match domicile.home(&scope).await {
            Ok(home) => {
                obstacles.extend(home.check_signed().err().map(Obstacle::from));
                let processing =
                    domicile.check_processing(home.place(), &scope).await.err().map(Obstacle::from);
                // What stands in the way of the whole region is said once.
                obstacles.extend(processing.filter(|obstacle| !explanation.obstacles.contains(obstacle)));
                if home.place() != place {
                    let what =
                        format!("{scope} is at home in {}, and this segment is of {place}", home.place());
                    let advice = "find out who sealed records of this scope under another region";
                    obstacles.push(Error::new(Code::HomeMismatch, what).advise(advice).into());
                }
                Some(home.place().to_string())
            }
            Err(error) => {
                obstacles.push(error.into());
                None
            }
        };
        let (mut asked, mut more) = (HashSet::new(), 0_u64);
        for open in known.iter().filter(|known| known.kms.is_some()).flat_map(|_| &lanes) {
            let Some(wrapped) = &open.wrapped else { continue };
            let name = wrapped.tenant.key;
            if !asked.insert((name, open.descriptor.period)) {
                continue;
            }
            let error = match domicile.keyring().key_state(&place.region, name).await {
                Ok(Some((slot, _))) if slot.scope != scope || slot.period != open.descriptor.period => {
                    Error::new(Code::KeyUnverified, format!("key {name} belongs to another scope or period"))
                }
                Ok(Some((_, KeyState::Destroyed))) => Error::new(
                    Code::KeyUnknown,
                    format!("the key store says, unsigned, that key {name} was destroyed"),
                ),
                Ok(Some(_)) => continue,
                Ok(None) => Error::new(Code::KeyUnknown, format!("the key store knows no key {name}")),
                Err(error) => error,
            };
            let obstacle = Obstacle::from(error);
            if obstacles.len() >= OBSTACLES_MAX {
                more += 1;
            } else if !obstacles.contains(&obstacle) {
                obstacles.push(obstacle);
            }
        }
        if more > 0 {
            let what = format!("and {more} more keys that cannot be had");
            obstacles.push(Error::new(Code::KeyUnknown, what).into());
        }
        explanation.scopes.push(ScopeExplanation {
            tenant: scope.tenant.to_string(),
            record_type: scope.record_type.to_string(),
            lanes: lanes.len() as u64,
            home,
            obstacles,
        });
    }
    Ok(explanation)
}

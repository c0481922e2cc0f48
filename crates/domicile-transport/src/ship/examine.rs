//! Looking at a segment without any key: whether it is whole, and whether it is at home here.

use std::collections::BTreeSet;
use std::fs::File;

use domicile::{Code, Domicile, Error, Place, Result, Scope};
use domicile_record::format::{LaneNo, Origin, SegmentHeader, SegmentId};
use domicile_record::{header_of, inspect};

/// What was found of a segment that is whole.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) header: SegmentHeader,
    /// Whose records are in it.
    pub(super) scopes: BTreeSet<Scope>,
    pub(super) bytes: u64,
    /// A post sealed it, and no home has it under its own keys.
    pub(super) unadopted: bool,
}

/// Reads the structure of a segment from its first block to its last. Memory is that of [`inspect`]: as much as there are lanes and
/// blocks, and not as there are octets.
pub(super) fn examine(file: &File) -> Result<Examined> {
    let header = header_of(file)?;
    let inspection = inspect(file)?;
    let code = match inspection.state {
        "complete" | "recovered" => None,
        "unfinished" => Some(Code::SegmentUnfinished),
        "torn" => Some(Code::SegmentTorn),
        _ => Some(Code::SegmentCorrupt),
    };
    if let Some(code) = code {
        return Err(Error::new(code, format!("the segment is {}: {}", inspection.state, inspection.detail))
            .rule("what is shipped has its end, and every block of it")
            .advise("`domicile recover` closes what a crash left; otherwise take another copy"));
    }
    let lane_0 = inspection.lanes.iter().find(|lane| lane.lane == LaneNo::REGION.0);
    let unadopted = header.origin == Origin::Post && lane_0.is_none_or(|lane| lane.key.is_none());
    let mut scopes = BTreeSet::new();
    for lane in inspection.lanes.iter().filter(|lane| lane.lane != LaneNo::REGION.0) {
        let record_type = lane.record_type.parse()?;
        scopes.insert(Scope { tenant: lane.tenant.parse()?, record_type });
    }
    Ok(Examined { header, scopes, bytes: inspection.file_bytes, unadopted })
}

/// That a segment is the one that was named, and is at home here.
pub(super) fn check_header(header: &SegmentHeader, id: &SegmentId, here: &Place) -> Result<()> {
    if header.id != *id {
        return Err(Error::new(
            Code::ShipmentInvalid,
            "the file is another segment than the one that was named",
        )
        .at(format!("segment {}", header.id))
        .advise(format!("send it as /v1/segments/{}", header.id)));
    }
    if header.place != *here {
        return Err(Error::new(
            Code::HomeMismatch,
            format!("the segment is at home in {}, and this is {here}", header.place),
        )
        .rule("segments are shipped to their home region, and nowhere else")
        .advise(format!("ship it to a host in {}", header.place.region)));
    }
    Ok(())
}

/// That no scope is at home elsewhere, as far as the registry knows.
pub(super) async fn check_homes(domicile: &Domicile, scopes: &BTreeSet<Scope>, here: &Place) -> Result<()> {
    for scope in scopes {
        match domicile.home(scope).await {
            Ok(home) if home.place() == here => {}
            Ok(home) => {
                return Err(Error::new(
                    Code::HomeMismatch,
                    format!("a lane's records are at home in {}, and this is {here}", home.place()),
                )
                .at(format!("scope {scope}"))
                .rule("every lane of a segment is at home where the segment is"));
            }
            // A registry may not have heard of it yet, and what it has not heard of contradicts nothing.
            Err(error) if error.code() == Code::HomeNone => {
                tracing::warn!(
                    "a segment has records of a scope of which the registry of homes knows nothing"
                );
            }
            Err(error) => return Err(error.at(format!("scope {scope}"))),
        }
    }
    Ok(())
}

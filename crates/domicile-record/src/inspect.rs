//! Inspecting a segment without any key: what its structure says, and what that cannot vouch for.

use domicile::Result;
use domicile::post::PostSeal;
use serde::Serialize;

use crate::format::SegmentHeader;
use crate::reader::{SegmentFile, Source};

/// What a file says of itself. Nothing of it is authenticated; only `verify`, with keys, vouches for it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The segment's name, in hexadecimal.
    pub segment: String,
    /// The version of the format.
    pub version: u16,
    /// Its region.
    pub region: String,
    /// The jurisdiction of the region.
    pub jurisdiction: String,
    /// When it was begun.
    pub created: String,
    /// Who sealed it: `writer`, or `post`.
    pub origin: &'static str,
    /// Which post.
    pub post: Option<String>,
    /// How often it was rewritten without touching what is sealed.
    pub edition: u32,
    /// The suite of lane 0.
    pub suite: &'static str,
    /// Octets of the file.
    pub file_bytes: u64,
    /// Blocks that were found.
    pub blocks: u64,
    /// How the file ends, as far as can be told without a key: `complete`, `recovered`, `unfinished`, `torn`
    /// or `corrupt`.
    pub state: &'static str,
    /// The same in a sentence.
    pub detail: String,
    /// Whether the footer was found.
    pub footer: bool,
    /// The lanes, lane 0 among them.
    pub lanes: Vec<LaneInspection>,
    /// What cannot be told without keys.
    pub not_vouched_for: &'static str,
}

/// What a lane says of itself.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LaneInspection {
    /// Its number.
    pub lane: u32,
    /// Whose records.
    pub tenant: String,
    /// Of which type.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Their period.
    pub period: String,
    /// How they are sealed.
    pub suite: &'static str,
    /// How they stood in the input.
    pub framing: Option<String>,
    /// How its blocks are compressed: `none`, or `zstd`.
    pub compression: &'static str,
    /// Whether it keeps event times.
    pub event_times: bool,
    /// Whether it keeps the order of arrival.
    pub arrivals: bool,
    /// Whether it holds one long record.
    pub long_record: bool,
    /// Its blocks.
    pub blocks: u64,
    /// Those of its blocks that hold records.
    pub data_blocks: u64,
    /// Octets of its blocks.
    pub bytes: u64,
    /// Whether its end was found.
    pub ended: bool,
    /// The name of the tenant key that wrapped its data key; none in a post's segment that is not adopted.
    pub key: Option<String>,
    /// The leaf of that key.
    pub leaf: Option<String>,
}

/// Reads the structure of a segment. No key, no configuration, no network.
///
/// # Errors
/// [`SegmentForeign`](domicile::Code::SegmentForeign) and the like when there is no header to begin with;
/// [`InputFailed`](domicile::Code::InputFailed) when it cannot be read.
pub fn inspect<S: Source>(source: S) -> Result<Inspection> {
    let mut file = SegmentFile::open(source)?;
    file.rewalk()?;
    let SegmentHeader { id, suite, place, created, origin, edition } = &file.header;
    let mut inspection = Inspection {
        segment: id.to_string(),
        version: crate::format::VERSION,
        region: place.region.to_string(),
        jurisdiction: place.jurisdiction.to_string(),
        created: created.to_string(),
        origin: origin.as_str(),
        post: None,
        edition: *edition,
        suite: suite.as_str(),
        file_bytes: file.length,
        blocks: 0,
        state: "corrupt",
        detail: String::new(),
        footer: false,
        lanes: Vec::new(),
        not_vouched_for: "names, counts, periods and state are what the file says; \
                          `verify` opens every block and checks them against its tags",
    };
    let Some(walked) = file.walked() else { return Ok(inspection) };
    inspection.blocks = walked.blocks;
    inspection.footer = walked.footer.is_some();
    let mut unreadable = 0u32;
    for (number, lane) in &walked.lanes {
        let Some(open) = &lane.open else {
            unreadable += 1;
            continue;
        };
        let descriptor = &open.descriptor;
        if let Some(PostSeal::Segment { claim, .. }) = &open.post {
            inspection.post = Some(claim.post.to_string());
        }
        inspection.lanes.push(LaneInspection {
            lane: number.0,
            tenant: descriptor.scope.tenant.to_string(),
            record_type: descriptor.scope.record_type.to_string(),
            period: descriptor.period.to_string(),
            suite: descriptor.suite.as_str(),
            framing: descriptor.framing.map(|framing| framing.to_string()),
            compression: descriptor.compression.as_str(),
            event_times: descriptor.contents.event_times,
            arrivals: descriptor.contents.arrivals,
            long_record: descriptor.contents.long_record,
            blocks: lane.blocks.len() as u64,
            data_blocks: lane.data_blocks,
            bytes: lane.block_bytes,
            ended: !lane.ends.is_empty(),
            key: open.wrapped.as_ref().map(|wrapped| wrapped.tenant.key.to_string()),
            leaf: open.wrapped.as_ref().map(|wrapped| wrapped.tenant.leaf.to_string()),
        });
    }
    let region_ended =
        walked.lanes.get(&crate::format::LaneNo::REGION).is_some_and(|lane| !lane.ends.is_empty());
    let all_ended = walked.lanes.values().all(|lane| !lane.ends.is_empty());
    (inspection.state, inspection.detail) = match (walked.damage, walked.tail, region_ended) {
        (Some(damage), _, _) => {
            ("corrupt", format!("{} bytes from byte {} are no block", damage.bytes, damage.at))
        }
        (None, Some(tail), true) => (
            "corrupt",
            format!(
                "{} bytes from byte {} stand behind the end, or are a damaged footer",
                tail.bytes, tail.at
            ),
        ),
        (None, Some(tail), false) => {
            ("torn", format!("the last {} bytes, from byte {}, are no whole block", tail.bytes, tail.at))
        }
        (None, None, _) if unreadable > 0 => {
            ("corrupt", format!("{unreadable} lanes have no readable opening"))
        }
        (None, None, true) if all_ended && inspection.footer => {
            ("complete", "lane 0 and all lanes have an end".to_owned())
        }
        (None, None, true) if inspection.footer => {
            ("recovered", "lane 0 has an end, and other lanes have none: a crash cut it short".to_owned())
        }
        (None, None, true) => ("corrupt", "the footer is missing".to_owned()),
        (None, None, false) => ("unfinished", "it has no end".to_owned()),
    };
    Ok(inspection)
}

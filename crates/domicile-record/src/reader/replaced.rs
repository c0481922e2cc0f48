//! Which segments another one replaces: a reader of several leaves them out, so that no record is seen twice.

use std::collections::BTreeSet;

use domicile::{Action, Domicile, Request, Result, Scope};

use super::{Opening, SegmentFile, Selection, Source, read_lane_open};
use crate::format::SegmentId;

/// The segments that this one replaces: what its lane 0 says, once that is opened and vouches for the whole of it. No key is
/// asked for where it names none.
///
/// # Errors
/// Those of [`Segment::open_source`](super::Segment::open_source).
pub async fn replaced_by<S: Source>(
    domicile: &Domicile,
    source: S,
    request: impl Into<Request>,
) -> Result<Vec<SegmentId>> {
    let file = SegmentFile::open(source)?;
    if claimed(&file)?.is_empty() {
        return Ok(Vec::new());
    }
    // Lane 0 alone.
    let action = Action::Open(request.into());
    let opening = Opening { domicile, action, selection: Selection::scopes(&[]) };
    let segment = opening.open_file(file).await?;
    match segment.region {
        Some(region) if segment.state.is_whole() => Ok(region.descriptor.replaces),
        _ => Ok(Vec::new()),
    }
}

/// The segments that this one says it replaces, by the opening of its lane 0, if the file is whole as far as can be told without
/// a key. Nothing vouches for it: whoever goes by it may leave something out for now, and may not remove it.
///
/// # Errors
/// [`SegmentForeign`](domicile::Code::SegmentForeign) and the like for what is no segment;
/// [`InputFailed`](domicile::Code::InputFailed).
pub fn claims_to_replace<S: Source>(source: S) -> Result<Vec<SegmentId>> {
    let file = SegmentFile::open(source)?;
    if !file.has_whole_footer()? {
        return Ok(Vec::new());
    }
    claimed(&file)
}

/// The segments that the opening of lane 0 names.
fn claimed<S: Source>(file: &SegmentFile<S>) -> Result<Vec<SegmentId>> {
    let places = file.lanes_of(&Scope::of_region())?;
    let opens = places.iter().filter_map(|place| read_lane_open(file, place).ok());
    Ok(opens.flat_map(|open| open.descriptor.replaces).collect())
}

/// The segments that others among these replace. What is no segment, or cannot be opened, replaces nothing.
///
/// # Errors
/// What keeps the keys of one that names others from being had: nobody knows then which to leave out.
pub async fn replaced_among<S: Source>(
    domicile: &Domicile,
    sources: impl IntoIterator<Item = S>,
    request: impl Into<Request>,
) -> Result<BTreeSet<SegmentId>> {
    let request = request.into();
    let mut replaced = BTreeSet::new();
    for source in sources {
        match replaced_by(domicile, source, request.clone()).await {
            Ok(others) => replaced.extend(others),
            Err(error) if error.class() == domicile::Class::KeyService => return Err(error),
            // Whoever reads it is told.
            Err(_) => {}
        }
    }
    Ok(replaced)
}

//! What is asked of a segment.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use domicile::{Code, Error, RecordType, Result, Scope, TenantId, Time};

use super::lane::Wanted;

/// Which lanes and records of a segment are asked for; everything, unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    scopes: Option<BTreeSet<Scope>>,
    tenant: Option<TenantId>,
    record_type: Option<RecordType>,
    from: Option<Time>,
    to: Option<Time>,
    records: Option<Range<u64>>,
    alone: bool,
}

impl Selection {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// These scopes alone.
    #[must_use]
    pub fn scopes(scopes: &[Scope]) -> Self {
        Self { scopes: Some(scopes.iter().cloned().collect()), ..Self::default() }
    }

    /// This tenant alone.
    #[must_use]
    pub fn tenant(mut self, tenant: TenantId) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// This record type alone.
    #[must_use]
    pub fn record_type(mut self, record_type: RecordType) -> Self {
        self.record_type = Some(record_type);
        self
    }

    /// Records from this time on. Where a lane keeps no event times, whole blocks by when they were sealed.
    #[must_use]
    pub fn from(mut self, time: Time) -> Self {
        self.from = Some(time);
        self
    }

    /// Records before this time.
    #[must_use]
    pub fn to(mut self, time: Time) -> Self {
        self.to = Some(time);
        self
    }

    /// Records by number, from 0, the end not included: as they arrived where lanes keep that, else by
    /// their place in the lane.
    ///
    /// # Errors
    /// [`ArgumentInvalid`](Code::ArgumentInvalid) for a range that ends before it begins.
    pub fn records(mut self, records: Range<u64>) -> Result<Self> {
        if records.start > records.end {
            return Err(Error::new(Code::ArgumentInvalid, "a range of records that ends before it begins"));
        }
        self.records = Some(records);
        Ok(self)
    }

    /// The lanes by themselves, without lane 0, whose directory grows with the number of all lanes: of a segment that is far
    /// away, one lane is found and read with three requests, however many there are.
    ///
    /// The end of each lane vouches for everything in it: records, blocks, their order and number. What lane 0 alone says
    /// stays unsaid: that the segment is whole and is not another edition's, and that no lane of the scope is missing;
    /// [`State::Unasked`](super::State::Unasked) is the state. A segment without a footer is walked and read as any other,
    /// and a lane without an end of its own is not read.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether lanes were asked for by name: then one that cannot be read is a failure.
    #[must_use]
    pub fn names_lanes(&self) -> bool {
        self.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty())
            || self.tenant.is_some()
            || self.record_type.is_some()
    }

    pub(crate) fn wants_scope(&self, scope: &Scope) -> bool {
        !scope.is_region()
            && self.scopes.as_ref().is_none_or(|scopes| scopes.contains(scope))
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == scope.tenant)
            && self.record_type.as_ref().is_none_or(|record_type| *record_type == scope.record_type)
    }

    /// The one scope that is asked for, if it is one.
    pub(crate) fn one_scope(&self) -> Option<Scope> {
        match (&self.scopes, &self.tenant, &self.record_type) {
            (Some(scopes), None, None) if scopes.len() == 1 => scopes.first().cloned(),
            (None, Some(tenant), Some(record_type)) => {
                Some(Scope { tenant: tenant.clone(), record_type: record_type.clone() })
            }
            _ => None,
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        let micros = |time: Option<Time>, otherwise| time.map_or(otherwise, Time::micros);
        let bounded = self.from.is_some() || self.to.is_some();
        Wanted {
            times: bounded.then(|| micros(self.from, i64::MIN)..micros(self.to, i64::MAX)),
            records: self.records.clone(),
        }
    }
}

impl From<&Scope> for Selection {
    fn from(scope: &Scope) -> Self {
        Self::scopes(std::slice::from_ref(scope))
    }
}

impl From<&[Scope]> for Selection {
    fn from(scopes: &[Scope]) -> Self {
        Self::scopes(scopes)
    }
}

impl<const N: usize> From<&[Scope; N]> for Selection {
    fn from(scopes: &[Scope; N]) -> Self {
        Self::scopes(scopes)
    }
}

impl fmt::Display for Selection {
    /// Shows what stands in the audit chain: `tenant=acme type=voice records=0..100`, or `everything`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes = self.scopes.iter().flatten().map(|scope| format!("scope={scope}"));
        let tenant = self.tenant.iter().map(|tenant| format!("tenant={tenant}"));
        let record_type = self.record_type.iter().map(|record_type| format!("type={record_type}"));
        let from = self.from.iter().map(|from| format!("from={from}"));
        let to = self.to.iter().map(|to| format!("to={to}"));
        let records =
            self.records.iter().map(|records| format!("records={}..{}", records.start, records.end));
        let alone = self.alone.then(|| "alone".to_owned());
        let parts: Vec<_> = scopes
            .chain(tenant)
            .chain(record_type)
            .chain(from)
            .chain(to)
            .chain(records)
            .chain(alone)
            .collect();
        if parts.is_empty() { f.write_str("everything") } else { f.write_str(&parts.join(" ")) }
    }
}

//! Lane descriptors: whose records, and how they are kept.

use domicile::engine::Suite;
use domicile::wire::{Decoder, Encoder, Malformed};
use domicile::{Period, RecordType, Scope, TenantId};

use super::{DESCRIPTOR_BYTES_MAX, LaneNo, REGION_DESCRIPTOR_BYTES_MAX, SegmentId};
use crate::framing::Framing;

/// What a lane's blocks carry beside the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Each record has an event time.
    pub event_times: bool,
    /// Each record has its number in the order of arrival.
    pub arrivals: bool,
    /// The lane holds one record, in pieces.
    pub long_record: bool,
}

impl Contents {
    const EVENT_TIMES: u8 = 0x01;
    const ARRIVALS: u8 = 0x02;
    const LONG_RECORD: u8 = 0x04;

    fn code(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.event_times, Self::EVENT_TIMES)
            | bit(self.arrivals, Self::ARRIVALS)
            | bit(self.long_record, Self::LONG_RECORD)
    }

    fn from_code(code: u8) -> Option<Self> {
        let contents = Self {
            event_times: code & Self::EVENT_TIMES != 0,
            arrivals: code & Self::ARRIVALS != 0,
            long_record: code & Self::LONG_RECORD != 0,
        };
        (contents.code() == code).then_some(contents)
    }
}

/// A field by which records can be found, and how its values are made comparable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findable {
    /// The name of the field.
    pub field: String,
    /// The normaliser: 0x01 exact, 0x02 E.164.
    pub normaliser: u8,
}

/// What is said of a lane in clear, and authenticated with its data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Whose records, and of what type.
    pub scope: Scope,
    /// The period that they belong to.
    pub period: Period,
    /// How they are sealed.
    pub suite: Suite,
    /// Whether blocks are compressed before they are sealed.
    pub compression: Compression,
    /// How they stood in the input, if they came from one.
    pub framing: Option<Framing>,
    /// What is kept beside them.
    pub contents: Contents,
    /// Which of several inputs they came from, from 0; the lanes of one input share its preamble.
    pub source: u32,
    /// The caller's own pairs, sorted by name, in clear: nothing of a subscriber belongs here.
    pub context: Vec<(String, String)>,
    /// The fields by which records can be found.
    pub findable: Vec<Findable>,
    /// Lane 0 only: the segments that this one replaces.
    pub replaces: Vec<SegmentId>,
}

/// Whether the data blocks of a lane are compressed before they are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// They are not.
    #[default]
    None,
    /// By zstd (RFC 8878), each block on its own.
    Zstd,
}

impl Compression {
    fn code(self) -> u8 {
        match self {
            Compression::None => 0x00,
            Compression::Zstd => 0x01,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0x00 => Some(Compression::None),
            0x01 => Some(Compression::Zstd),
            _ => None,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Zstd => "zstd",
        }
    }
}

impl Descriptor {
    const VERSION: u8 = 0x01;

    /// A lane of this scope and period, with nothing beside the records.
    #[must_use]
    pub fn new(scope: Scope, period: Period, suite: Suite) -> Self {
        Self {
            scope,
            period,
            suite,
            compression: Compression::None,
            framing: None,
            contents: Contents::default(),
            source: 0,
            context: Vec::new(),
            findable: Vec::new(),
            replaces: Vec::new(),
        }
    }

    /// The octets, as they stand in a lane-open block.
    ///
    /// # Errors
    /// The field that does not fit, or the whole when it is longer than 4 KiB (lane 0: 2 MiB).
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Encoder::new();
        let (framing, parameter) = self.framing.map_or((0, 0), Framing::code);
        out.u8(Self::VERSION)
            .short(self.scope.tenant.as_str().as_bytes(), "tenant")?
            .short(self.scope.record_type.as_str().as_bytes(), "record type")?
            .short(self.period.to_string().as_bytes(), "period")?
            .u16(self.suite.code())
            .u8(self.compression.code())
            .u8(framing)
            .u8(parameter)
            .u8(self.contents.code())
            .u32(self.source)
            .count(self.context.len(), "context")?;
        for (name, value) in &self.context {
            out.short(name.as_bytes(), "name of a context pair")?.short(value.as_bytes(), "context value")?;
        }
        out.count(self.findable.len(), "findable fields")?;
        for findable in &self.findable {
            out.short(findable.field.as_bytes(), "findable field")?.u8(findable.normaliser);
        }
        out.count(self.replaces.len(), "replaced segments")?;
        for id in &self.replaces {
            out.raw(&id.0);
        }
        if !self.is_canonical() {
            return Err(Malformed { what: "context, findable fields or replaced segments", at: 0 });
        }
        let bytes_max = Self::bytes_max_of(&self.scope);
        if out.len() > bytes_max {
            return Err(Malformed { what: "length of the descriptor", at: bytes_max });
        }
        Ok(out.finish())
    }

    /// Reads a descriptor; every octet must be accounted for.
    ///
    /// # Errors
    /// The field that is not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = |what| Malformed { what, at: 0 };
        let mut input = Decoder::new(bytes);
        if input.u8("version of the descriptor")? != Self::VERSION {
            return Err(bad("version of the descriptor"));
        }
        let tenant = TenantId::stored(input.text("tenant")?).map_err(|_| bad("tenant"))?;
        let record_type = RecordType::stored(input.text("record type")?).map_err(|_| bad("record type"))?;
        let scope = Scope { tenant, record_type };
        // Before the lists: what is said in clear must not make anybody allocate more than its lane may say.
        if bytes.len() > Self::bytes_max_of(&scope) {
            return Err(bad("length of the descriptor"));
        }
        let period = input.text("period")?.parse().map_err(|_| bad("period"))?;
        let suite = Suite::from_code(input.u16("suite of the lane")?).ok_or(bad("suite of the lane"))?;
        let compression = Compression::from_code(input.u8("compression")?).ok_or(bad("compression"))?;
        let framing = match (input.u8("framing")?, input.u8("framing")?) {
            (0, 0) => None,
            (kind, parameter) => Some(Framing::from_code(kind, parameter).ok_or(bad("framing"))?),
        };
        let contents = Contents::from_code(input.u8("contents")?).ok_or(bad("contents"))?;
        let source = input.u32("source")?;
        let mut context = Vec::new();
        for _ in 0..input.count(2, "context")? {
            context.push((
                input.text("name of a context pair")?.to_owned(),
                input.text("context value")?.to_owned(),
            ));
        }
        let mut findable = Vec::new();
        for _ in 0..input.count(2, "findable fields")? {
            let field = input.text("findable field")?.to_owned();
            findable.push(Findable { field, normaliser: input.u8("normaliser")? });
        }
        let mut replaces = Vec::new();
        for _ in 0..input.count(32, "replaced segments")? {
            replaces.push(SegmentId(input.array("replaced segment")?));
        }
        input.end("end of the descriptor")?;
        let descriptor = Self {
            scope,
            period,
            suite,
            compression,
            framing,
            contents,
            source,
            context,
            findable,
            replaces,
        };
        if !descriptor.is_canonical() {
            return Err(bad("context, findable fields or replaced segments"));
        }
        Ok(descriptor)
    }

    /// The most octets of the descriptor of this lane.
    #[must_use]
    pub fn bytes_max(lane: LaneNo) -> usize {
        if lane == LaneNo::REGION { REGION_DESCRIPTOR_BYTES_MAX } else { DESCRIPTOR_BYTES_MAX }
    }

    fn bytes_max_of(scope: &Scope) -> usize {
        if scope.is_region() { REGION_DESCRIPTOR_BYTES_MAX } else { DESCRIPTOR_BYTES_MAX }
    }

    /// Names are there, sorted and distinct, so that one meaning has one encoding; normalisers are known; and
    /// lane 0, which has no records, says nothing of any, as it alone replaces segments.
    fn is_canonical(&self) -> bool {
        let names_rise = self.context.is_sorted_by(|left, right| left.0 < right.0);
        let fields_rise = self.findable.is_sorted_by(|left, right| left.field < right.field)
            && self.findable.first().is_none_or(|first| !first.field.is_empty());
        let normalisers_known =
            self.findable.iter().all(|findable| matches!(findable.normaliser, 0x01 | 0x02));
        let of_its_lane =
            if self.scope.is_region() { self.says_nothing_of_records() } else { self.replaces.is_empty() };
        names_rise && fields_rise && normalisers_known && of_its_lane
    }

    fn says_nothing_of_records(&self) -> bool {
        self.framing.is_none()
            && self.compression == Compression::None
            && self.contents == Contents::default()
            && self.source == 0
            && self.context.is_empty()
            && self.findable.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn sample() -> Descriptor {
        Descriptor {
            framing: Some(Framing::Lines),
            contents: Contents { event_times: true, arrivals: true, long_record: false },
            source: 2,
            context: vec![("a".into(), "1".into()), ("b".into(), String::new())],
            findable: vec![Findable { field: "to".into(), normaliser: 0x02 }],
            ..Descriptor::new(
                Scope::new("acme", RecordType::VOICE).unwrap(),
                "2026-11".parse().unwrap(),
                Suite::Aes256Gcm,
            )
        }
    }

    #[test]
    fn descriptors_read_back() {
        let region = Descriptor {
            replaces: vec![SegmentId([1; 32]), SegmentId([2; 32])],
            ..Descriptor::new(Scope::of_region(), "2026-11".parse().unwrap(), Suite::ChaCha20Poly1305)
        };
        for descriptor in [sample(), region] {
            assert_eq!(Descriptor::decode(&descriptor.encode().unwrap()).unwrap(), descriptor);
        }
    }

    #[test]
    fn a_descriptor_over_its_limit_is_refused() {
        let pair = |index: usize| (format!("{index:05}"), "x".repeat(100));
        let fits = Descriptor { context: (0..35).map(pair).collect(), ..sample() };
        assert!(fits.encode().unwrap().len() <= DESCRIPTOR_BYTES_MAX);
        let too_long = Descriptor { context: (0..40).map(pair).collect(), ..sample() };
        too_long.encode().unwrap_err();
        let unsorted = Descriptor { context: vec![pair(1), pair(0)], ..sample() };
        unsorted.encode().unwrap_err();
        let replacing = Descriptor { replaces: vec![SegmentId([1; 32])], ..sample() };
        replacing.encode().unwrap_err();
    }

    #[test]
    fn fields_have_names_that_rise() {
        let with = |names: &[&str]| {
            let fields = names.iter().map(|name| Findable { field: (*name).into(), normaliser: 0x01 });
            Descriptor { findable: fields.collect(), ..sample() }.encode()
        };
        with(&["a", "b"]).unwrap();
        for names in [&[""][..], &["", "a"], &["b", "a"], &["a", "a"]] {
            with(names).unwrap_err();
        }
    }

    #[test]
    fn lane_0_says_nothing_of_records() {
        let region =
            || Descriptor::new(Scope::of_region(), "2026-11".parse().unwrap(), Suite::ChaCha20Poly1305);
        region().encode().unwrap();
        let Descriptor { framing, contents, source, context, findable, .. } = sample();
        for descriptor in [
            Descriptor { framing, ..region() },
            Descriptor { contents, ..region() },
            Descriptor { source, ..region() },
            Descriptor { context, ..region() },
            Descriptor { findable, ..region() },
        ] {
            descriptor.encode().unwrap_err();
        }
    }

    #[test]
    fn a_long_descriptor_of_a_lane_of_records_is_refused_before_its_lists_are_read() {
        // Two million pairs of empty texts, which would take a hundred octets of memory each.
        let mut bytes = sample().encode().unwrap();
        bytes.resize(REGION_DESCRIPTOR_BYTES_MAX, 0);
        assert_eq!(Descriptor::decode(&bytes).unwrap_err().what, "length of the descriptor");
        bytes.push(0);
        assert_eq!(Descriptor::decode(&bytes).unwrap_err().what, "length of the descriptor");
    }

    proptest! {
        #[test]
        fn what_reads_writes_back_the_same(at in 0usize..60, octet: u8, cut in 0usize..70) {
            let mut bytes = sample().encode().unwrap();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = octet;
            }
            bytes.truncate(bytes.len().saturating_sub(cut / 10));
            if let Ok(descriptor) = Descriptor::decode(&bytes) {
                prop_assert_eq!(descriptor.encode().unwrap(), bytes);
            }
        }
    }
}

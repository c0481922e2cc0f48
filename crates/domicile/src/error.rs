//! One error type: what happened, where, what to do, and a code that never changes its meaning.

use std::fmt;
use std::io;

/// What every fallible function of Domicile returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened, where, by which rule, and what to do about it.
///
/// One word wide. No key bytes, plaintext, context values or subscriber numbers ever stand in it: a
/// tag that fails says where, never why.
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    what: String,
    place: Option<String>,
    rule: Option<String>,
    advice: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of outcome that a caller, a script or a pager tells apart.
///
/// The program's exit code is [`Class::exit_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Input, output and the rest.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Home, place, purpose or policy forbid it.
    Refused,
    /// Not authentic, or corrupt.
    Corrupt,
    /// A segment without its end, or with a torn one.
    Unfinished,
    /// Key service or key store out of reach or denying.
    KeyService,
    /// Erased on purpose, by a signed tombstone.
    Erased,
    /// A key that nothing is known of, or a store that went back in time.
    UnknownKey,
}

impl Class {
    /// The program's exit code for this class.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::Refused => 3,
            Class::Corrupt => 4,
            Class::Unfinished => 5,
            Class::KeyService => 6,
            Class::Erased => 7,
            Class::UnknownKey => 8,
        }
    }

    /// Which of several outcomes a run reports: the lowest rank wins (4, 8, 6, 5, 3, 7, then 2 and 1).
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Class::Corrupt => 0,
            Class::UnknownKey => 1,
            Class::KeyService => 2,
            Class::Unfinished => 3,
            Class::Refused => 4,
            Class::Erased => 5,
            Class::Usage => 6,
            Class::Failed => 7,
        }
    }
}

macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, $class:ident; )+) => {
        /// What went wrong, as a stable text such as `home/refused`.
        ///
        /// The page `errors.md` of the book explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $( $(#[$doc])* $name, )+ }

        impl Code {
            /// Every code there is, in the order of the book's page.
            pub const ALL: &'static [Code] = &[ $( Code::$name, )+ ];

            /// The stable text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Code::$name => $text, )+ }
            }

            /// The code with this text.
            #[must_use]
            pub fn named(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == text)
            }

            /// The class, and with it the exit code.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $( Code::$name => Class::$class, )+ }
            }
        }
    };
}

codes! {
    /// A region, jurisdiction, tenant, record type, period, purpose or reference is not well formed.
    NameInvalid = "name/invalid", Usage;
    /// A name that belongs to Domicile itself.
    NameReserved = "name/reserved", Usage;
    /// An argument of the program or of a function that makes no sense.
    ArgumentInvalid = "argument/invalid", Usage;

    /// No configuration was found.
    ConfigMissing = "config/missing", Usage;
    /// A configuration that cannot be read or understood.
    ConfigInvalid = "config/invalid", Usage;
    /// A configuration found by walking upward that belongs to somebody else.
    ConfigUntrusted = "config/untrusted", Refused;
    /// A place in which the doctor found something wrong.
    PlaceAiling = "place/ailing", Failed;
    /// There is something already where a new place was to be set up.
    ConfigExists = "config/exists", Usage;

    /// The scope has not chosen a home.
    HomeNone = "home/none", Refused;
    /// The scope has chosen another home, once and for good.
    HomeChosen = "home/chosen", Refused;
    /// This host stands in a place where the scope's records may not be processed.
    HomeRefused = "home/refused", Refused;
    /// A home that was chosen where its region's key was not at hand, and is not signed yet.
    HomePending = "home/pending", Refused;
    /// A home whose signed statement is wrong: somebody rewrote it.
    HomeForged = "home/forged", Corrupt;
    /// A segment lies under another region than the home of its scope.
    HomeMismatch = "home/mismatch", Refused;
    /// A purpose that needs a reference came without one.
    PurposeReference = "purpose/reference", Refused;

    /// The key service is out of reach, or its root key is missing or unreadable.
    KmsUnavailable = "kms/unavailable", KeyService;
    /// The key service said no.
    KmsDenied = "kms/denied", KeyService;
    /// A root or signing key file that others can read or replace.
    KmsExposed = "kms/exposed", KeyService;
    /// A key file, or a wrap made by a key service, that does not verify.
    KmsUnverified = "kms/unverified", Corrupt;
    /// The key store is out of reach or failed.
    StoreUnavailable = "store/unavailable", KeyService;
    /// The key store was written by a newer version, or is none.
    StoreInvalid = "store/invalid", Usage;
    /// What guards a key store, a trigger, a setting or a right, is not as it was made.
    StoreWeakened = "store/weakened", Failed;
    /// The database of a key store is damaged, or its rows contradict each other.
    StoreCorrupt = "store/corrupt", Corrupt;
    /// Nothing is known of the key that a wrap names: no row, and no tombstone.
    KeyUnknown = "key/unknown", UnknownKey;
    /// A row of the key store, or the whole of it, is older than what this host or the ledger knows of.
    KeyRolledBack = "key/rolled-back", UnknownKey;
    /// A row of the key store that does not verify, or belongs to somebody else.
    KeyUnverified = "key/unverified", Corrupt;
    /// An entry of a region's ledger, or an event of an audit chain, is not what was signed.
    LedgerUnverified = "ledger/unverified", Corrupt;
    /// The key was destroyed.
    KeyDestroyed = "key/destroyed", Erased;
    /// The keys of a scope are to be shredded, and are not used meanwhile.
    KeyShredding = "key/shredding", Refused;
    /// A key in use that nobody vouched for any longer: ask for it again.
    KeyLapsed = "key/lapsed", KeyService;
    /// The key of a sealed record that was not loaded before the record was opened.
    KeyAbsent = "key/absent", KeyService;
    /// A hold forbids that anything of a scope is destroyed.
    KeyHeld = "key/held", Refused;
    /// The audit chain could not be made durable, so no key was handed out.
    AuditUnavailable = "audit/unavailable", KeyService;

    /// A segment of a post that its home has not adopted.
    PostUnadopted = "post/unadopted", Refused;
    /// A post that the home has not enrolled, or has revoked.
    PostUnknown = "post/unknown", Refused;
    /// A post that may not seal for a scope, or a bundle that is not for the post.
    PostScope = "post/scope", Refused;
    /// The time of a bundle, or of the keys in it, is over.
    PostExpired = "post/expired", Refused;
    /// Another segment was adopted under the same name.
    PostReplayed = "post/replayed", Refused;
    /// A bundle that no trusted home signed.
    PostBundle = "post/bundle", Corrupt;
    /// A segment that does not verify as the post's that it says sealed it.
    PostForged = "post/forged", Corrupt;

    /// A certificate, key, revocation list or trust anchor of this host's own that cannot be used.
    CertificateInvalid = "certificate/invalid", Usage;
    /// The private key of a certificate, or of an authority, that others can read.
    CertificateExposed = "certificate/exposed", Refused;
    /// The certificate of the other end does not verify: its form, chain, time, revocation, purpose or name.
    PeerUnverified = "peer/unverified", Corrupt;
    /// The other end is in a place where what is to be exchanged may not be.
    PeerRefused = "peer/refused", Refused;
    /// The other end does not take this one: it is in the wrong place, or its certificate does not verify there.
    PeerDenied = "peer/denied", Refused;
    /// A connection that could not be made, was cut, or waited for too long.
    ConnectionFailed = "connection/failed", Failed;
    /// A connection whose certificate ran out, or whose other end would not be taken any longer.
    ConnectionEnded = "connection/ended", Refused;

    /// A request about a segment on its way home whose lengths, ranges or names contradict each other.
    ShipmentInvalid = "shipment/invalid", Usage;
    /// A part of a segment that leaves a gap behind what its home has.
    ShipmentOffset = "shipment/offset", Failed;
    /// The home has another file under the name of this segment.
    ShipmentConflict = "shipment/conflict", Refused;
    /// What arrived is not what was sent.
    ShipmentUnverified = "shipment/unverified", Corrupt;
    /// The home has nothing of this segment.
    ShipmentNone = "shipment/none", Failed;
    /// The home takes as much at once as it may, or is about to end.
    ShipmentBusy = "shipment/busy", Failed;
    /// The other end may not have what it asks for.
    ShipmentRefused = "shipment/refused", Refused;
    /// The home failed, or answered what nobody expects.
    ShipmentFailed = "shipment/failed", Failed;

    /// The engine asked for is not part of this build.
    EngineUnavailable = "engine/unavailable", Usage;
    /// The operating system gave no random bytes.
    RandomUnavailable = "random/unavailable", Failed;

    /// Not a segment at all.
    SegmentForeign = "segment/foreign", Corrupt;
    /// A version, suite, compression or flag that this build does not know.
    SegmentUnsupported = "segment/unsupported", Corrupt;
    /// A structure of a segment that is not what it should be.
    SegmentCorrupt = "segment/corrupt", Corrupt;
    /// A segment that has no end: it is still written, or its writer died.
    SegmentUnfinished = "segment/unfinished", Unfinished;
    /// A segment whose last block was cut.
    SegmentTorn = "segment/torn", Unfinished;
    /// A segment that somebody writes, or recovers.
    SegmentBusy = "segment/busy", Failed;
    /// A limit of the format: lanes, blocks, bytes or the size of a descriptor.
    SegmentLimit = "segment/limit", Failed;
    /// A lane's commitment or wrapped key does not verify.
    LaneUnverified = "lane/unverified", Corrupt;
    /// The segment has no lane that was asked for.
    LaneNone = "lane/none", Usage;
    /// A block does not verify.
    BlockUnverified = "block/unverified", Corrupt;
    /// A writer that failed before takes nothing more.
    WriterFailed = "writer/failed", Failed;
    /// A segment failed, and records that were appended since the last receipt are not safe.
    RecordsLost = "record/lost", Failed;
    /// Not a sealed record, or one of a version that this build does not know.
    RecordForeign = "record/foreign", Corrupt;
    /// A sealed record does not verify.
    RecordUnverified = "record/unverified", Corrupt;

    /// Input that cannot be framed as it was asked for.
    InputFraming = "input/framing", Failed;
    /// A column or field that the input does not have.
    InputField = "input/field", Usage;
    /// A time that is not one.
    InputTime = "input/time", Failed;
    /// A record that names no scope, or an impossible one.
    InputScope = "input/scope", Failed;
    /// The input could not be read.
    InputFailed = "input/failed", Failed;
    /// The output exists.
    OutputExists = "output/exists", Usage;
    /// The output could not be written.
    OutputFailed = "output/failed", Failed;

    /// An object store has no such object.
    ObjectMissing = "object/missing", Failed;
    /// An object store does not let these credentials do what they asked.
    ObjectDenied = "object/denied", Failed;
    /// An object store is out of reach, or failed.
    ObjectUnavailable = "object/unavailable", Failed;
    /// An object was replaced while it was read.
    ObjectChanged = "object/changed", Failed;
    /// Something else lies where a segment was to be uploaded.
    ObjectExists = "object/exists", Refused;
    /// A segment was to be uploaded to where its region does not keep its segments.
    ObjectElsewhere = "object/elsewhere", Refused;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error {
    /// An error with its one sentence: what happened, without a full stop.
    #[must_use]
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        let what = what.into();
        Self(Box::new(Inner { code, what, place: None, rule: None, advice: None, source: None }))
    }

    /// Says where: a file and a byte, a lane, a line of the input.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place = Some(match self.0.place.take() {
            Some(inner) => format!("{}, {inner}", place.into()),
            None => place.into(),
        });
        self
    }

    /// Names the rule that forbids it.
    #[must_use]
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.0.rule = Some(rule.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.0.advice = Some(advice.into());
        self
    }

    /// Keeps the cause; it is not repeated in the sentence.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Something that could not be written, with advice by its cause.
    #[must_use]
    pub fn output_failed(what: impl Into<String>, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some room on the disk",
            io::ErrorKind::NotFound => "make the directory first",
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => {
                "choose another name"
            }
            _ => "see that it can be written there",
        };
        Self::new(Code::OutputFailed, what).advise(advice).because(source)
    }

    /// The same error once more, for several that wait for one answer; without its cause.
    #[must_use]
    pub fn again(&self) -> Self {
        let Inner { code, what, place, rule, advice, source: _ } = &*self.0;
        Self(Box::new(Inner {
            code: *code,
            what: what.clone(),
            place: place.clone(),
            rule: rule.clone(),
            advice: advice.clone(),
            source: None,
        }))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The class of the code.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.code.class()
    }

    /// What happened, in a sentence without a full stop.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Where it happened.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// The rule that forbids it.
    #[must_use]
    pub fn broken_rule(&self) -> Option<&str> {
        self.0.rule.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.advice.as_deref()
    }

    /// Whether home, place, purpose or policy forbid it: trying again changes nothing.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.class() == Class::Refused
    }

    /// Whether something is not authentic or corrupt.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        self.class() == Class::Corrupt
    }

    /// Whether the same call may succeed later: a service was out of reach.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.code(), Code::KmsUnavailable | Code::StoreUnavailable | Code::AuditUnavailable)
    }
}

impl Error {
    /// Whether a key service or a store was out of reach, and nothing behind that said no: only then may records be
    /// sealed without it. A denial is no outage, however it shows.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            let denied = match source.downcast_ref::<Self>() {
                Some(error) => !error.is_retryable(),
                None => false,
            };
            if denied {
                return false;
            }
            cause = source.source();
        }
        self.is_retryable()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(place) = &self.0.place {
            write!(f, " ({place})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {self}", self.0.code)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_text_of_its_own() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn the_worst_of_several_outcomes_is_the_one_reported() {
        let mut classes = [
            Class::Erased,
            Class::Refused,
            Class::Unfinished,
            Class::KeyService,
            Class::UnknownKey,
            Class::Corrupt,
        ];
        classes.sort_by_key(|class| class.rank());
        assert_eq!(classes.map(Class::exit_code), [4, 8, 6, 5, 3, 7]);
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }
}

//! From inputs to segments: framing, event times, scopes, and a segment for each home.

mod pace;
mod scopes;
mod segments;

use std::io::Read;
use std::ops::Range;

use domicile::audit::{Event, EventKind};
use domicile::event_window::EventWindow;
use domicile::post::Post;
use domicile::{Action, Code, Domicile, Error, Period, Region, Result, Scope, Time};

use crate::format::{Contents, Descriptor};
use crate::framing::{Choice, Fields, Framer, Framing, Piece, Warning, event_time};
use crate::outage::Outages;
use crate::refusals::may_be_a_number;
use crate::writer::{SegmentSummary, SegmentWriter, Sink, Stamp, WriterOptions};
use pace::Pace;
use scopes::{Scopes, Standing};
use segments::{Hand, LaneAt, Segments};

/// Whose records an input holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scoping {
    /// One scope's.
    One(Scope),
    /// Many scopes': each record names its own in these fields.
    ByField {
        /// The field with the tenant.
        tenant: String,
        /// The field with the record type.
        record_type: String,
    },
}

/// What becomes of records whose scope may not be sealed here: it is at home in another jurisdiction, or
/// has chosen no home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Elsewhere {
    /// Nothing is written, and the scopes are named.
    #[default]
    Refuse,
    /// They are sealed as a [post](IntakeOptions::posts) of their home does, where there is one that may; otherwise
    /// nothing is written.
    Post,
    /// They are left out and counted.
    Skip,
}

/// How inputs are sealed.
#[derive(Debug, Clone)]
pub struct IntakeOptions {
    /// How records stand in the inputs.
    pub framing: Choice,
    /// The field with a record's event time; without it, records belong to the time of sealing.
    pub time: Option<String>,
    /// Whose records they are.
    pub scoping: Scoping,
    /// What becomes of records that may not be sealed here.
    pub elsewhere: Elsewhere,
    /// As which posts this host may seal, each for another home: for homes elsewhere where that is asked for, and for
    /// those of its own while their keys are out of reach. What is sealed so is opened once its home has adopted it.
    pub posts: Vec<Post>,
    /// How far from now event times may lie.
    pub event_window: EventWindow,
    /// Event times that may lie elsewhere: who asks for them stands in the audit chain.
    pub backfill: Option<Range<Time>>,
    /// How segments are written.
    pub writer: WriterOptions,
}

impl IntakeOptions {
    /// One scope's records, framed as they look.
    #[must_use]
    pub fn new(scoping: Scoping) -> Self {
        Self {
            framing: Choice::Auto,
            time: None,
            scoping,
            elsewhere: Elsewhere::Refuse,
            posts: Vec::new(),
            event_window: EventWindow::default(),
            backfill: None,
            writer: WriterOptions::default(),
        }
    }

    /// The post as which this host may seal for a region.
    fn post_for(&self, region: &Region) -> Option<&Post> {
        self.posts.iter().find(|post| post.place().region == *region)
    }

    /// The fields that must be read from each record.
    fn field_names(&self) -> Vec<&str> {
        let (tenant, record_type) = match &self.scoping {
            Scoping::One(_) => (None, None),
            Scoping::ByField { tenant, record_type } => (Some(tenant), Some(record_type)),
        };
        [self.time.as_ref(), tenant, record_type].into_iter().flatten().map(String::as_str).collect()
    }
}

/// Where segments go: one sink for each region, opened when its first record comes; and one more for what is sealed as a
/// post of that region, while its keys are out of reach.
pub trait Outlet {
    /// What a segment is written to.
    type Sink: Sink;

    /// Opens the sink of a region's segment.
    ///
    /// # Errors
    /// What keeps it from being opened.
    fn open(&mut self, region: &Region) -> Result<Self::Sink>;
}

/// Reads inputs and writes segments.
///
/// ```no_run
/// # async fn example(domicile: domicile::Domicile, acme: domicile::Scope) -> domicile::Result<()> {
/// use domicile_record::{Intake, IntakeOptions, Outlet, Scoping};
///
/// struct InMemory;
/// impl Outlet for InMemory {
///     type Sink = Vec<u8>;
///     fn open(&mut self, _: &domicile::Region) -> domicile::Result<Vec<u8>> {
///         Ok(Vec::new())
///     }
/// }
///
/// let mut intake = Intake::new(&domicile, IntakeOptions::new(Scoping::One(acme)), InMemory);
/// intake.read(&b"one line\nanother line\n"[..]).await?;
/// for (segment, summary) in intake.finish().await?.segments {
///     println!("{} records in {} octets", summary.records, segment.len());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Intake<O: Outlet> {
    domicile: Option<Domicile>,
    options: IntakeOptions,
    outlet: O,
    began: Time,
    segments: Segments<O::Sink>,
    scopes: Scopes,
    outages: Outages,
    pace: Pace,
    /// Event times that may be sealed now.
    event_times: Range<i64>,
    /// That others are is on record.
    backfill_noted: bool,
    sources: u32,
    arrivals: i64,
    /// Something may not be sealed here, and nothing shall be left out.
    refused: bool,
    /// An input failed, or its reading was given up: what was sealed so far is not whole.
    failed: bool,
}

/// What an input turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputReport {
    /// How its records were framed.
    pub framing: Framing,
    /// Records, those left out among them.
    pub records: u64,
    /// Octets, preamble and postamble among them.
    pub bytes: u64,
    /// What was odd about it; nothing was lost.
    pub warnings: Vec<Warning>,
}

/// What was sealed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Sealed<S> {
    /// The segments, whole and durable as far as their sinks are, each of another region.
    pub segments: Vec<(S, SegmentSummary)>,
    /// Records that were left out, by scope.
    pub skipped: Vec<Skipped>,
}

/// Records that may not be sealed here and were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Whose.
    pub scope: Scope,
    /// How many.
    pub records: u64,
    /// Their octets.
    pub bytes: u64,
    /// Why, as a code.
    pub code: Code,
}

/// How old a post's knowledge of the time may be.
const WINDOW_AGE: std::time::Duration = std::time::Duration::from_secs(2);

/// The most octets of a record whose fields must be read: it is held whole.
pub(crate) const FIELD_RECORD_BYTES_MAX: usize = 8 << 20;

impl<O: Outlet> Intake<O> {
    /// Nothing read and nothing written yet.
    #[must_use]
    pub fn new(domicile: &Domicile, options: IntakeOptions, outlet: O) -> Self {
        Self::begin(Some(domicile.clone()), domicile.now(), options, outlet)
    }

    /// The intake of a post, on a host that has no keys, no store and no registry: what its bundle allows is sealed
    /// for its home, and what it does not is refused or left out.
    #[must_use]
    pub fn at_post(post: &Post, mut options: IntakeOptions, outlet: O) -> Self {
        options.posts = vec![post.clone()];
        Self::begin(None, post.now(), options, outlet)
    }

    /// The intake of a host that is a post of several homes, of which none can be asked: what exactly one of the
    /// [posts](IntakeOptions::posts) may seal is sealed for its home.
    ///
    /// # Errors
    /// [`PostScope`](Code::PostScope) without any post.
    pub fn at_posts(options: IntakeOptions, outlet: O) -> Result<Self> {
        let now = options.posts.first().map(Post::now);
        let now = now.ok_or_else(|| Error::new(Code::PostScope, "there is no post to seal as"))?;
        Ok(Self::begin(None, now, options, outlet))
    }

    fn begin(domicile: Option<Domicile>, began: Time, options: IntakeOptions, outlet: O) -> Self {
        Self {
            event_times: options.event_window.at(began),
            backfill_noted: false,
            domicile,
            began,
            options,
            outlet,
            segments: Segments::default(),
            scopes: Scopes::default(),
            outages: Outages::default(),
            pace: Pace::new(began),
            sources: 0,
            arrivals: 0,
            refused: false,
            failed: false,
        }
    }

    /// Reads an input to its end and seals its records. Reading blocks.
    ///
    /// # Errors
    /// [`InputFailed`](Code::InputFailed), [`InputField`](Code::InputField),
    /// [`InputTime`](Code::InputTime), [`InputScope`](Code::InputScope), with the record's number and
    /// place; a refusal of the one scope; whatever keeps its keys from being had;
    /// [`WriterFailed`](Code::WriterFailed) after any of them, and when a call before this one was given up
    /// half way. Nothing was published: drop the intake and nothing was written.
    pub async fn read(&mut self, input: impl Read) -> Result<InputReport> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(failed_before());
        }
        match self.read_to_end(input).await {
            Ok(report) => {
                self.failed = false;
                Ok(report)
            }
            Err(error) => {
                self.segments.drop_all();
                Err(self.recorded(error).await)
            }
        }
    }

    async fn read_to_end(&mut self, input: impl Read) -> Result<InputReport> {
        // One scope's records are refused before any of them is read.
        if let Scoping::One(_) = &self.options.scoping {
            self.scopes.slot(self.domicile.as_ref(), &self.options, None, 0).await?;
        }
        let names = self.options.field_names();
        let needs_fields = !names.is_empty();
        let mut framer = Framer::naming(input, self.options.framing, &names)?;
        if needs_fields {
            framer = framer.with_record_bytes_max(FIELD_RECORD_BYTES_MAX);
        }
        let mut source = Source {
            number: self.sources,
            framing: framer.framing(),
            preamble: Vec::new(),
            fields: None,
            lanes: Vec::new(),
            long: None,
            records: 0,
        };
        self.sources += 1;
        self.scopes.forget_lanes();
        loop {
            let at = framer.position();
            let seems_a_header = framer.seems_to_have_header();
            let place = |error, records| of_record(error, records, at, seems_a_header);
            match framer.next()? {
                None => break,
                Some(Piece::Preamble(preamble)) => source.preamble = preamble.to_vec(),
                Some(Piece::Record(record)) => {
                    if needs_fields && source.fields.is_none() {
                        let names = self.options.field_names();
                        source.fields = Some(Fields::new(source.framing, &source.preamble, &names)?);
                    }
                    let records = source.records;
                    self.record(&mut source, record).await.map_err(|error| place(error, records))?;
                    source.records += 1;
                }
                Some(Piece::Part { bytes, last }) => {
                    let records = source.records;
                    self.part(&mut source, bytes, last).await.map_err(|error| place(error, records))?;
                    source.records += u64::from(last);
                }
                // What was begun was taken back: its lanes are no more.
                Some(Piece::Postamble(_)) if self.refused => {}
                Some(Piece::Postamble(postamble)) => {
                    self.keep_empty_input(&mut source).await?;
                    for lane in &source.lanes {
                        self.segments.set_postamble(*lane, postamble)?;
                    }
                }
            }
        }
        if let (Some(row), Scoping::ByField { .. }) = (framer.mixed_row(), &self.options.scoping) {
            return Err(Error::new(Code::InputFraming, row.what)
                .at(format!("byte {}", row.at))
                .rule("a record goes to the scope that it names, with nothing of another's")
                .advise("mend the row, or have it quoted as RFC 4180 says"));
        }
        self.keep_empty_input(&mut source).await?;
        Ok(InputReport {
            framing: source.framing,
            records: source.records,
            bytes: framer.position(),
            warnings: framer.warnings().to_vec(),
        })
    }

    /// Ends the segments.
    ///
    /// # Errors
    /// [`HomeRefused`](Code::HomeRefused) or [`HomeNone`](Code::HomeNone), naming the scopes, when records
    /// may not be sealed here and none shall be left out; [`AuditUnavailable`](Code::AuditUnavailable) when what
    /// was left out cannot be recorded; [`WriterFailed`](Code::WriterFailed) when an input failed; those of
    /// [`SegmentWriter::finish`]. Nothing of what was written may be published then.
    pub async fn finish(self) -> Result<Sealed<O::Sink>> {
        if self.failed {
            return Err(failed_before());
        }
        let skipped = self.scopes.elsewhere();
        if self.options.elsewhere != Elsewhere::Skip && !skipped.is_empty() {
            return Err(self.recorded(self.refusal(&skipped)).await);
        }
        self.record_refusals().await?;
        let mut segments = Vec::new();
        for (hand, sink, summary) in self.segments.finish().await? {
            let post = self.options.post_for(&summary.place.region).filter(|_| hand == Hand::Post);
            if let (Some(domicile), Some(post)) = (&self.domicile, post) {
                // What this host sealed as a post, it did with no key of its own: its chain says so all the same.
                let event = summary.event(EventKind::Seal).post(post.id().as_str());
                domicile.audit().record_when_possible(&[event]).await?;
            }
            segments.push((sink, summary));
        }
        Ok(Sealed { segments, skipped })
    }

    /// Records who was refused: once, not for each record, and before anything comes of it.
    async fn record_refusals(&self) -> Result<()> {
        let events = self.scopes.refusals();
        match &self.domicile {
            Some(domicile) if !events.is_empty() => domicile.audit().record(&events).await,
            _ => Ok(()),
        }
    }

    /// An error, once the refusals before it are recorded. It stands whether or not they could be.
    async fn recorded(&self, error: Error) -> Error {
        match self.record_refusals().await {
            Ok(()) => error,
            Err(_) => error.at("not recorded in the audit chain, which cannot be written"),
        }
    }

    /// Follows what happened to the keys in use: whatever ended takes nothing more.
    async fn keep_up(&mut self) -> Result<()> {
        let post = self.options.posts.first().map(Post::now);
        let Some(now) = self.domicile.as_ref().map(Domicile::now).or(post) else { return Ok(()) };
        let age = self.domicile.as_ref().map_or(WINDOW_AGE, |domicile| domicile.keyring().poll_age());
        if !self.pace.passed(now, age) {
            return Ok(());
        }
        self.event_times = self.options.event_window.at(now);
        let Some(domicile) = &self.domicile else { return Ok(()) };
        if let Err(error) = domicile.keep_up().await
            && !error.is_outage()
        {
            return Err(error);
        }
        self.segments.stop_lapsed_lanes();
        Ok(())
    }

    async fn record(&mut self, source: &mut Source, record: &[u8]) -> Result<()> {
        if self.pace.is_due() {
            self.keep_up().await?;
        }
        let fields = match &mut source.fields {
            Some(fields) => {
                fields.read(record)?;
                Some(&*fields)
            }
            None => None,
        };
        let time = match (&self.options.time, fields) {
            (Some(name), Some(fields)) => Some(event_time_of(name, fields.get(0))?),
            _ => None,
        };
        if let Some(time) = time.filter(|time| !self.event_times.contains(&time.micros())) {
            self.check_backfill(time).await?;
        }
        let first_scope_field = usize::from(self.options.time.is_some());
        let slot = self.scopes.slot(self.domicile.as_ref(), &self.options, fields, first_scope_field).await?;
        let (slot_index, lane) = (slot.index, slot.lane_at(time.unwrap_or(self.began).micros()));
        if let Standing::Elsewhere { .. } = slot.standing {
            return self.leave_out(slot_index, record.len() as u64);
        }
        if self.refused {
            // Nothing will be published: only the scopes that stand in the way are still of interest.
            return Ok(());
        }
        let lane = match lane {
            Some(lane) => lane,
            None => {
                self.open_lane(source, slot_index, time.unwrap_or(self.began), Contents::default()).await?
            }
        };
        let stamp = Stamp { time: time.map(Time::micros), arrival: Some(self.arrivals) };
        match self.segments.append(lane, record, stamp) {
            Err(error) if matches!(error.code(), Code::SegmentLimit | Code::KeyLapsed) => {
                // The lane is full, or its key has ended, and nothing was spent: the scope gets another.
                let lane = self
                    .open_lane(source, slot_index, time.unwrap_or(self.began), Contents::default())
                    .await?;
                self.segments.append(lane, record, stamp)?;
            }
            result => result?,
        }
        self.arrivals += 1;
        Ok(())
    }

    /// A record whose event time lies outside the window, and may only if somebody asked for that.
    #[cold]
    async fn check_backfill(&mut self, time: Time) -> Result<()> {
        let Some(asked) = self.options.backfill.clone().filter(|asked| asked.contains(&time)) else {
            let (back, ahead) = (self.options.event_window.back(), self.options.event_window.ahead());
            return Err(Error::new(Code::InputTime, "the event time is too far from now")
                .rule(format!("event_window: {back:#} back, {ahead:#} ahead"))
                .advise("if it is meant, say --backfill FROM..TO; if not, look at the field and the producer's clock"));
        };
        if !std::mem::replace(&mut self.backfill_noted, true)
            && let Some(domicile) = &self.domicile
        {
            let event = Event::new(EventKind::Backfill);
            let event = event.action(&Action::Seal).selected(format!("{}..{}", asked.start, asked.end));
            domicile.audit().record(&[event]).await?;
        }
        Ok(())
    }

    /// A part of a record that is too long to be held.
    async fn part(&mut self, source: &mut Source, bytes: &[u8], last: bool) -> Result<()> {
        // A record may take longer than keys are used without a word about them.
        self.keep_up().await?;
        if !self.options.field_names().is_empty() {
            return Err(Error::new(Code::InputFraming, "a record is too long for its fields to be read")
                .rule("records whose time or scope is read have at most 8 MiB")
                .advise("seal it apart, without --time or --route"));
        }
        // Without fields to read, there is one scope, and it may be sealed here or the call fails.
        let slot = self.scopes.slot(self.domicile.as_ref(), &self.options, None, 0).await?.index;
        let lane = match source.long {
            Some(lane) => lane,
            None => {
                let contents = Contents { long_record: true, ..Contents::default() };
                let lane = self.open_lane(source, slot, self.began, contents).await?;
                source.long = Some(lane);
                lane
            }
        };
        let stamp = Stamp { time: None, arrival: Some(self.arrivals) };
        self.segments.append_piece(lane, bytes, stamp, last)?;
        if last {
            source.long = None;
            self.arrivals += 1;
        }
        Ok(())
    }

    fn leave_out(&mut self, slot: usize, bytes: u64) -> Result<()> {
        if self.options.elsewhere != Elsewhere::Skip {
            // What was begun is taken back at once, and the rest of the input is read to name every scope.
            self.refused = true;
            self.segments.drop_all();
        }
        self.scopes.count(slot, bytes);
        Ok(())
    }

    /// Opens a lane for a scope. Where its home's keys are out of reach, and this host is a post of that home, the lane is
    /// one of a post's segment; where they are denied, nothing falls back.
    async fn open_lane(
        &mut self,
        source: &mut Source,
        slot: usize,
        time: Time,
        contents: Contents,
    ) -> Result<LaneAt> {
        let Some((scope, region, hand)) = self.scopes.here(slot) else {
            return Err(Error::new(Code::InputScope, "a scope that is not at home here"));
        };
        let is_post = self.options.post_for(&region).is_some_and(|post| post.check(&scope).is_ok());
        let at = match &self.domicile {
            Some(domicile) if hand == Hand::Home => {
                let now = domicile.now();
                // While their keys are not asked for again, what is known of them counts all the same: a denial never falls
                // back.
                let owner = domicile.keyring().owner_of(&region, &scope);
                if is_post && self.outages.lasts(&region, &owner, now) {
                    domicile.keyring().check_orders(&scope, &region)?;
                    self.open_lane_by(Hand::Post, source, &scope, &region, time, contents).await?
                } else {
                    match self.open_lane_by(Hand::Home, source, &scope, &region, time, contents).await {
                        Err(error) if is_post && error.is_outage() => {
                            self.outages.note(&region, owner, now);
                            let by_post =
                                self.open_lane_by(Hand::Post, source, &scope, &region, time, contents).await;
                            by_post.map_err(|as_post| error.because(as_post))?
                        }
                        opened => {
                            self.outages.is_over(&region, &owner);
                            opened?
                        }
                    }
                }
            }
            _ => self.open_lane_by(Hand::Post, source, &scope, &region, time, contents).await?,
        };
        let (period, lane) = at;
        source.lanes.push(lane);
        if !contents.long_record {
            self.scopes.keep_lane(slot, period, lane);
        }
        Ok(lane)
    }

    async fn open_lane_by(
        &mut self,
        hand: Hand,
        source: &Source,
        scope: &Scope,
        region: &Region,
        time: Time,
        contents: Contents,
    ) -> Result<(Period, LaneAt)> {
        let post = self.options.post_for(region).filter(|_| hand == Hand::Post);
        let nobody = || Error::new(Code::InputScope, format!("there is nobody to seal for {region}"));
        let period = match (post, &self.domicile) {
            (Some(post), _) => post.period(&scope.record_type, time)?,
            (None, Some(domicile)) => domicile.period(&scope.record_type, time)?,
            (None, None) => return Err(nobody()),
        };
        let segment = match self.segments.find(region, hand) {
            Some(segment) => segment,
            None => {
                let (sink, options) = (self.outlet.open(region)?, self.options.writer.clone());
                let writer = match (post, &self.domicile) {
                    (Some(post), _) => SegmentWriter::create_at_post(post, sink, options).await?,
                    (None, Some(domicile)) => SegmentWriter::create(domicile, region, sink, options).await?,
                    (None, None) => return Err(nobody()),
                };
                self.segments.add(region.clone(), hand, writer)
            }
        };
        let descriptor = Descriptor {
            compression: self.options.writer.compression,
            framing: Some(source.framing),
            contents: Contents { event_times: self.options.time.is_some(), arrivals: true, ..contents },
            source: source.number,
            ..Descriptor::new(scope.clone(), period, self.options.writer.suite)
        };
        Ok((period, self.segments.open_lane(segment, descriptor, &source.preamble).await?))
    }

    /// An input of one scope without a record has a lane all the same: preamble and postamble are kept,
    /// and that it was empty.
    async fn keep_empty_input(&mut self, source: &mut Source) -> Result<()> {
        if !source.lanes.is_empty() || !matches!(self.options.scoping, Scoping::One(_)) {
            return Ok(());
        }
        let slot = self.scopes.slot(self.domicile.as_ref(), &self.options, None, 0).await?;
        if matches!(slot.standing, Standing::Here(..)) {
            let index = slot.index;
            self.open_lane(source, index, self.began, Contents::default()).await?;
        }
        Ok(())
    }

    fn refusal(&self, skipped: &[Skipped]) -> Error {
        const NAMED_MAX: usize = 10;
        let (unnamed, named): (Vec<_>, Vec<_>) =
            skipped.iter().partition(|left_out| may_be_a_number(&left_out.scope, left_out.code));
        let mut words: Vec<_> = named
            .iter()
            .take(NAMED_MAX)
            .map(|left_out| format!("{} ({})", left_out.scope, self.scopes.reason(&left_out.scope)))
            .collect();
        if !unnamed.is_empty() {
            let noun = if unnamed.len() == 1 { "scope" } else { "scopes" };
            words.push(format!("{} {noun} (no home) of what looks like phone numbers", unnamed.len()));
        }
        let more = named.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let records: u64 = skipped.iter().map(|left_out| left_out.records).sum();
        // Whoever must be asked elsewhere is told so first; a home that nobody chose can be chosen here.
        let of_another_place = skipped.iter().find(|left_out| left_out.code != Code::HomeNone);
        let advice = match of_another_place {
            Some(_) => "seal them on a host of their jurisdiction, or leave them out with --elsewhere skip",
            None => "choose their homes with `domicile home choose`, or leave them out with --elsewhere skip",
        };
        let noun = if records == 1 { "record" } else { "records" };
        Error::new(
            of_another_place.map_or(Code::HomeNone, |left_out| left_out.code),
            format!(
                "{records} {noun} may not be sealed {}: {}{more}",
                self.domicile
                    .as_ref()
                    .map_or("as a post".to_owned(), |domicile| format!("in {}", domicile.here())),
                words.join("; ")
            ),
        )
        .rule("records are sealed where their home may be processed; nothing was written")
        .advise(advice)
    }
}

/// An input while it is read.
struct Source {
    number: u32,
    framing: Framing,
    preamble: Vec<u8>,
    fields: Option<Fields>,
    /// The lanes that hold its records.
    lanes: Vec<LaneAt>,
    /// The lane of the long record that has begun.
    long: Option<LaneAt>,
    records: u64,
}

/// An error with the record that it is about; `records` stand before it.
pub(crate) fn of_record(error: Error, records: u64, at: u64, seems_a_header: bool) -> Error {
    const NAME_COLUMNS: &str =
        "the first row looks like a header: name its columns, since numbers say that there is none";
    match error.code() {
        // Where the input stands when the output fails helps nobody.
        Code::OutputFailed | Code::OutputExists => error,
        Code::InputTime | Code::InputScope if records == 0 && seems_a_header => {
            error.at(format!("record 1, byte {at}")).advise(NAME_COLUMNS)
        }
        _ => error.at(format!("record {}, byte {at}", records + 1)),
    }
}

pub(crate) fn event_time_of(name: &str, value: Option<&str>) -> Result<Time> {
    let value = value.ok_or_else(|| {
        Error::new(Code::InputTime, format!("the record has no value in {name}"))
            .advise("name a field that every record has, or seal without --time")
    })?;
    event_time::recognise(value).ok_or_else(|| {
        Error::new(Code::InputTime, format!("{name} does not hold a time that is recognised"))
            .rule("RFC 3339, ISO 8601, RFC 2822, YYYYMMDDhhmmss, or Unix time in seconds to nanoseconds")
            .advise("name another field, or seal without --time")
    })
}

fn failed_before() -> Error {
    Error::new(Code::WriterFailed, "this intake failed before, and what it sealed is not whole")
        .advise("begin another, and read every input again")
}

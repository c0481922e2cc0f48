//! `domicile seal`: one scope into one segment, or many scopes each to its home.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use domicile::engine::{Engines, Suite};
use domicile::files::{self, NewFile};
use domicile::{Code, Config, Domicile, Error, RecordType, Region, Result, Scope, Time};
use domicile_record::format::Origin;
use domicile_record::{Elsewhere, InputReport, Intake, IntakeOptions, Outlet, Scoping, SegmentSummary};
use serde::Serialize;

use crate::arguments::{self, Common, Seal};
use crate::input::{self, Input};
use crate::report::{Report, counted, grouped};

/// Others may read what is sealed.
const SEGMENT_MODE: u32 = 0o644;

#[derive(Serialize)]
struct SealJson {
    records: u64,
    bytes: u64,
    segments: Vec<SegmentJson>,
    inputs: Vec<InputJson>,
    skipped: Vec<SkippedJson>,
    suite: &'static str,
    engine: String,
}

#[derive(Serialize)]
struct SegmentJson {
    path: String,
    segment: String,
    region: String,
    jurisdiction: String,
    lanes: u32,
    blocks: u64,
    records: u64,
    bytes: u64,
    file_bytes: u64,
    /// It was sealed as by a post, and its home must adopt it.
    adopt: bool,
}

#[derive(Serialize)]
struct InputJson {
    name: String,
    framing: String,
    records: u64,
    bytes: u64,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct SkippedJson {
    tenant: String,
    #[serde(rename = "type")]
    record_type: String,
    records: u64,
    bytes: u64,
    reason: &'static str,
}

pub(crate) async fn run(common: &Common, seal: &Seal, report: &Report) -> Result<()> {
    let inputs = Input::all(&seal.files, None, report)?;
    if seal.acknowledge {
        return super::record::run(common, seal, &inputs, report).await;
    }
    let config = input::config(common, report)?;
    let mut options = options(seal, report)?;
    options.event_window = config.event_window();
    options.posts = super::post::configured(&config, options.elsewhere == Elsewhere::Post, report)?;
    let sealer = Sealer::open(&config, &mut options, report).await?;
    match &seal.route {
        None => {
            // Before anything is read: what comes through a pipe cannot be read again.
            let outlet = OneFile::create(&seal.output, SEGMENT_MODE, seal.force)?;
            let done = read_all(&sealer, options, outlet, &inputs, &seal.output, report).await?;
            let several = done.sealed.segments.len() > 1;
            publish(seal, &sealer, done, report, |summary| match summary.origin {
                Origin::Post if several => beside(&seal.output),
                _ => seal.output.clone(),
            })
            .await
        }
        Some(_) => {
            let directories =
                OutputDirectories::make(&seal.output, sealer.regions(&options).await, sealer.now())?;
            let outlet = FilePerRegion { directories: &directories };
            let done = read_all(&sealer, options, outlet, &inputs, &seal.output, report).await?;
            publish(seal, &sealer, done, report, |summary| directories.place_of(summary)).await
        }
    }
}

/// Who seals: this host with its keys, or as a post alone while nothing of them can be reached.
enum Sealer {
    Keys(Domicile),
    Posts(Time),
}

impl Sealer {
    /// Where the stores are out of reach, this host's own posts go on, if it has any; those of homes elsewhere where that
    /// was asked for.
    async fn open(config: &Config, options: &mut IntakeOptions, report: &Report) -> Result<Self> {
        let error = match Domicile::from_config(config).await {
            Ok(domicile) => {
                report.closes(&domicile);
                return Ok(Sealer::Keys(domicile));
            }
            Err(error) => error,
        };
        if options.elsewhere != Elsewhere::Post {
            options.posts.retain(|post| post.place().jurisdiction == config.here().jurisdiction);
        }
        match options.posts.first() {
            Some(post) if error.is_outage() => {
                report.warn(&format!("{error}: sealing as the post {}", post.id()));
                Ok(Sealer::Posts(post.now()))
            }
            _ => Err(error),
        }
    }

    fn now(&self) -> Time {
        match self {
            Sealer::Keys(domicile) => domicile.now(),
            Sealer::Posts(now) => *now,
        }
    }

    /// The regions whose records may be sealed here.
    async fn regions(&self, options: &IntakeOptions) -> Vec<Region> {
        match self {
            Sealer::Keys(domicile) => {
                let mut allowed = Vec::new();
                for known in domicile.regions() {
                    if domicile.check_region_processing(&known.place).await.is_ok() {
                        allowed.push(known.place.region.clone());
                    }
                }
                allowed
            }
            Sealer::Posts(_) => options.posts.iter().map(|post| post.place().region.clone()).collect(),
        }
    }

    fn intake<O: Outlet>(&self, options: IntakeOptions, outlet: O) -> Result<Intake<O>> {
        match self {
            Sealer::Keys(domicile) => Ok(Intake::new(domicile, options, outlet)),
            Sealer::Posts(_) => Intake::at_posts(options, outlet),
        }
    }

    fn engine(&self, suite: Suite) -> String {
        match self {
            Sealer::Keys(domicile) => domicile.engines(suite).to_string(),
            Sealer::Posts(_) => Engines::measured(suite).to_string(),
        }
    }
}

/// Where the records go that were sealed as a post, beside those that were not.
fn beside(output: &Path) -> PathBuf {
    output.with_extension("post.dseg")
}

fn options(seal: &Seal, report: &Report) -> Result<IntakeOptions> {
    let scoping = match (&seal.route, &seal.tenant, &seal.record_type) {
        (Some(route), None, None) => {
            Scoping::ByField { tenant: route.tenant.clone(), record_type: route.record_type.clone() }
        }
        (None, Some(tenant), Some(record_type)) => {
            warn_of_near_miss(record_type, report);
            Scoping::One(Scope { tenant: tenant.clone(), record_type: record_type.clone() })
        }
        _ => return Err(Error::new(Code::ArgumentInvalid, "say --tenant and --type, or --route")),
    };
    let mut options = IntakeOptions::new(scoping);
    options.framing = seal.framing;
    options.time = seal.time.clone();
    options.backfill = seal.backfill.clone();
    options.elsewhere = match seal.elsewhere {
        arguments::Elsewhere::Refuse => Elsewhere::Refuse,
        arguments::Elsewhere::Post => Elsewhere::Post,
        arguments::Elsewhere::Skip => Elsewhere::Skip,
    };
    options.writer = seal.writer_options();
    Ok(options)
}

pub(super) fn warn_of_near_miss(record_type: &RecordType, report: &Report) {
    if let Some(meant) = record_type.near_miss() {
        report.warn(&format!("the record type {record_type} is not well known; did you mean {meant}?"));
    }
}

/// What was read and sealed, and is not published yet.
struct Done {
    inputs: Vec<(String, InputReport)>,
    sealed: domicile_record::Sealed<NewFile>,
}

async fn read_all<O: Outlet<Sink = NewFile>>(
    sealer: &Sealer,
    options: IntakeOptions,
    outlet: O,
    inputs: &[Input],
    output: &Path,
    report: &Report,
) -> Result<Done> {
    let progress = progress(inputs, report);
    let mut intake = sealer.intake(options, outlet)?;
    let mut read = Vec::with_capacity(inputs.len());
    for input in inputs {
        let name = input.name();
        let reader = progress.wrap_read(input.open()?);
        let of_input = intake.read(reader).await.map_err(|error| match error.code() {
            // What is wrong with the output has nothing to do with the input.
            Code::OutputFailed | Code::OutputExists => error.at(output.display().to_string()),
            _ => error.at(name.clone()),
        })?;
        for warning in &of_input.warnings {
            report.warn(&format!("{name}: {warning}; nothing was lost"));
        }
        read.push((name, of_input));
    }
    progress.finish_and_clear();
    let sealed = intake.finish().await.map_err(|error| match error.code() {
        Code::OutputFailed | Code::OutputExists => error.at(output.display().to_string()),
        _ => error,
    })?;
    Ok(Done { inputs: read, sealed })
}

fn progress(inputs: &[Input], report: &Report) -> indicatif::ProgressBar {
    let length = inputs.iter().map(Input::length).sum::<Option<u64>>();
    let template = match length {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec}",
    };
    report.bar(length, template)
}

async fn publish(
    seal: &Seal,
    sealer: &Sealer,
    done: Done,
    report: &Report,
    place: impl Fn(&SegmentSummary) -> PathBuf,
) -> Result<()> {
    let suite: Suite = seal.suite.into();
    let mut result = SealJson {
        records: 0,
        bytes: 0,
        segments: Vec::new(),
        inputs: done.inputs.iter().map(|(name, input)| input_json(name, input)).collect(),
        skipped: Vec::new(),
        suite: suite.as_str(),
        engine: sealer.engine(suite),
    };
    for (file, summary) in done.sealed.segments {
        let path = place(&summary);
        file.publish_as(&path).map_err(|error| naming_published(error, &result.segments))?;
        result.records += summary.records;
        result.bytes += summary.bytes;
        report.say(&format!(
            "{}: {}, {} in {} of {}",
            path.display(),
            counted(summary.records, "record"),
            counted(u64::from(summary.lanes), "lane"),
            counted(summary.file_bytes, "byte"),
            summary.place,
        ));
        result.segments.push(SegmentJson {
            path: path.display().to_string(),
            segment: summary.id.to_string(),
            region: summary.place.region.to_string(),
            jurisdiction: summary.place.jurisdiction.to_string(),
            lanes: summary.lanes,
            blocks: summary.blocks,
            records: summary.records,
            bytes: summary.bytes,
            file_bytes: summary.file_bytes,
            adopt: summary.origin == Origin::Post,
        });
        if summary.origin == Origin::Post {
            report.warn(&format!(
                "{}: {} sealed as by a post; at home, `domicile post adopt` brings them under its keys",
                path.display(),
                counted(summary.records, "record"),
            ));
        }
    }
    if let Sealer::Keys(domicile) = sealer {
        let kept = domicile.audit().kept().await;
        if kept > 0 {
            report.warn(&format!(
                "{} could not be recorded: the audit chain is out of reach",
                counted(kept as u64, "event")
            ));
        }
    }
    for skipped in &done.sealed.skipped {
        result.skipped.push(SkippedJson {
            tenant: skipped.scope.tenant.to_string(),
            record_type: skipped.scope.record_type.to_string(),
            records: skipped.records,
            bytes: skipped.bytes,
            reason: skipped.code.as_str(),
        });
    }
    let left_out: u64 = result.skipped.iter().map(|skipped| skipped.records).sum();
    if left_out > 0 && !report.json {
        let scopes = counted(result.skipped.len() as u64, "scope");
        report.warn(&format!(
            "{} of {scopes} left out: they may not be sealed here",
            counted(left_out, "record")
        ));
    }
    for (name, input) in &done.inputs {
        report.say(&format!("{name}: framed as {}, {} bytes", input.framing, grouped(input.bytes)));
    }
    report.say(&format!("sealed with {suite}, engine {}", result.engine));
    if report.json { report.print(&result, String::new) } else { Ok(()) }
}

/// Several segments are published one after the other: whoever seals again must know which are there.
fn naming_published(error: Error, published: &[SegmentJson]) -> Error {
    if published.is_empty() {
        return error;
    }
    let advice = error.advice().unwrap_or("see that it can be written there");
    let paths: Vec<_> = published.iter().map(|segment| segment.path.as_str()).collect();
    let advice = format!("{advice}; these were published before, and stand: {}", paths.join(", "));
    error.advise(advice)
}

fn input_json(name: &str, input: &InputReport) -> InputJson {
    InputJson {
        name: name.to_owned(),
        framing: input.framing.to_string(),
        records: input.records,
        bytes: input.bytes,
        warnings: input.warnings.iter().map(ToString::to_string).collect(),
    }
}

/// The one segment of one scope; and the one that holds what was sealed as a post, where keys were out of reach.
pub(super) struct OneFile {
    path: PathBuf,
    mode: u32,
    replace: bool,
    first: Option<NewFile>,
}

impl OneFile {
    pub(super) fn create(path: &Path, mode: u32, replace: bool) -> Result<Self> {
        let first = NewFile::create(path, mode, replace)?;
        Ok(Self { path: path.to_owned(), mode, replace, first: Some(first) })
    }
}

impl Outlet for OneFile {
    type Sink = NewFile;

    fn open(&mut self, _: &Region) -> Result<NewFile> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => NewFile::create(&self.path, self.mode, self.replace),
        }
    }
}

/// A segment for each region, written where it will stand and named when its id is known.
struct FilePerRegion<'a> {
    directories: &'a OutputDirectories,
}

impl Outlet for FilePerRegion<'_> {
    type Sink = NewFile;

    fn open(&mut self, region: &Region) -> Result<NewFile> {
        // Whoever sealed here at the same time may have removed it, empty as it was.
        NewFile::create_in(&self.directories.of(region)?, SEGMENT_MODE)
    }
}

/// Where routed segments go: `<region>/<yyyy-mm-dd>/<segment id>.dseg`, never a tenant. What was made and holds
/// nothing in the end is removed again.
struct OutputDirectories {
    root: PathBuf,
    /// When sealing began, whenever a segment did.
    day: String,
    made: RefCell<Vec<PathBuf>>,
}

impl OutputDirectories {
    /// Makes the directory of every region whose records may be sealed here. What comes through a pipe cannot be
    /// read again: where nothing can be written, nothing is read.
    fn make(root: &Path, regions: Vec<Region>, now: Time) -> Result<Self> {
        let now = now.to_string();
        let day = now.get(..10).unwrap_or(&now).to_owned();
        let directories = Self { root: root.to_owned(), day, made: RefCell::default() };
        for region in regions {
            directories.of(&region)?;
        }
        Ok(directories)
    }

    /// A region's directory, made if it is not there.
    fn of(&self, region: &Region) -> Result<PathBuf> {
        let of_region = self.root.join(region.as_str());
        let of_day = of_region.join(&self.day);
        for directory in [&self.root, &of_region, &of_day] {
            self.ensure(directory)?;
        }
        Ok(of_day)
    }

    fn ensure(&self, directory: &Path) -> Result<()> {
        files::refuse_foreign_link(directory)?;
        let made = files::make_directory(directory).map_err(|source| {
            Error::output_failed("the output directory could not be made", source)
                .at(directory.display().to_string())
        })?;
        if made {
            self.made.borrow_mut().push(directory.to_owned());
        }
        files::sync_directory(directory).map_err(|source| {
            Error::output_failed("a directory could not be made durable", source)
                .at(directory.display().to_string())
        })
    }

    fn place_of(&self, summary: &SegmentSummary) -> PathBuf {
        let directory = self.root.join(summary.place.region.as_str()).join(&self.day);
        directory.join(format!("{}.dseg", summary.id))
    }
}

impl Drop for OutputDirectories {
    fn drop(&mut self) {
        for directory in self.made.borrow().iter().rev() {
            // Only an empty directory goes: whatever is in it stays.
            let _ = fs::remove_dir(directory);
        }
    }
}

//! `domicile post`: hosts that seal for a home and open nothing, and the home that adopts what they sealed.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use domicile::files::NewFile;
use domicile::post::{Bundle, BundleTerms, Post, PostIdentity, PostPublic};
use domicile::posts::Posts;
use domicile::random::OsRandom;
use domicile::{Code, Config, Domicile, Error, Region, Result, Scope, SystemClock, Time};
use domicile_record::{Adopting, Intake, IntakeOptions, Scoping};
use serde::Serialize;

use super::home::table;
use super::seal::OneFile;
use crate::arguments::{Common, PostAdopt, PostEnrol, PostExport, PostInit, PostList, PostRevoke, PostSeal};
use crate::input::{self, Input};
use crate::output::make;
use crate::report::{Report, counted};

/// Others may read what is sealed, and public keys.
const PUBLIC_MODE: u32 = 0o644;

#[derive(Serialize)]
struct InitJson {
    post: String,
    public: String,
    identity: String,
    public_file: String,
}

pub(crate) fn init(init: &PostInit, report: &Report) -> Result<()> {
    let homes = init.homes.iter().cloned().collect();
    let identity = PostIdentity::generate(init.name.clone(), homes, &OsRandom)?;
    let mut name = OsString::from(&init.output);
    name.push(".pub");
    let public_file = PathBuf::from(name);
    let mut public = NewFile::create(&public_file, PUBLIC_MODE, false)?;
    write(&mut public, identity.public().text().as_bytes(), &public_file)?;
    identity.create(&init.output)?;
    public.publish()?;
    let json = InitJson {
        post: init.name.to_string(),
        public: identity.public().key.to_string(),
        identity: init.output.display().to_string(),
        public_file: public_file.display().to_string(),
    };
    report.print(&json, || {
        format!("{}: {}\n  enrol it at home with {}", json.post, json.public, json.public_file)
    })
}

#[derive(Serialize)]
struct SaidJson {
    post: String,
    region: String,
    entry: u64,
}

pub(crate) async fn enrol(common: &Common, enrol: &PostEnrol, report: &Report) -> Result<()> {
    let text = String::from_utf8(read(&enrol.key)?).unwrap_or_default();
    let public = PostPublic::parse(&text).map_err(|error| error.at(enrol.key.display().to_string()))?;
    if public.id != enrol.name {
        return Err(Error::new(Code::ArgumentInvalid, format!("this is the key of the post {}", public.id))
            .at(enrol.key.display().to_string()));
    }
    let domicile = input::domicile(common, report).await?;
    let posts = posts(&domicile, enrol.region.as_ref()).await?;
    let entry = posts.enrol(public, enrol.scopes.clone()).await?;
    said(report, &posts, enrol.name.to_string(), entry, "enrolled")
}

pub(crate) async fn revoke(common: &Common, revoke: &PostRevoke, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let posts = posts(&domicile, revoke.region.as_ref()).await?;
    let entry = posts.revoke(&revoke.name).await?;
    said(report, &posts, revoke.name.to_string(), entry, "revoked: nothing of it is adopted any more")
}

fn said(report: &Report, posts: &Posts<'_>, post: String, entry: u64, word: &str) -> Result<()> {
    let json = SaidJson { post, region: posts.place().region.to_string(), entry };
    report.print(&json, || format!("{} {word} ({}, entry {entry} of its ledger)", json.post, json.region))
}

#[derive(Serialize)]
struct BundleJson {
    path: String,
    region: String,
    serial: u64,
    posts: Vec<String>,
    not_after: String,
    destroy_after: String,
}

pub(crate) async fn export(common: &Common, export: &PostExport, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let posts = posts(&domicile, export.region.as_ref()).await?;
    // Before the bundle is on record: where nothing can be written, nothing is signed.
    let mut file = NewFile::create(&export.bundle, PUBLIC_MODE, export.force)?;
    let terms = BundleTerms { days: export.days, shipping_days: export.shipping_days };
    let (bundle, bytes) = posts.issue(&export.posts, terms).await?;
    write(&mut file, &bytes, &export.bundle)?;
    file.publish()?;
    let json = BundleJson {
        path: export.bundle.display().to_string(),
        region: bundle.place.region.to_string(),
        serial: bundle.serial,
        posts: bundle.posts.iter().map(|permitted| permitted.post.to_string()).collect(),
        not_after: bundle.not_after.to_string(),
        destroy_after: bundle.destroy_after.to_string(),
    };
    report.print(&json, || {
        format!(
            "{}: bundle {} of {}, for {}; seals until {}, adopted until {}",
            json.path,
            json.serial,
            json.region,
            json.posts.join(", "),
            json.not_after,
            json.destroy_after
        )
    })
}

#[derive(Serialize)]
struct SealedJson {
    path: String,
    segment: String,
    region: String,
    post: String,
    records: u64,
    bytes: u64,
    file_bytes: u64,
}

pub(crate) async fn seal(common: &Common, seal: &PostSeal, report: &Report) -> Result<()> {
    let inputs = Input::all(&seal.files, None, report)?;
    let post = match (&seal.identity, &seal.bundle) {
        (Some(identity), Some(bundle)) => post_of(&Arc::new(PostIdentity::read(identity)?), bundle)?,
        _ => configured(&input::config(common, report)?, true, report)?
            .into_iter()
            .next()
            .ok_or_else(no_post)?,
    };
    let scope = Scope { tenant: seal.tenant.clone(), record_type: seal.record_type.clone() };
    let mut options = IntakeOptions::new(Scoping::One(scope));
    options.framing = seal.framing;
    options.time = seal.time.clone();
    options.backfill = seal.backfill.clone();
    let outlet = OneFile::create(&seal.output, PUBLIC_MODE, seal.force)?;
    let mut intake = Intake::at_post(&post, options, outlet);
    for input in &inputs {
        let read = intake.read(input.open()?).await.map_err(|error| error.at(input.name()))?;
        for warning in &read.warnings {
            report.warn(&format!("{}: {warning}; nothing was lost", input.name()));
        }
    }
    for (file, summary) in intake.finish().await?.segments {
        file.publish_as(&seal.output)?;
        let json = SealedJson {
            path: seal.output.display().to_string(),
            segment: summary.id.to_string(),
            region: summary.place.region.to_string(),
            post: post.id().to_string(),
            records: summary.records,
            bytes: summary.bytes,
            file_bytes: summary.file_bytes,
        };
        let records = counted(summary.records, "record");
        report.say(&format!("{}: {records}, sealed for {} by {}", json.path, summary.place, json.post));
        if report.json {
            report.print(&json, String::new)?;
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct AdoptedJson {
    path: String,
    adopted: String,
    segment: String,
    post: String,
    records: u64,
    bytes: u64,
    before: bool,
    /// Whether the post ended it. If not, nobody counted its records.
    had_end: bool,
    blocks: u64,
    /// Octets that were cut.
    cut: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// Scopes whose keys had ended before the segment came: their lanes read as erased.
    ended: Vec<String>,
}

pub(crate) async fn adopt(common: &Common, adopt: &PostAdopt, report: &Report) -> Result<()> {
    let inputs = Input::all(&adopt.files, Some("dseg"), report)?;
    let domicile = input::domicile(common, report).await?;
    let posts = posts(&domicile, adopt.region.as_ref()).await?;
    for input in &inputs {
        // One that is refused stops no other.
        match adopt_one(&domicile, &posts, input, &adopt.output).await {
            Ok(json) => {
                report.print(&json, || adopted_text(&json))?;
                if !json.ended.is_empty() {
                    let ended = json.ended.join(", ");
                    report.warn(&format!("{}: erased, since their keys had ended: {ended}", json.adopted));
                }
            }
            Err(error) => report.fail(&error.at(input.name())),
        }
    }
    Ok(())
}

fn adopted_text(json: &AdoptedJson) -> String {
    let held = if json.had_end { counted(json.records, "record") } else { counted(json.blocks, "block") };
    let before = if json.before { ", adopted before" } else { "" };
    let mut text = format!("{}: {held} of {} in {}{before}", json.path, json.post, json.adopted);
    if !json.had_end {
        text += "\n  it had no end: more may have been sealed than is here";
    }
    if let Some(kept) = &json.kept {
        text += &format!("\n  the last {} were cut, and are in {kept}", counted(json.cut, "byte"));
    }
    text
}

async fn adopt_one(
    domicile: &Domicile,
    posts: &Posts<'_>,
    input: &Input,
    output: &Path,
) -> Result<AdoptedJson> {
    let adopting = Adopting::examine(domicile, posts, input.open_anywhere()?).await?;
    if !adopting.had_end() {
        refuse_written(input)?;
    }
    let path = output.join(adopting.summary().path());
    // The post's own copy is replaced, and so is what was adopted before it had its end by what goes further.
    let there = path.exists();
    let stays = there && !adopting.goes_further_than(open_file(&path)?)?;
    let (cut, post, had_end) = (adopting.cut(), adopting.post().to_string(), adopting.had_end());
    let mut json = AdoptedJson {
        path: input.name(),
        adopted: path.display().to_string(),
        segment: adopting.summary().id.to_string(),
        post,
        records: adopting.summary().records,
        bytes: adopting.summary().bytes,
        before: adopting.was_adopted(),
        had_end,
        blocks: adopting.summary().blocks,
        cut: cut.map_or(0, |cut| cut.bytes),
        kept: None,
        ended: Vec::new(),
    };
    if stays {
        return Ok(json);
    }
    let directory = path.parent().unwrap_or(output);
    make(directory)?;
    if let Some(cut) = cut {
        let kept = cut.beside(&path);
        let mut file = NewFile::create(&kept, PUBLIC_MODE, true)?;
        adopting.for_each_cut(|piece| write(&mut file, piece, &kept))?;
        file.publish()?;
        json.kept = Some(kept.display().to_string());
    }
    let file = if there {
        NewFile::create(&path, PUBLIC_MODE, true)?
    } else {
        NewFile::create_in(directory, PUBLIC_MODE)?
    };
    let (file, summary, ended) = adopting.write(file).await?;
    if there {
        file.publish()?;
    } else {
        file.publish_as(&path)?;
    }
    (json.blocks, json.ended) = (summary.blocks, ended.iter().map(ToString::to_string).collect());
    Ok(json)
}

/// What somebody still writes has no end yet: whoever adopts it now adopts less than is sealed.
fn refuse_written(input: &Input) -> Result<()> {
    let Input::File(path) = input else { return Ok(()) };
    if !input::is_written(&open_file(path)?) {
        return Ok(());
    }
    Err(Error::new(Code::SegmentBusy, "somebody writes this segment")
        .advise("wait until its writer has left it"))
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| unreadable(path, source))
}

#[derive(Serialize)]
struct PostJson {
    post: String,
    public: String,
    scopes: Vec<String>,
    enrolled: String,
    revoked: Option<String>,
    adopted: u64,
}

pub(crate) async fn list(common: &Common, list: &PostList, report: &Report) -> Result<()> {
    let domicile = input::domicile(common, report).await?;
    let posts = posts(&domicile, list.region.as_ref()).await?.list().await?;
    let all: Vec<_> = posts
        .iter()
        .map(|state| PostJson {
            post: state.enrolment.public.id.to_string(),
            public: state.enrolment.public.key.to_string(),
            scopes: state.enrolment.scopes.iter().map(ToString::to_string).collect(),
            enrolled: state.enrolled.to_string(),
            revoked: state.revoked.as_ref().map(Time::to_string),
            adopted: state.adopted,
        })
        .collect();
    report.print(&all, || {
        let cells: Vec<_> = all
            .iter()
            .map(|post| {
                let state = if post.revoked.is_some() { "revoked" } else { "enrolled" };
                (post.scopes.join(" "), state, post.adopted.to_string())
            })
            .collect();
        let rows: Vec<_> = all
            .iter()
            .zip(&cells)
            .map(|(post, (scopes, state, adopted))| {
                [post.post.as_str(), *state, post.enrolled.as_str(), adopted.as_str(), scopes.as_str()]
            })
            .collect();
        table(["POST", "STATE", "ENROLLED", "ADOPTED", "SCOPES"], &rows)
    })
}

/// The posts that the configuration names.
/// The posts of the configuration. Where none is asked for they are there for outages, and one that cannot be used costs a
/// word and not the run.
pub(crate) fn configured(config: &Config, asked_for: bool, report: &Report) -> Result<Vec<Post>> {
    let read = || {
        let post = config.post().ok_or_else(no_post)?;
        let identity = Arc::new(PostIdentity::read(&post.identity)?);
        Ok((identity, &post.bundles))
    };
    let (identity, bundles) = match read() {
        Ok(read) => read,
        Err(error) if asked_for => return Err(error),
        Err(error) => {
            if config.post().is_some() {
                report.warn(&format!("no outage will be bridged by a post: {error}"));
            }
            return Ok(Vec::new());
        }
    };
    let mut posts = Vec::with_capacity(bundles.len());
    for bundle in bundles {
        match post_of(&identity, bundle) {
            Ok(post) => posts.push(post),
            Err(error) if asked_for => return Err(error),
            Err(error) => report.warn(&format!("no outage will be bridged with this bundle: {error}")),
        }
    }
    Ok(posts)
}

fn no_post() -> Error {
    Error::new(Code::ConfigInvalid, "the configuration does not say as which post this host seals")
        .advise("add `[post]` with `identity = FILE` and `bundles = [FILE]`, or name them with --identity and --bundle")
}

fn post_of(identity: &Arc<PostIdentity>, bundle: &Path) -> Result<Post> {
    let at = |error: Error| error.at(bundle.display().to_string());
    let read = Bundle::read(&read(bundle)?, identity).map_err(at)?;
    Post::new(identity.clone(), read, Arc::new(SystemClock), Arc::new(OsRandom)).map_err(at)
}

async fn posts<'a>(domicile: &'a Domicile, region: Option<&Region>) -> Result<Posts<'a>> {
    domicile.posts(region.unwrap_or(&domicile.here().region)).await
}

/// Reads a small file.
fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_file(path)?.take(Bundle::BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| unreadable(path, source))?;
    Ok(bytes)
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    Error::new(Code::InputFailed, "this file cannot be read").at(path.display().to_string()).because(source)
}

fn write(file: &mut NewFile, bytes: &[u8], path: &Path) -> Result<()> {
    file.write_all(bytes).map_err(|source| {
        Error::output_failed("the output could not be written", source).at(path.display().to_string())
    })
}

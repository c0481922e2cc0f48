//! Following a directory: every segment that is there, and whichever come, until somebody ends it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domicile::{Code, Domicile, Error, Request, Result};
use domicile_record::format::SegmentId;
use domicile_record::{Follower, Segment, Selection, header_of, is_finished, is_unadopted, replaced_by};

use super::super::open::say_obstacles;
use super::{PAUSE, SILENCE, give};
use crate::report::{Report, Stdout, counted, output_failed};

/// How often the directory is looked through.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(
    domicile: Domicile,
    directory: &Path,
    request: Request,
    selection: Selection,
    report: &Report,
) -> Result<()> {
    let mut following = Following {
        domicile,
        request,
        selection,
        report,
        output: BufWriter::new(report.stdout()),
        known: BTreeSet::new(),
        given: BTreeSet::new(),
        followed: Vec::new(),
    };
    loop {
        following.look(directory).await?;
        let looked = Instant::now();
        while looked.elapsed() < LOOK {
            following.give().await?;
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Everything that is known of a directory's segments.
struct Following<'a> {
    domicile: Domicile,
    request: Request,
    selection: Selection,
    report: &'a Report,
    output: BufWriter<Stdout<'a>>,
    /// Files that were taken up, or left out.
    known: BTreeSet<PathBuf>,
    /// Segments whose records were given, or are.
    given: BTreeSet<SegmentId>,
    followed: Vec<Followed>,
}

/// A segment that is still written.
struct Followed {
    path: PathBuf,
    /// The file that is read: a recovery gives the name to another.
    inode: u64,
    follower: Follower<File>,
    records: u64,
    last: Instant,
    is_said_to_be_abandoned: bool,
    /// The file of this name that could not be gone on with, and was told of.
    failed: Option<u64>,
}

/// A file that was not there when the directory was looked through before.
struct Found {
    path: PathBuf,
    file: File,
    id: SegmentId,
    created: domicile::Time,
    replaces: Vec<SegmentId>,
}

impl Following<'_> {
    /// Takes up what is new, and what was recovered.
    async fn look(&mut self, directory: &Path) -> Result<()> {
        let mut paths = Vec::new();
        segments_below(directory, &mut paths).map_err(|source| {
            Error::new(Code::InputFailed, "the directory cannot be read")
                .at(directory.display().to_string())
                .because(source)
        })?;
        let mut found = Vec::new();
        for path in paths.into_iter().filter(|path| !self.known.contains(path)) {
            // One that is gone again, or has no header yet, is looked for once more.
            let Ok(file) = File::open(&path) else { continue };
            let Ok(header) = header_of(&file) else { continue };
            // What a post sealed is followed once it is adopted, under the same name.
            if is_unadopted(&file).unwrap_or(true) {
                continue;
            }
            let replaces = match replaced_by(&self.domicile, &file, self.request.clone()).await {
                Ok(replaces) => replaces,
                Err(error) if error.class() == domicile::Class::KeyService => continue,
                // Whoever reads it is told.
                Err(_) => Vec::new(),
            };
            found.push(Found { path, file, id: header.id, created: header.created, replaces });
        }
        // What replaces others comes before them, and older ones before newer ones.
        found.sort_by_key(|found| (found.replaces.is_empty(), found.created));
        for found in found {
            self.take_up(found).await?;
        }
        self.take_up_recovered().await
    }

    async fn take_up(&mut self, found: Found) -> Result<()> {
        let Found { path, file, id, replaces, .. } = found;
        let name = path.display().to_string();
        let of_given = replaces.iter().filter(|other| self.given.contains(other)).count();
        if self.given.contains(&id) || !replaces.is_empty() && of_given == replaces.len() {
            self.known.insert(path);
            return Ok(());
        }
        if of_given > 0 {
            self.report.warn(&format!(
                "{name}: replaces {} of which {of_given} were given: records of these come twice",
                counted(replaces.len() as u64, "segment")
            ));
        }
        let inode = inode_of(&file);
        match self.begin(&path, file).await {
            Ok(Some(follower)) => self.followed.push(Followed {
                path: path.clone(),
                inode,
                follower,
                records: 0,
                last: Instant::now(),
                is_said_to_be_abandoned: false,
                failed: None,
            }),
            Ok(None) => {}
            // It has no more than its header yet.
            Err(error) if error.code() == Code::SegmentUnfinished => return Ok(()),
            Err(error) if error.code() == Code::OutputFailed => return Err(error),
            // Nothing that was asked for.
            Err(error) if error.code() == Code::LaneNone => {}
            Err(error) => self.report.fail(&error.at(name)),
        }
        self.known.insert(path);
        self.given.insert(id);
        self.given.extend(replaces);
        Ok(())
    }

    /// Follows a segment; one that is whole is given at once.
    async fn begin(&mut self, path: &Path, file: File) -> Result<Option<Follower<File>>> {
        let (request, selection) = (self.request.clone(), self.selection.clone());
        if !is_finished(&file)? {
            return Follower::new(&self.domicile, file, request, selection).await.map(Some);
        }
        let segment = Segment::open_source(&self.domicile, &file, request, selection).await?;
        let mut records = 0;
        let given = segment.for_each_block(|block| {
            records += block.len() as u64;
            self.output.write_all(block.values()).map_err(output_failed)
        });
        self.output.flush().map_err(output_failed)?;
        given?;
        say_obstacles(
            segment.lanes(),
            &path.display().to_string(),
            self.selection.names_lanes(),
            self.report,
        );
        self.say_end(path, records, segment.state().as_str());
        Ok(None)
    }

    /// Goes on with segments whose writer is gone and that somebody has closed since.
    async fn take_up_recovered(&mut self) -> Result<()> {
        for number in (0..self.followed.len()).rev() {
            let Some(one) = self.followed.get(number) else { continue };
            if one.last.elapsed() < SILENCE {
                continue;
            }
            let file = match File::open(&one.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.report.warn(&format!(
                        "{}: it is gone, without an end: what came last in it is in what replaced it",
                        one.path.display()
                    ));
                    self.followed.remove(number);
                    continue;
                }
                Err(_) => continue,
            };
            let (inode, position) = (inode_of(&file), one.follower.position());
            if inode == one.inode {
                let abandoned = one.follower.is_abandoned()?;
                if let Some(one) =
                    self.followed.get_mut(number).filter(|one| abandoned && !one.is_said_to_be_abandoned)
                {
                    one.is_said_to_be_abandoned = true;
                    let name = one.path.display();
                    self.report.warn(&format!(
                        "{name}: nobody writes it any longer, and it has no end: `domicile recover` closes it"
                    ));
                }
                continue;
            }
            let (request, selection) = (self.request.clone(), self.selection.clone());
            let follower = Follower::new(&self.domicile, file, request, selection).await;
            match (follower, self.followed.get_mut(number)) {
                (Ok(follower), Some(one)) => {
                    (one.follower, one.inode, one.last) = (follower.passing(position), inode, Instant::now());
                }
                // It is tried again: what keeps its keys from being had may pass.
                (Err(error), Some(one)) if one.failed != Some(inode) => {
                    one.failed = Some(inode);
                    self.report.fail(&error.at(one.path.display().to_string()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives what became durable.
    async fn give(&mut self) -> Result<()> {
        let mut number = 0;
        while let Some(one) = self.followed.get_mut(number) {
            let before = one.records;
            let over = match give(&mut one.follower, &mut self.output, &mut one.records).await {
                Ok(ended) => ended.map(|state| state.as_str()),
                Err(error) if error.code() == Code::OutputFailed => return Err(error),
                Err(error) => {
                    // What was given before it is everybody's.
                    self.output.flush().map_err(output_failed)?;
                    self.report.fail(&error.at(one.path.display().to_string()));
                    Some("given up")
                }
            };
            if one.records > before {
                one.last = Instant::now();
            }
            if let Some(state) = over {
                let one = self.followed.remove(number);
                say_obstacles(
                    one.follower.lanes(),
                    &one.path.display().to_string(),
                    self.selection.names_lanes(),
                    self.report,
                );
                self.say_end(&one.path, one.records, state);
            } else {
                number += 1;
            }
        }
        Ok(())
    }

    fn say_end(&self, path: &Path, records: u64, state: &str) {
        self.report.say(&format!("{}: {} ({state})", path.display(), counted(records, "record")));
    }
}

fn inode_of(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.ino())
}

/// The segments below a directory, at any depth. What goes away meanwhile is not there.
fn segments_below(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            match segments_below(&path, found) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        } else if path.extension().is_some_and(|ending| ending == "dseg") {
            found.push(path);
        }
    }
    Ok(())
}

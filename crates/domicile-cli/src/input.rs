//! Where things are read from: files, directories, objects, standard input, the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use domicile::files::is_temporary;
use domicile::{Code, Config, Domicile, Error, Request, Result};
use domicile_record::object::{ObjectSource, ObjectUrl};
use domicile_record::{Source, header_of, replaced_among};

use crate::arguments::Common;
use crate::report::Report;

/// Finds and reads the configuration: named, or the nearest.
pub(crate) fn config(common: &Common, report: &Report) -> Result<Config> {
    if let Some(path) = &common.config {
        report.uses_config(path.clone());
        return Config::read(path);
    }
    let directory = std::env::current_dir()
        .map_err(|source| Error::new(Code::ConfigMissing, "this directory cannot be read").because(source))?;
    let config = Config::find(&directory)?;
    report.uses_config(config.path().to_owned());
    Ok(config)
}

/// Opens what the configuration describes, and follows what becomes of the keys that are in use while the program runs.
pub(crate) async fn domicile(common: &Common, report: &Report) -> Result<Domicile> {
    let domicile = Domicile::from_config(&config(common, report)?).await?;
    report.closes(&domicile);
    let in_use = domicile.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(in_use.keyring().poll_age()).await;
            // What it learns, the keys in use know: whoever reads or seals with them is told why they ended.
            if let Err(error) = in_use.keep_up().await {
                tracing::warn!(cause = %error, "keys in use could not be kept up");
            }
        }
    });
    Ok(domicile)
}

/// A file or an object to read, or standard input.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Stdin,
    File(PathBuf),
    Object(Box<ObjectUrl>),
}

/// What is open for reading anywhere.
#[derive(Debug)]
pub(crate) enum Opened {
    File(File),
    Object(Box<ObjectSource>),
}

impl Opened {
    fn source(&self) -> &dyn Source {
        match self {
            Opened::File(file) => file,
            Opened::Object(object) => &**object,
        }
    }
}

impl Source for Opened {
    fn length(&self) -> io::Result<u64> {
        self.source().length()
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.source().read_at(at, into)
    }

    fn near_bytes(&self) -> u64 {
        self.source().near_bytes()
    }

    fn is_far(&self) -> bool {
        self.source().is_far()
    }

    fn fetch(&self, from: u64, to: u64) -> io::Result<bool> {
        self.source().fetch(from, to)
    }
}

impl Input {
    /// The inputs that the arguments name: a directory stands for the files in it, at any depth, in the
    /// order of their names, hidden ones among them: those with `ending` if one is given, else every one but
    /// what a crash left of an output. What is no file is left out with a word. The URL of an object is one, and ends with `/` if
    /// it stands for the segments below it; without an ending, what is read is no segments, and lies in files.
    pub(crate) fn all(names: &[OsString], ending: Option<&str>, report: &Report) -> Result<Vec<Self>> {
        let mut inputs = Vec::new();
        for name in names {
            if name == "-" {
                inputs.push(Input::Stdin);
                continue;
            }
            if let Some(url) = name.to_str().filter(|name| ObjectUrl::is_one(name)) {
                let Some(ending) = ending else {
                    return Err(Error::new(
                        Code::ArgumentInvalid,
                        "segments alone are read from object stores",
                    )
                    .advise("copy it into a file, or pipe it in"));
                };
                inputs.extend(objects(url, ending)?);
                continue;
            }
            let path = Path::new(name);
            let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
            if metadata.is_dir() {
                let before = inputs.len();
                walk(path, ending, &mut inputs, report)?;
                if inputs.len() == before {
                    let what =
                        ending.map_or("files".to_owned(), |ending| format!("files that end in {ending}"));
                    return Err(Error::new(Code::InputFailed, format!("there are no {what} here"))
                        .at(path.display().to_string()));
                }
            } else {
                inputs.push(Input::File(path.to_owned()));
            }
        }
        Ok(inputs)
    }

    /// Those of the inputs whose records are to be seen, and those that another of them replaces: with both, a record would be
    /// seen twice. One input alone is taken as it is, and so is what comes through a pipe, which is read once.
    pub(crate) async fn current<'i>(
        domicile: &Domicile,
        inputs: &'i [Self],
        request: &Request,
    ) -> Result<(Vec<&'i Self>, Vec<&'i Self>)> {
        let (mut ids, mut replaced) = (BTreeMap::new(), BTreeSet::new());
        for (number, input) in inputs.iter().enumerate().filter(|_| inputs.len() > 1) {
            // What cannot be opened is told when it is read.
            if let (Input::File(_) | Input::Object(_), Ok(file)) = (input, input.open_anywhere()) {
                ids.extend(header_of(&file).ok().map(|header| (number, header.id)));
                replaced.extend(replaced_among(domicile, [&file], request.clone()).await?);
            }
        }
        let is_replaced = |number: usize| ids.get(&number).is_some_and(|id| replaced.contains(id));
        let (out, current): (Vec<_>, Vec<_>) =
            inputs.iter().enumerate().partition(|(number, _)| is_replaced(*number));
        let of = |inputs: Vec<(usize, &'i Self)>| inputs.into_iter().map(|(_, input)| input).collect();
        Ok((of(current), of(out)))
    }

    /// The name, as it is shown.
    pub(crate) fn name(&self) -> String {
        match self {
            Input::Stdin => "standard input".to_owned(),
            Input::File(path) => path.display().to_string(),
            Input::Object(url) => url.to_string(),
        }
    }

    /// The length, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Input::Stdin | Input::Object(_) => None,
            Input::File(path) => {
                fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
            }
        }
    }

    /// Opens it for reading from its beginning to its end.
    pub(crate) fn open(&self) -> Result<Box<dyn io::Read>> {
        match self {
            Input::Stdin => Ok(Box::new(io::stdin().lock())),
            Input::File(path) => Ok(Box::new(File::open(path).map_err(|source| unreadable(path, source))?)),
            Input::Object(url) => {
                let what = "an object is not read from its beginning to its end";
                Err(Error::new(Code::ArgumentInvalid, what).at(url.to_string()))
            }
        }
    }

    /// Opens it for reading anywhere: what comes through a pipe is kept in a file without a name. It is a
    /// segment, and sealed.
    pub(crate) fn open_anywhere(&self) -> Result<Opened> {
        let file = match self {
            Input::Stdin => return spool(&mut io::stdin().lock()).map(Opened::File),
            Input::Object(url) => return Ok(Opened::Object(Box::new(url.open()?))),
            Input::File(path) => File::open(path).map_err(|source| unreadable(path, source))?,
        };
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if is_file { Ok(Opened::File(file)) } else { spool(&mut &file).map(Opened::File) }
    }
}

/// Whether somebody writes a file: whoever does has it locked.
pub(crate) fn is_written(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The object that a URL names, or those below it.
fn objects(url: &str, ending: &str) -> Result<Vec<Input>> {
    let url = ObjectUrl::parse(url)?;
    let inputs: Vec<_> = url.segments()?.into_iter().map(|url| Input::Object(Box::new(url))).collect();
    if inputs.is_empty() {
        return Err(Error::new(Code::InputFailed, format!("there are no objects that end in {ending} here"))
            .at(url.to_string()));
    }
    Ok(inputs)
}

fn spool(input: &mut dyn io::Read) -> Result<File> {
    let failed =
        |source| Error::new(Code::InputFailed, "the input could not be kept for reading").because(source);
    let mut file = tempfile::tempfile().map_err(failed)?;
    io::copy(input, &mut file).map_err(failed)?;
    Ok(file)
}

/// The files below a directory, in the order of their names, as [`Input::all`] finds them.
pub(crate) fn walk(
    directory: &Path,
    ending: Option<&str>,
    inputs: &mut Vec<Input>,
    report: &Report,
) -> Result<()> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(|source| unreadable(directory, source))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type().map_err(|source| unreadable(&path, source))?;
        if kind.is_dir() {
            walk(&path, ending, inputs, report)?;
        } else if ending.is_some_and(|ending| path.extension() != Some(OsStr::new(ending))) {
            continue;
        } else if is_temporary(&entry.file_name()) {
            report.warn(&format!("{}: an output that is not whole; left out", path.display()));
        } else if path.is_file() {
            inputs.push(Input::File(path));
        } else {
            report.warn(&format!("{}: no file; left out", path.display()));
        }
    }
    Ok(())
}

fn unreadable(path: &Path, source: io::Error) -> Error {
    let what = match source.kind() {
        io::ErrorKind::NotFound => "there is no such file or directory",
        _ => "the input cannot be read",
    };
    Error::new(Code::InputFailed, what).at(path.display().to_string()).because(source)
}

//! Sessions with the program, kept as files: what is typed, what is said on both outputs, and the exit code. They
//! are the Markdown files of `tests/sessions/`, and the README and the tour of the book, which show nothing that
//! was not seen.
//!
//! In a block marked `console`, a line that begins with `$ ` is given to a shell (one that begins with `> `
//! goes on with it), the lines behind it are what it says, and `? 3` is its exit code if that is not 0. A comment
//! `<!-- $ … -->` outside is run and not shown; it must succeed and may say what it likes. Each file is one session, in
//! a directory of its own that holds the project's samples in `samples/`, and that is called `/srv/records` in what
//! is said.
//!
//! What differs from run to run is written `[ID]` (a segment), `[KEY]`, `[TIME]`, `…` for anything on a line, and a line
//! of `…` for any lines. The month 2026-11 and the day 2026-11-25 stand for those of the run. What was said stands in
//! `target/sessions/` after each run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use domicile_tests::program::{path, repository, samples, succeed};
use snapbox::{Assert, IntoData, Redactions};

/// One command of a session.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    said: String,
    code: i32,
    shown: bool,
}

fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        let step = |command: &str, shown| Step {
            line: number,
            command: command.to_owned(),
            shown,
            ..Step::default()
        };
        if line.starts_with("```") {
            inside = !inside && line.trim_end() == "```console";
        } else if !inside {
            let hidden = line.strip_prefix("<!-- $ ").and_then(|rest| rest.strip_suffix(" -->"));
            steps.extend(hidden.map(|command| step(command, false)));
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(step(command, true));
        } else {
            let last = steps.last_mut().unwrap_or_else(|| panic!("line {number}: no command before"));
            match (line.strip_prefix("> "), line.strip_prefix("? ")) {
                (Some(more), _) => last.command.extend(["\n", more]),
                (_, Some(code)) => last.code = code.parse().unwrap(),
                _ => last.said.extend([line, "\n"]),
            }
        }
    }
    steps
}

/// As snapbox writes what may be anything.
fn pattern(said: &str) -> String {
    said.lines().fold(String::new(), |mut text, line| {
        let line = if line.trim() == "…" { "...".to_owned() } else { line.replace('…', "[..]") };
        let line = line.replace("2026-11-25", "[DAY]").replace("2026-11", "[MONTH]");
        let _ = writeln!(text, "{line}");
        text
    })
}

fn redactions() -> Redactions {
    let mut redactions = Redactions::new();
    let regex = |pattern: &str| regex::Regex::new(pattern).unwrap();
    redactions.insert("[ID]", regex(r"(?<redacted>\b[0-9a-f]{64}\b)")).unwrap();
    redactions.insert("[KEY]", regex(r"(?<redacted>\b[0-9a-f]{32}\b)")).unwrap();
    redactions.insert("[TIME]", regex(r"(?<redacted>\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z)")).unwrap();
    let today = String::from_utf8(succeed(Command::new("date").args(["-u", "+%Y-%m-%d"]))).unwrap();
    let (day, month) = (today.trim(), today.get(..7).unwrap());
    redactions.insert("[DAY]", regex(&format!(r"(?<redacted>\b{day}\b)"))).unwrap();
    redactions.insert("[MONTH]", regex(&format!(r"(?<redacted>\b{month}\b)"))).unwrap();
    redactions
}

/// Runs a session; returns what did not go as it says.
fn run(file: &Path) -> Result<usize, String> {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().canonicalize().unwrap();
    copy_samples(&place.join("samples"));
    let text = std::fs::read_to_string(file).unwrap();
    let (mut transcript, mut failures, mut count) = (String::new(), String::new(), 0);
    for step in steps(&text) {
        let output = Command::new("bash")
            .args(["-c", &format!("{{ {}\n}} 2>&1", step.command)])
            .current_dir(&place)
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", path().parent().unwrap().display()))
            .env("HOME", &place)
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).replace(&*place.to_string_lossy(), "/srv/records");
        let code = output.status.code().unwrap_or(-1);
        let _ = write!(transcript, "$ {}\n{said}", step.command.replace('\n', "\n> "));
        let _ = if code == 0 { Ok(()) } else { writeln!(transcript, "? {code}") };
        let context = || format!("{}:{}: {}", file.display(), step.line, step.command);
        if code != step.code {
            let _ = writeln!(failures, "{}: exit code {code}, not {}\n{said}", context(), step.code);
        }
        if step.shown {
            let held = Assert::new().normalize_paths(false).redact_with(redactions()).try_eq(
                Some(&context()),
                said.into_data(),
                pattern(&step.said).into_data(),
            );
            if let Err(difference) = held {
                let _ = writeln!(failures, "{difference}");
            }
        }
        count += 1;
    }
    let transcripts = repository().join("target/sessions");
    std::fs::create_dir_all(&transcripts).unwrap();
    std::fs::write(transcripts.join(file.file_name().unwrap()), transcript).unwrap();
    if failures.is_empty() { Ok(count) } else { Err(failures) }
}

fn copy_samples(to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        let of_the_crate = |kind: &std::ffi::OsStr| kind == "md" || kind == "toml";
        if path.is_file() && !path.extension().is_some_and(of_the_crate) {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn all_go_as_they_say(files: &[PathBuf], steps_min: usize) {
    let mut failures = String::new();
    for file in files {
        match run(file) {
            Ok(count) => assert!(count >= steps_min, "{}: {count} steps", file.display()),
            Err(failure) => failures.push_str(&failure),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn every_session_goes_as_its_file_says() {
    let folder = repository().join("tests/sessions");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    all_go_as_they_say(&files, 3);
}

#[test]
fn the_readme_and_the_tour_show_what_was_seen() {
    let root = repository();
    all_go_as_they_say(&[root.join("README.md"), root.join("docs/src/tour.md")], 3);
}

#[test]
fn a_session_that_goes_otherwise_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    for (text, what) in [
        ("```console\n$ echo one\ntwo\n```\n", "one"),
        ("```console\n$ exit 3\n```\n", "exit code 3"),
        ("```console\n$ true\n? 1\n```\n", "exit code 0"),
        ("<!-- $ false -->\n", "exit code 1"),
        ("```console\n$ echo one; echo two\none\n```\n", "two"),
    ] {
        let file = directory.path().join("canary.md");
        std::fs::write(&file, text).unwrap();
        let failure = run(&file).unwrap_err();
        assert!(failure.contains(what), "{text}: {failure}");
    }
}

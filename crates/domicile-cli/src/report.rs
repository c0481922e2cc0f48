//! What the program says: results on standard output, words on standard error, and the exit code.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use domicile::{Class, Code, Domicile, Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::arguments::Common;

/// Where words go, and the worst that happened so far.
pub(crate) struct Report {
    pub(crate) json: bool,
    /// Whether somebody reads along.
    talkative: bool,
    worst: Cell<Option<Class>>,
    /// Whether the reader of standard output has gone.
    unread: Cell<bool>,
    config: RefCell<Option<PathBuf>>,
    domicile: RefCell<Option<Domicile>>,
}

impl Report {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            json: common.json,
            talkative: common.verbose || (io::stderr().is_terminal() && !common.json),
            worst: Cell::new(None),
            unread: Cell::new(false),
            config: RefCell::new(None),
            domicile: RefCell::new(None),
        }
    }

    /// The configuration that was used: every refusal names it.
    pub(crate) fn uses_config(&self, path: PathBuf) {
        *self.config.borrow_mut() = Some(path);
    }

    /// What was opened, and must be closed before the program ends.
    pub(crate) fn closes(&self, domicile: &Domicile) {
        *self.domicile.borrow_mut() = Some(domicile.clone());
    }

    /// Closes what was opened.
    pub(crate) async fn close(&self) {
        let domicile = self.domicile.borrow_mut().take();
        if let Some(domicile) = domicile {
            domicile.close().await;
        }
    }

    /// How far something has come, of so many octets if that is known, for whoever looks at a terminal; nothing otherwise.
    pub(crate) fn bar(&self, length: Option<u64>, template: &str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        ProgressStyle::with_template(template).map_or(bar.clone(), |style| bar.with_style(style))
    }

    /// Says what was done, to whoever reads along.
    pub(crate) fn say(&self, words: &str) {
        if self.talkative {
            self.write_words(words);
        }
    }

    /// Says what should be known, whoever reads along.
    pub(crate) fn warn(&self, words: &str) {
        if self.json {
            self.write_words(&serde_json::json!({ "warning": words }).to_string());
        } else {
            self.write_words(&format!("warning: {words}"));
        }
    }

    /// Shows an error, and remembers its class for the exit code.
    pub(crate) fn fail(&self, error: &Error) {
        self.remember(error.class());
        let cause = causes(error);
        let config = self.config.borrow();
        let config = config.as_ref().filter(|_| error.is_refusal()).map(|path| path.display().to_string());
        if self.json {
            let error = ErrorJson {
                code: error.code().as_str(),
                what: error.what(),
                r#where: error.place(),
                rule: error.broken_rule(),
                r#do: error.advice(),
                cause,
                config,
                exit: error.class().exit_code(),
            };
            let line = serde_json::to_string(&serde_json::json!({ "error": error })).unwrap_or_default();
            self.write_words(&line);
            return;
        }
        let mut words = format!("error[{}]: {}", error.code(), error.what());
        let line = |words: &mut String, label: &str, text: Option<&str>| {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                words.push_str(&format!("\n  {label:<8}{text}"));
            }
        };
        line(&mut words, "where:", error.place());
        line(&mut words, "rule:", error.broken_rule());
        line(&mut words, "cause:", cause.as_deref());
        line(&mut words, "config:", config.as_deref());
        line(&mut words, "do:", error.advice());
        self.write_words(&words);
    }

    /// Remembers that something of this class happened; the worst makes the exit code.
    pub(crate) fn remember(&self, class: Class) {
        let worst = self.worst.get().filter(|worst| worst.rank() <= class.rank());
        self.worst.set(Some(worst.unwrap_or(class)));
    }

    /// The worst so far.
    pub(crate) fn worst(&self) -> Option<Class> {
        self.worst.get()
    }

    /// Prints a result as one line of JSON, or as text.
    pub(crate) fn print<T: Serialize>(&self, result: &T, text: impl FnOnce() -> String) -> Result<()> {
        let text = if self.json {
            let json = serde_json::to_string(result);
            json.map_err(|source| Error::new(Code::OutputFailed, "a result has no JSON").because(source))?
        } else {
            text()
        };
        self.print_line(&text)
    }

    /// Prints a line on standard output, if anybody reads it: what is left to find is found all the same.
    pub(crate) fn print_line(&self, line: &str) -> Result<()> {
        match writeln!(self.stdout(), "{line}") {
            Err(_) if self.unread.get() => Ok(()),
            printed => printed.map_err(output_failed),
        }
    }

    /// Standard output. Somebody who has read enough ends the program, and that is no failure.
    pub(crate) fn stdout(&self) -> Stdout<'_> {
        Stdout { output: io::stdout().lock(), unread: &self.unread }
    }

    /// Ends the program.
    pub(crate) fn end(&self, outcome: Result<()>) -> ExitCode {
        if let Err(error) = outcome
            && !self.is_of_unread_output(&error)
        {
            self.fail(&error);
        }
        ExitCode::from(self.exit_code())
    }

    /// Whether an error says no more than that the reader of standard output has gone.
    fn is_of_unread_output(&self, error: &Error) -> bool {
        self.unread.get() && error.code() == Code::OutputFailed
    }

    fn exit_code(&self) -> u8 {
        self.worst.get().map_or(0, Class::exit_code)
    }

    fn write_words(&self, words: &str) {
        // Where words cannot be written, there is nobody to tell.
        let _ = writeln!(io::stderr().lock(), "{words}");
    }
}

/// What clap could not understand, or `--help` and `--version`, which it takes for errors.
pub(crate) fn wrong_usage(usage: &clap::Error) -> ExitCode {
    // Nothing was parsed, so that `--json` is looked for by itself.
    let json = std::env::args_os()
        .skip(1)
        .take_while(|argument| argument != "--")
        .any(|argument| argument == "--json");
    if json && usage.use_stderr() {
        let words = usage.to_string();
        let what = words.split("\n\n").next().unwrap_or(&words);
        let error = ErrorJson {
            code: Code::ArgumentInvalid.as_str(),
            what: what.strip_prefix("error: ").unwrap_or(what),
            r#where: None,
            rule: None,
            r#do: Some("see --help"),
            cause: None,
            config: None,
            exit: Class::Usage.exit_code(),
        };
        let _ = writeln!(io::stderr().lock(), "{}", serde_json::json!({ "error": error }));
    } else {
        // Where words cannot be written, there is nobody to tell.
        let _ = usage.print();
    }
    ExitCode::from(if usage.use_stderr() { Class::Usage.exit_code() } else { 0 })
}

#[derive(Serialize)]
struct ErrorJson<'a> {
    code: &'static str,
    what: &'a str,
    r#where: Option<&'a str>,
    rule: Option<&'a str>,
    r#do: Option<&'a str>,
    cause: Option<String>,
    config: Option<String>,
    exit: u8,
}

/// The program's own standard output, which notices that nobody reads any more. A closed pipe anywhere else, be it
/// an input or what `-o` names, is a failure like any other.
pub(crate) struct Stdout<'a> {
    output: io::StdoutLock<'static>,
    unread: &'a Cell<bool>,
}

impl Stdout<'_> {
    fn noticing<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.unread.set(true);
        }
        outcome
    }
}

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes);
        self.noticing(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.output.flush();
        self.noticing(flushed)
    }
}

/// Standard output failed.
pub(crate) fn output_failed(source: io::Error) -> Error {
    Error::output_failed("the output could not be written", source).at("standard output")
}

/// The causes of an error, each once.
fn causes(error: &Error) -> Option<String> {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // An error that several waited for is its own cause once more.
        if !text.starts_with(error.what()) && !causes.iter().any(|known: &String| known.contains(&text)) {
            causes.push(text);
        }
        next = cause.source();
    }
    (!causes.is_empty()).then(|| causes.join(": "))
}

/// A number with a comma after every three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 record`, `1,000 records`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let number = grouped(count);
    match noun.strip_suffix('y') {
        _ if count == 1 => format!("{number} {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn report() -> Report {
        Report::new(
            &crate::arguments::Arguments::try_parse_from(["domicile", "inspect", "x"]).unwrap().common,
        )
    }

    fn closed(code: Code) -> Error {
        Error::new(code, "closed").because(io::Error::from(io::ErrorKind::BrokenPipe))
    }

    #[test]
    fn only_the_reader_of_standard_output_may_leave() {
        // A pipe that is an input, or an output of `-o`.
        for code in [Code::InputFailed, Code::OutputFailed] {
            let report = report();
            report.end(Err(closed(code)));
            assert_eq!(report.exit_code(), 1, "{code}");
        }
        let report = report();
        report.unread.set(true);
        report.end(Err(closed(Code::OutputFailed)));
        assert_eq!(report.exit_code(), 0);
        report.end(Err(closed(Code::InputFailed)));
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn what_was_found_before_the_reader_left_makes_the_exit_code() {
        let report = report();
        report.remember(Class::Unfinished);
        report.remember(Class::Corrupt);
        report.unread.set(true);
        report.end(Err(closed(Code::OutputFailed)));
        assert_eq!(report.exit_code(), 4);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(counted(1, "lane"), "1 lane");
    }
}

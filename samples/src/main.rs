//! `domicile-samples`: fictional detail records in a file or a pipe.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use domicile_samples::{Format, Generator, Mix, Options, Region, Scope, micros_from_text, sample_files};

/// Makes fictional call and message detail records: the same options, the same octets
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, or whoever read the pipe had enough; 1 failed; 2 wrong usage."
)]
struct Arguments {
    /// How many records
    #[arg(long, default_value_t = 1000)]
    count: u64,

    /// How they are written: csv, jsonl, json, lines, lp, ber or ts32297
    #[arg(long, default_value = "jsonl")]
    format: Format,

    /// How many tenants there are
    #[arg(long, default_value_t = 1000)]
    tenants: u32,

    /// Record types, with weights if wanted (voice,messaging=3), or all
    #[arg(long, default_value = "all")]
    types: Mix,

    /// Regions that scopes are at home in [default: all six]
    #[arg(long, value_delimiter = ',', value_name = "REGION,...")]
    regions: Vec<Region>,

    /// Another number, other records
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// When record 0 starts, in UTC: 2026-01-05 or 2026-01-05T08:00:00Z
    #[arg(long, default_value = "2026-01-05T00:00:00Z", value_parser = start)]
    start: i64,

    /// Records a second of the time that stands in them
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,

    /// Number of the first record: parts of one stream can be made apart
    #[arg(long, default_value_t = 0)]
    first: u64,

    /// Some texts have line breaks, in CSV inside quotes
    #[arg(long)]
    csv_newlines: bool,

    /// Leave out CSV's header line, the brackets around a JSON array and the file header of TS 32.297
    #[arg(long)]
    no_header: bool,

    /// File to write; - is standard output
    #[arg(long, default_value = "-", value_name = "FILE")]
    out: PathBuf,

    /// Print where each scope is at home, as CSV (tenant,record_type,region), instead of records
    #[arg(long)]
    list_scopes: bool,

    /// Write the sample files of the repository into a folder, instead of records
    #[arg(long, value_name = "DIR", exclusive = true)]
    write_samples: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error, _)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed too, there is nobody left to tell.
            let (text, code) = match failure {
                Failure::Usage(text) => (text, 2),
                Failure::Output(error, path) if path == Path::new("-") => {
                    (format!("cannot write to standard output: {error}"), 1)
                }
                Failure::Output(error, path) => (format!("cannot write {}: {error}", path.display()), 1),
            };
            let _ = writeln!(io::stderr(), "error: {text}");
            ExitCode::from(code)
        }
    }
}

/// Why there is no output, or not all of it.
enum Failure {
    Usage(String),
    Output(io::Error, PathBuf),
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Some(folder) = &arguments.write_samples {
        return write_samples(folder);
    }
    let Some(end) = arguments.first.checked_add(arguments.count) else {
        return Err(Failure::Usage("--first and --count together pass the last number, 2^64 - 1".to_owned()));
    };
    let generator = Generator::new(Options {
        seed: arguments.seed,
        tenants: arguments.tenants,
        types: arguments.types,
        regions: if arguments.regions.is_empty() { Region::ALL.to_vec() } else { arguments.regions },
        start_micros: arguments.start,
        step_micros: i64::from(1_000_000 / arguments.rate),
        line_breaks: arguments.csv_newlines,
    })
    .map_err(|error| Failure::Usage(error.to_string()))?;

    let written = open(&arguments.out).and_then(|mut out| {
        if arguments.list_scopes {
            write_scopes(&generator, &mut out)?;
        } else {
            let format = arguments.format;
            if !arguments.no_header {
                out.write_all(&generator.header(format, arguments.first..end))?;
            }
            write_records(&generator, format, arguments.first, end, &mut out)?;
            if !arguments.no_header {
                out.write_all(format.footer())?;
            }
        }
        out.flush()
    });
    written.map_err(|error| Failure::Output(error, arguments.out))
}

fn start(text: &str) -> Result<i64, String> {
    micros_from_text(text)
        .ok_or_else(|| "not a UTC time like 2026-01-05T08:00:00Z of the years 1970 to 9999".to_owned())
}

fn open(path: &Path) -> io::Result<Box<dyn Write>> {
    if path == Path::new("-") { Ok(Box::new(io::stdout().lock())) } else { Ok(Box::new(File::create(path)?)) }
}

fn write_records(
    generator: &Generator,
    format: Format,
    first: u64,
    end: u64,
    out: &mut dyn Write,
) -> io::Result<()> {
    // As much as fits into a processor's cache, so that it is still there when it is written.
    const BATCH: u64 = 1000;
    let mut octets = Vec::new();
    let mut from = first;
    while from < end {
        let to = end.min(from.saturating_add(BATCH));
        octets.clear();
        if from > first {
            octets.extend_from_slice(format.separator());
        }
        generator.write(format, from..to, &mut octets);
        out.write_all(&octets)?;
        from = to;
    }
    Ok(())
}

fn write_scopes(generator: &Generator, out: &mut dyn Write) -> io::Result<()> {
    let mut out = BufWriter::new(out);
    writeln!(out, "{}", Scope::HEADER)?;
    for scope in generator.scopes() {
        writeln!(out, "{scope}")?;
    }
    out.flush()
}

fn write_samples(folder: &Path) -> Result<(), Failure> {
    for sample in sample_files().map_err(|error| Failure::Usage(error.to_string()))? {
        let path = folder.join(sample.name);
        fs::write(&path, &sample.bytes).map_err(|error| Failure::Output(error, path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_meant_is_wrong_usage() {
        for wrong in [
            &["--format", "xml"][..],
            &["--types", "voise"],
            &["--regions", "eu-central-9"],
            &["--start", "yesterday"],
            &["--rate", "0"],
            &["--write-samples", "folder", "--count", "5"],
        ] {
            let arguments = [&["domicile-samples"], wrong].concat();
            assert_eq!(Arguments::try_parse_from(arguments).err().unwrap().exit_code(), 2, "{wrong:?}");
        }
        for wrong in [&["--tenants", "0"][..], &["--types", "voice=0"], &["--first", "18446744073709551615"]]
        {
            let arguments = Arguments::try_parse_from([&["domicile-samples"], wrong].concat()).unwrap();
            assert!(matches!(run(arguments), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn batches_make_one_file() {
        let generator = Generator::new(Options::default()).unwrap();
        for &format in Format::ALL {
            let mut out = generator.header(format, 500..3210);
            write_records(&generator, format, 500, 3210, &mut out).unwrap();
            out.extend_from_slice(format.footer());
            assert!(out == generator.file(format, 500..3210), "{format}");
        }
    }
}

//! The small files that lie beside this crate: one of each framing, and of each thing that trips readers.

use std::ops::Range;

use crate::format::{COLUMNS, Format};
use crate::generator::Generator;
use crate::moment::micros_from_text;
use crate::options::{Options, OptionsError};
use crate::render::json_value;
use crate::scope::{Mix, RecordType, Scope};

/// A file, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The name, without a folder.
    pub name: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The sample files, always the same. Each is described in the `README.md` beside them.
///
/// # Errors
/// None, unless the options in here contradict themselves, which a test rules out.
pub fn sample_files() -> Result<Vec<Sample>, OptionsError> {
    let (voice, messaging) = (of_type(RecordType::Voice)?, of_type(RecordType::Messaging)?);
    let (wireless, calls) = (of_type(RecordType::Wireless)?, of_type(RecordType::CallControl)?);
    let with_breaks = Options { line_breaks: true, ..messaging.options().clone() };
    let mixed = Generator::new(Options { tenants: 12, step_micros: 1_500_000, ..Options::default() })?;
    let twenty = voice.file(Format::Csv, 1000..1020);
    let header = Format::Csv.header();
    let files = [
        ("voice.csv", voice.file(Format::Csv, 0..60)),
        ("messaging-newlines.csv", Generator::new(with_breaks)?.file(Format::Csv, 0..60)),
        ("wireless.jsonl", wireless.file(Format::Jsonl, 0..40)),
        ("conference.json", of_type(RecordType::Conference)?.file(Format::Json, 0..40)),
        ("messaging.log", messaging.file(Format::Lines, 0..60)),
        ("voice.lp", voice.file(Format::Lp, 0..80)),
        ("call-recording.wav", tone()),
        ("voice-no-last-newline.csv", twenty.strip_suffix(b"\n").unwrap_or_default().to_vec()),
        ("voice-crlf.csv", with_crlf(&twenty)),
        ("voice-bom.csv", [b"\xEF\xBB\xBF", &twenty[..]].concat()),
        ("voice-no-header.csv", twenty.strip_prefix(header).unwrap_or_default().to_vec()),
        ("empty.csv", Vec::new()),
        (
            "messaging-pretty.json",
            (0..20).map(|record| indented(&messaging, record)).collect::<String>().into(),
        ),
        ("video.xml", xml(&of_type(RecordType::Video)?).into()),
        ("voice.ber", voice.file(Format::Ber, 0..60)),
        ("wireless.ts32297", wireless.file(Format::Ts32297, 0..60)),
        (
            "wireless-open.ts32297",
            [Format::Ts32297.header(), wireless.records(Format::Ts32297, 60..80).as_bytes()].concat(),
        ),
        ("messaging.lpi", with_inclusive_lengths(&messaging, 0..40)),
        ("call-control.events", (0..40).map(|record| event(&calls, record)).collect::<String>().into()),
        ("mixed.csv", mixed.file(Format::Csv, 0..180)),
        ("homes.csv", homes(&mixed).into()),
    ];
    Ok(files.into_iter().map(|(name, bytes)| Sample { name, bytes }).collect())
}

/// Records of one type and one tenant, one each twenty seconds; of each type others.
fn of_type(record_type: RecordType) -> Result<Generator, OptionsError> {
    let (seed, types) = (record_type as u64, Mix::only(record_type));
    Generator::new(Options { seed, types, tenants: 1, step_micros: 20_000_000, ..Options::default() })
}

fn with_crlf(lines: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(lines).replace('\n', "\r\n").into()
}

/// A record as a JSON object over many lines.
fn indented(generator: &Generator, record: u64) -> String {
    let members: Vec<String> = generator
        .members(record)
        .iter()
        .map(|(name, value)| format!("  \"{name}\": {}", json_value(value)))
        .collect();
    format!("{{\n{}\n}}\n", members.join(",\n"))
}

/// Records after lengths that count themselves.
fn with_inclusive_lengths(generator: &Generator, records: Range<u64>) -> Vec<u8> {
    let mut file = Vec::new();
    for record in generator.records(Format::Lp, records).iter() {
        // The length before a record counts all but its own four octets.
        file.extend_from_slice(&u32::try_from(record.len()).unwrap_or_default().to_be_bytes());
        file.extend_from_slice(record.get(4..).unwrap_or_default());
    }
    file
}

/// A record as an event of a switch: lines with names, percent-encoded, and an empty one.
fn event(generator: &Generator, record: u64) -> String {
    let members = generator.members(record);
    let start = members.iter().find(|(name, _)| *name == "start_time").map(|(_, value)| value.to_string());
    let seconds = start.and_then(|start| micros_from_text(start.get(..19)?)).unwrap_or_default();
    let mut lines = format!("Event-Name: CHANNEL_HANGUP_COMPLETE\nEvent-Date-Timestamp: {seconds}\n");
    for (name, value) in members {
        let encoded: String = value
            .to_string()
            .bytes()
            .map(|octet| match octet {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(octet).to_string(),
                _ => format!("%{octet:02X}"),
            })
            .collect();
        lines += &format!("variable_{name}: {encoded}\n");
    }
    lines + "\n"
}

/// An XML document in which each element of the root is a record.
fn xml(generator: &Generator) -> String {
    let escaped = |text: String| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut document = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<records>\n");
    for record in 0..20 {
        let members = generator.members(record);
        let (columns, attributes) = members.split_at(members.len().min(COLUMNS.len() - 1));
        document += "  <record>\n";
        for (name, value) in columns {
            document += &format!("    <{name}>{}</{name}>\n", escaped(value.to_string()));
        }
        document += "    <attributes>\n";
        for (name, value) in attributes {
            document += &format!("      <{name}>{}</{name}>\n", escaped(value.to_string()));
        }
        document += "    </attributes>\n  </record>\n";
    }
    document + "</records>\n"
}

/// Where the scopes of a generator are at home, as CSV.
fn homes(generator: &Generator) -> String {
    let rows = generator.scopes().map(|scope| scope.to_string());
    std::iter::once(Scope::HEADER.to_owned()).chain(rows).map(|row| row + "\n").collect()
}

/// Two seconds of a tone that swells and fades: RIFF, one channel of 8,000 samples a second, 8 bits each.
#[allow(clippy::little_endian_bytes, reason = "RIFF is little-endian")]
fn tone() -> Vec<u8> {
    const RATE: u32 = 8_000;
    const SAMPLES: u32 = 2 * RATE;
    // Format chunk: PCM, channels, samples a second, octets a second, octets a sample, bits a sample.
    let mut file = [&b"RIFF"[..], &(36 + SAMPLES).to_le_bytes(), b"WAVEfmt ", &16_u32.to_le_bytes()].concat();
    file.extend([1_u16, 1].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([RATE, RATE].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([1_u16, 8].iter().flat_map(|number| number.to_le_bytes()));
    file.extend_from_slice(b"data");
    file.extend_from_slice(&SAMPLES.to_le_bytes());
    file.extend((0..SAMPLES).map(|sample| {
        // 425 Hz, of which a sample is 3,482 steps in 65,536. Two parabolas are near enough to a sine.
        let phase = i64::from(sample * 3482 % 65_536) - 32_768;
        let wave = phase * (32_768 - phase.abs()) / 4096; // -65,536 to 65,536
        let loudness = i64::from(sample.min(SAMPLES - sample)); // 0 to 8,000
        u8::try_from(128 + wave * loudness / 5_000_000).unwrap_or(128)
    }));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::path::Path;

    fn sample(name: &str) -> Vec<u8> {
        sample_files().unwrap().into_iter().find(|sample| sample.name == name).unwrap().bytes
    }

    fn rows(name: &str) -> Vec<csv::StringRecord> {
        let bytes = sample(name);
        csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(&bytes[..])
            .records()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn committed_files_are_those_that_are_made() {
        for sample in sample_files().unwrap() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(sample.name);
            let committed = std::fs::read(&path).unwrap_or_default();
            assert!(
                committed == sample.bytes,
                "{} is not what `cargo run -p domicile-samples -- --write-samples samples` makes",
                sample.name
            );
        }
    }

    #[test]
    fn every_file_is_small_and_described() {
        let description = include_str!("../README.md");
        for sample in sample_files().unwrap() {
            assert!(sample.bytes.len() <= 60_000, "{}: {}", sample.name, sample.bytes.len());
            assert!(description.contains(&format!("| `{}` |", sample.name)), "{}", sample.name);
        }
    }

    #[test]
    fn edges_are_where_their_names_say() {
        let twenty = rows("voice-crlf.csv");
        assert_eq!(twenty.len(), 21);
        assert_eq!(rows("voice-no-last-newline.csv"), twenty);
        assert_eq!(rows("voice-no-header.csv"), twenty[1..]);
        let crlf = sample("voice-crlf.csv");
        assert_eq!(crlf.split(|&octet| octet == b'\n').filter(|line| line.ends_with(b"\r")).count(), 21);
        assert!(!sample("voice-no-last-newline.csv").ends_with(b"\n"));
        assert!(sample("voice-bom.csv").starts_with(b"\xEF\xBB\xBFrecord_type,"));
        assert_eq!(sample("empty.csv"), b"");
        let lines = sample("messaging-newlines.csv").iter().filter(|&&octet| octet == b'\n').count();
        assert!(rows("messaging-newlines.csv").len() + 20 < lines, "{lines}");
    }

    #[test]
    fn lengths_count_themselves_and_events_are_blocks() {
        let inclusive = sample("messaging.lpi");
        let (mut at, mut count) = (0, 0);
        while at < inclusive.len() {
            at += usize::try_from(u32::from_be_bytes(inclusive[at..at + 4].try_into().unwrap())).unwrap();
            count += 1;
        }
        assert_eq!((at, count), (inclusive.len(), 40));
        let events = String::from_utf8(sample("call-control.events")).unwrap();
        let events: Vec<&str> = events.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 40);
        for event in events {
            assert!(event.starts_with("Event-Name: CHANNEL_HANGUP_COMPLETE\nEvent-Date-Timestamp: 17"));
            assert!(
                event
                    .lines()
                    .all(|line| line.split_once(": ").is_some_and(|(_, value)| !value.contains(' ')))
            );
            assert!(event.contains("\nvariable_tenant: t-000001\n"));
        }
        assert!(sample("wireless-open.ts32297").starts_with(&[0xFF; 4]));
    }

    #[test]
    fn documents_are_well_formed() {
        let pretty = sample("messaging-pretty.json");
        let objects: Vec<serde_json::Value> =
            serde_json::Deserializer::from_slice(&pretty).into_iter().map(Result::unwrap).collect();
        assert_eq!(objects.len(), 20);
        assert!(objects.iter().all(|object| object["record_type"] == "messaging"));
        let document = String::from_utf8(sample("video.xml")).unwrap();
        let mut open = Vec::new();
        for tag in document.split('<').skip(2).map(|rest| rest.split_once('>').unwrap().0) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None => open.push(tag),
            }
        }
        assert!(open.is_empty() && document.matches("<record>").count() == 20);
        let wav = sample("call-recording.wav");
        assert_eq!(wav.len(), 44 + 16_000);
        assert_eq!((&wav[..4], &wav[8..16], &wav[36..40]), (&b"RIFF"[..], &b"WAVEfmt "[..], &b"data"[..]));
        let (low, high) = (wav[44..].iter().min().unwrap(), wav[44..].iter().max().unwrap());
        assert!((1..50).contains(low) && (200..255).contains(high), "{low} to {high}");
    }

    #[test]
    fn mixed_records_are_at_home_where_the_list_says() {
        let homes: HashMap<(String, String), String> = rows("homes.csv")
            .iter()
            .skip(1)
            .map(|row| ((row[0].to_owned(), row[1].to_owned()), row[2].to_owned()))
            .collect();
        assert_eq!(homes.len(), 12 * RecordType::ALL.len());
        let mixed = rows("mixed.csv");
        assert_eq!(mixed.len(), 181);
        let column = |column: usize| mixed[1..].iter().map(|row| &row[column]).collect::<HashSet<_>>().len();
        assert_eq!((column(0), column(1), column(2)), (15, 12, 6));
        assert!(mixed[1..].iter().all(|row| homes[&(row[1].to_owned(), row[0].to_owned())] == row[2]));
    }
}

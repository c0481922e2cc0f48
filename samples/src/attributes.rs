//! What a record of each type says beside what every record says, and the tables it is drawn from.
//!
//! A record's attributes are two halves, drawn apart: how it went (the outcome, which agrees with the
//! record's status and cost) and everything else (the details). A few hundred of each make tens of
//! thousands of different records, and still fit into a processor's cache.

use std::fmt;

use crate::draw::{Draw, STEP};
use crate::scope::RecordType;

/// Outcomes of each type.
pub(crate) const OUTCOMES: u32 = 64;
/// Details of each type.
pub(crate) const DETAILS: u32 = 256;
/// Durations and costs of each type.
pub(crate) const CHARGES: u32 = 512;
/// How many of the [`CHARGES`] are for something; the others are those of records that came to nothing.
pub(crate) const CHARGES_OF_SOMETHING: u32 = 480;

/// The statuses there are, in the order of their numbers.
pub(crate) const STATUSES: [&str; 14] = [
    "completed",
    "busy",
    "no-answer",
    "canceled",
    "failed",
    "sent",
    "delivered",
    "read",
    "undelivered",
    "delivery_unconfirmed",
    "accepted",
    "expired",
    "invalid",
    "partial",
];

/// The value of an attribute.
#[derive(Clone)]
pub(crate) enum Value {
    Text(String),
    Integer(u64),
    /// A number of hundredths.
    Hundredths(u32),
    Flag(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Hundredths(number) => write!(f, "{}.{:02}", number / 100, number % 100),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Attributes in order; no name occurs twice in a record.
pub(crate) type Attributes = Vec<(&'static str, Value)>;

/// How a record went.
pub(crate) struct Outcome {
    pub(crate) status: &'static str,
    pub(crate) attributes: Attributes,
}

impl Outcome {
    /// Whether the record came to something: took its time and costs its money.
    pub(crate) fn is_charged(&self) -> bool {
        !matches!(
            self.status,
            "busy" | "no-answer" | "canceled" | "failed" | "undelivered" | "invalid" | "expired"
        )
    }
}

/// How long a record took, and what it costs in millionths of the currency.
#[derive(Clone, Copy)]
pub(crate) struct Charge {
    pub(crate) duration_ms: u32,
    pub(crate) cost_millionths: u32,
}

/// What the records of one type are drawn from.
pub(crate) struct Pool {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) details: Vec<Attributes>,
    pub(crate) charges: Vec<Charge>,
}

impl Pool {
    /// The pool of a type: always the same for the same seed.
    pub(crate) fn new(record_type: RecordType, seed: u64, line_breaks: bool) -> Self {
        let draw = |purpose: u64| Draw::new(seed ^ STEP.wrapping_mul(record_type as u64 * 4 + purpose));
        let (mut outcome_draw, mut detail_draw, mut charge_draw) = (draw(1), draw(2), draw(3));
        Self {
            outcomes: (0..OUTCOMES).map(|number| outcome(record_type, number, &mut outcome_draw)).collect(),
            details: (0..DETAILS)
                .map(|number| {
                    let mut attributes = details(record_type, &mut detail_draw, line_breaks);
                    let note = if line_breaks && number % 4 == 3 { &NOTES_WITH_BREAKS[..] } else { &NOTES };
                    if number % 8 >= 7 || line_breaks && number % 4 == 3 {
                        attributes.push(("note", text(detail_draw.one_of(note))));
                    }
                    attributes
                })
                .collect(),
            charges: (0..CHARGES).map(|number| charge(record_type, number, &mut charge_draw)).collect(),
        }
    }
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn count(number: u32) -> Value {
    Value::Integer(u64::from(number))
}

fn digits(digits: &str) -> Value {
    Value::Integer(digits.parse().unwrap_or_default())
}

/// How calls and things that work like calls end: status, cause and SIP code. Two in sixteen come to nothing
/// in the usual ways, one in an unusual one.
const CALL_ENDS: [(&str, &str, u32); 16] = [
    ("completed", "normal_clearing", 200),
    ("completed", "normal_clearing", 200),
    ("no-answer", "no_answer", 480),
    ("completed", "normal_clearing", 200),
    ("completed", "normal_clearing", 200),
    ("completed", "media_timeout", 200),
    ("completed", "normal_clearing", 200),
    ("busy", "user_busy", 486),
    ("completed", "normal_clearing", 200),
    ("completed", "normal_clearing", 200),
    ("canceled", "originator_cancel", 487),
    ("completed", "normal_clearing", 200),
    ("completed", "normal_clearing", 200),
    ("completed", "normal_clearing", 200),
    ("failed", "no_route_to_destination", 404),
    ("completed", "normal_clearing", 200),
];

/// What becomes of messages, and the error code that receipts give.
const MESSAGE_ENDS: [(&str, u32); 16] = [
    ("delivered", 0),
    ("delivered", 0),
    ("delivered", 0),
    ("delivered", 0),
    ("sent", 0),
    ("delivered", 0),
    ("delivered", 0),
    ("undelivered", 27),
    ("delivered", 0),
    ("delivered", 0),
    ("delivery_unconfirmed", 0),
    ("delivered", 0),
    ("delivered", 0),
    ("delivered", 0),
    ("failed", 69),
    ("delivered", 0),
];

fn row<T: Copy>(rows: &[T; 16], number: u32) -> T {
    let [first, ..] = *rows;
    rows.get(number as usize % 16).copied().unwrap_or(first)
}

/// Outcome `number` of a type.
fn outcome(record_type: RecordType, number: u32, draw: &mut Draw) -> Outcome {
    use RecordType as T;
    let (call_status, cause, sip_code) = row(&CALL_ENDS, number);
    let (message_status, error) = row(&MESSAGE_ENDS, number);
    // Most things that are neither calls nor messages either work or do not.
    let done = if number % 16 == 14 { "failed" } else { "completed" };
    let (status, attributes) = match record_type {
        T::Voice => (call_status, vec![("hangup_cause", text(cause)), ("sip_code", count(sip_code))]),
        T::CallControl => (
            call_status,
            vec![
                (
                    "last_event",
                    text(if call_status == "completed" { "call.hangup" } else { "call.initiated" }),
                ),
                ("hangup_cause", text(cause)),
                ("webhook_status", count(if number % 16 == 5 { 504 } else { 200 })),
                ("webhook_ms", count(draw.between(9, 700))),
            ],
        ),
        T::CallRecording => (
            if number % 16 == 5 { "partial" } else { done },
            vec![
                ("channels", text(draw.one_of(&["single", "dual"]))),
                ("started_by", text(draw.one_of(&["api", "connection", "operator"]))),
                ("trimmed", Value::Flag(draw.coin())),
            ],
        ),
        T::Webrtc => (
            call_status,
            vec![
                ("hangup_cause", text(cause)),
                ("ice", text(draw.one_of(&["host", "srflx", "relay"]))),
                ("reconnects", count(draw.between(0, 3))),
            ],
        ),
        T::Fax => (
            call_status,
            vec![
                ("result", text(if call_status == "completed" { "ok" } else { cause })),
                ("pages", count(if call_status == "completed" { draw.between(1, 30) } else { 0 })),
                ("t38", Value::Flag(draw.coin())),
            ],
        ),
        T::Messaging => (
            message_status,
            vec![
                ("error", text(format!("{error:03}"))),
                ("mcc", text("001")),
                ("mnc", text("01")),
                ("hops", count(draw.between(1, 4))),
            ],
        ),
        T::Whatsapp => (
            if number.is_multiple_of(2) && message_status == "delivered" { "read" } else { message_status },
            vec![
                ("category", text(draw.one_of(&["utility", "marketing", "authentication", "service"]))),
                ("billable", Value::Flag(!number.is_multiple_of(5))),
            ],
        ),
        T::Conference => (
            done,
            vec![
                ("ended_by", text(draw.one_of(&["last_participant", "moderator", "api"]))),
                ("recorded", Value::Flag(draw.coin())),
            ],
        ),
        T::Forking => (
            if number % 16 == 9 { "partial" } else { done },
            vec![
                ("track", text(draw.one_of(&["inbound", "outbound", "both"]))),
                ("dropped", count(if number % 16 == 9 { draw.between(10, 900) } else { 0 })),
            ],
        ),
        T::MediaStorage => (
            done,
            vec![
                ("operation", text(draw.one_of(&["put", "put", "get", "head", "delete"]))),
                ("http_status", count(if done == "failed" { 503 } else { 200 })),
            ],
        ),
        T::PremiumAmd => (
            done,
            vec![
                (
                    "result",
                    text(if done == "failed" {
                        "not_sure"
                    } else {
                        draw.one_of(&[
                            "human_residence",
                            "human_business",
                            "machine",
                            "silence",
                            "fax_detected",
                        ])
                    }),
                ),
                ("confidence", Value::Hundredths(draw.between(41, 101))),
                ("beep", Value::Flag(draw.coin())),
            ],
        ),
        T::SpeechToText => (
            if number % 16 == 3 { "partial" } else { done },
            vec![
                ("confidence", Value::Hundredths(draw.between(52, 100))),
                ("redacted", Value::Flag(draw.coin())),
                ("final", Value::Flag(number % 16 != 3)),
            ],
        ),
        T::Verify => {
            let (status, result) = match number % 16 {
                2 | 9 => ("expired", "no_response"),
                6 => ("invalid", "wrong_code"),
                14 => ("failed", "unreachable"),
                _ => ("accepted", "right_code"),
            };
            (status, vec![("result", text(result)), ("attempts", count(draw.between(1, 4)))])
        }
        T::Video => (
            done,
            vec![
                ("recorded", Value::Flag(draw.coin())),
                ("layout", text(draw.one_of(&["grid", "speaker", "none"]))),
            ],
        ),
        T::Wireless => (
            done,
            vec![
                ("rat", text(draw.one_of(&["LTE", "LTE-M", "NB-IoT", "NR"]))),
                ("closed_by", text(draw.one_of(&["device", "idle_timer", "volume_limit", "handover"]))),
            ],
        ),
    };
    Outcome { status, attributes }
}

/// The beginnings of messages; those that the GSM alphabet cannot express are marked.
const MESSAGES: [(&str, bool); 12] = [
    ("Code 830-217 is valid for ten minutes", false),
    ("Your table is booked: 19:30, window side", false),
    ("Zählerstand bitte bis Freitag melden; danke", false),
    ("Votre colis arrive demain, entre 9 h et 11 h", false),
    ("Paket \"klein\" liegt beim Empfang", false),
    ("Pickup moved to gate B12 [north side]", false),
    ("Ваш заказ готов", true),
    ("ご予約を承りました", true),
    ("On my way 🚲", true),
    ("Text STOP to end, HELP for help", false),
    ("Saved as D:\\scans\\page-7.tif", false),
    ("x=1;y=2, \"z\"=3", false),
];

const MESSAGES_WITH_BREAKS: [(&str, bool); 5] = [
    ("Today:\n1. doors, 9:00\n2. sound check", false),
    ("Dear guest,\r\nthe pool opens at 7.\r\n\r\nThe \"Lagoon\" team", false),
    ("買い物\n牛乳\nパン", true),
    ("\nStarts on a line of its own", false),
    // A trap for whoever takes a line for a record.
    ("Forwarded:\nvoice,t-000009,us-east-1,\"not a record\"", false),
];

/// What customers write on their records, seldom.
const NOTES: [&str; 5] =
    ["front desk, 2nd floor", "Büro Süd", "tagged \"priority\"", "migrated; see ticket 1042", "pilote nº 3"];

const NOTES_WITH_BREAKS: [&str; 3] =
    ["asked twice\nfor \"the blue one\"", "first line\r\nsecond line, with comma", "ends with a break\n"];

/// Further attributes of a record of a type.
fn details(record_type: RecordType, draw: &mut Draw, line_breaks: bool) -> Attributes {
    use RecordType as T;
    let network = draw.one_of(&["192.0.2", "198.51.100", "203.0.113"]);
    let address = format!("{network}.{}", draw.between(1, 255));
    let hexadecimal = |draw: &mut Draw, digits: usize| {
        let mut text = format!("{:016x}{:016x}", draw.word(), draw.word());
        text.truncate(digits);
        text
    };
    match record_type {
        T::Voice => vec![
            ("codec", text(draw.one_of(&["PCMU", "PCMA", "G722", "OPUS", "AMR-WB"]))),
            ("pdd_ms", count(draw.between(90, 3600))),
            ("mos", Value::Hundredths(draw.between(310, 451))),
            ("attestation", text(draw.one_of(&["A", "A", "B", "C"]))),
            ("media_ip", text(address)),
        ],
        T::CallControl => vec![
            ("application", text(format!("app-{:04}", draw.between(1, 10_000)))),
            (
                "commands",
                text(draw.one_of(&["answer,speak", "answer,gather,hangup", "dial,bridge", "answer,record"])),
            ),
            ("events", count(draw.between(2, 48))),
            ("client_state", text(hexadecimal(draw, 16))),
        ],
        T::CallRecording => {
            let format = draw.one_of(&["wav", "mp3"]);
            vec![
                ("format", text(format)),
                ("bytes", count(draw.between(16_000, 48_000_000))),
                ("object", text(format!("recordings/{}.{format}", hexadecimal(draw, 20)))),
                ("sha256", text(hexadecimal(draw, 32) + &hexadecimal(draw, 32))),
                ("retention_days", digits(draw.one_of(&["30", "90", "180", "400"]))),
            ]
        }
        T::Webrtc => vec![
            (
                "client",
                text(draw.one_of(&["browser/126", "browser/127.1", "sdk-android/2.4", "sdk-ios/2.4"])),
            ),
            ("codec", text("opus/48000/2")),
            ("rtt_ms", count(draw.between(5, 380))),
            ("jitter_ms", Value::Hundredths(draw.between(10, 3900))),
            ("packets_lost", count(draw.between(0, 400))),
            ("client_ip", text(address)),
            ("turn", text(draw.one_of(&["turn-1.example.net", "turn-2.example.net"]))),
        ],
        T::Fax => vec![
            ("resolution", text(draw.one_of(&["204x98", "204x196", "204x391"]))),
            ("baud", digits(draw.one_of(&["9600", "14400", "33600"]))),
            ("ecm", Value::Flag(draw.coin())),
            ("station", text(format!("FAX {:03}", draw.between(1, 1000)))),
        ],
        T::Messaging => {
            let all = MESSAGES.iter().chain(if line_breaks { &MESSAGES_WITH_BREAKS[..] } else { &[] });
            let all: Vec<_> = all.copied().collect();
            let names: Vec<_> = all.iter().map(|&(message, _)| message).collect();
            let message = draw.one_of(&names);
            let wide = all.iter().any(|&(name, wide)| name == message && wide);
            vec![
                ("kind", text(draw.one_of(&["SMS", "SMS", "SMS", "MMS"]))),
                ("parts", count(draw.between(1, 4))),
                ("encoding", text(if wide { "UCS-2" } else { "GSM-7" })),
                ("begins", text(message)),
            ]
        }
        T::Whatsapp => vec![
            ("template", text(draw.one_of(&["order_ready_v2", "one_time_code", "hello", "survey_short"]))),
            ("conversation", text(hexadecimal(draw, 24))),
            ("account", text(format!("wa-{:05}", draw.between(1, 100_000)))),
            ("language", text(draw.one_of(&["de", "en_US", "fr", "en_GB", "es"]))),
        ],
        T::Conference => {
            let peak = draw.between(2, 60);
            vec![
                ("room", text(format!("room-{:05}", draw.between(1, 100_000)))),
                ("participants", count(peak + draw.between(0, 12))),
                ("peak", count(peak)),
                ("muted", count(draw.between(0, peak))),
                (
                    "mixer",
                    text(draw.one_of(&["mix-1.example.net", "mix-2.example.net", "mix-3.example.net"])),
                ),
            ]
        }
        T::Forking => vec![
            ("target", text(format!("wss://fork-{}.example.com/media", draw.between(1, 10)))),
            ("codec", text(draw.one_of(&["PCMU", "L16", "OPUS"]))),
            ("packets", count(draw.between(50, 500_000))),
            ("bytes", count(draw.between(8_000, 80_000_000))),
        ],
        T::MediaStorage => {
            let (ending, content_type) = match draw.between(0, 5) {
                0 => ("jpg", "image/jpeg"),
                1 => ("pdf", "application/pdf"),
                2 => ("mp4", "video/mp4"),
                3 => ("amr", "audio/amr"),
                _ => ("vcf", "text/vcard"),
            };
            vec![
                ("object", text(format!("media/{}.{ending}", hexadecimal(draw, 24)))),
                ("content_type", text(content_type)),
                ("bytes", count(draw.between(120, 16_000_000))),
                ("etag", text(format!("\"{}\"", hexadecimal(draw, 32)))),
            ]
        }
        T::PremiumAmd => vec![
            ("model", text(draw.one_of(&["amd-3", "amd-4"]))),
            ("detection_ms", count(draw.between(240, 8500))),
            ("greeting_ms", count(draw.between(0, 28_000))),
        ],
        T::SpeechToText => vec![
            ("engine", text(draw.one_of(&["small", "large"]))),
            ("language", text(draw.one_of(&["en-US", "de-DE", "fr-FR", "en-GB", "ja-JP", "es-ES"]))),
            ("words", count(draw.between(0, 3800))),
            ("speakers", count(draw.between(1, 5))),
            (
                "begins",
                text(draw.one_of(&[
                    "thank you for calling, how can I",
                    "guten Tag, was kann ich für Sie tun",
                    "bonjour, je vous écoute",
                    "she said \"after lunch\", so",
                    "もしもし",
                    "uh; hello?",
                ])),
            ),
        ],
        T::Verify => vec![
            ("channel", text(draw.one_of(&["sms", "call", "whatsapp", "flashcall"]))),
            ("profile", text(format!("profile-{:04}", draw.between(1, 10_000)))),
            ("code_length", digits(draw.one_of(&["4", "5", "6", "8"]))),
            ("timeout_s", digits(draw.one_of(&["60", "120", "300"]))),
        ],
        T::Video => vec![
            ("room", text(format!("video-{:06}", draw.between(1, 1_000_000)))),
            ("participants", count(draw.between(1, 26))),
            ("codec", text(draw.one_of(&["VP8", "VP9", "AV1", "H264"]))),
            ("resolution", text(draw.one_of(&["640x360", "1280x720", "1920x1080"]))),
            ("kbps", count(draw.between(180, 5600))),
        ],
        T::Wireless => vec![
            // Test network 001-01.
            ("imsi", text(format!("00101{:010}", draw.word() % 10_000_000_000))),
            ("apn", text(draw.one_of(&["iot.example.com", "internet.example.net"]))),
            ("bytes_up", count(draw.between(60, 20_000_000))),
            ("bytes_down", count(draw.between(60, 400_000_000))),
            ("cell", text(format!("001-01-{}-{}", hexadecimal(draw, 5), hexadecimal(draw, 2)))),
            ("ip", text(address)),
        ],
    }
}

/// Charge `number` of a type.
fn charge(record_type: RecordType, number: u32, draw: &mut Draw) -> Charge {
    use RecordType as T;
    if number >= CHARGES_OF_SOMETHING {
        return Charge { duration_ms: draw.between(90, 31_000), cost_millionths: 0 };
    }
    // The middle of all durations, what any record costs, and what a minute costs.
    let (middle_ms, base, minute) = match record_type {
        T::Voice => (95_000, 0, 7_000),
        T::CallControl => (70_000, 0, 2_000),
        T::CallRecording => (120_000, 0, 2_000),
        T::Webrtc => (240_000, 0, 2_000),
        T::Fax => (75_000, 0, 7_000),
        T::Messaging => (3_000, 4_000, 0),
        T::Whatsapp => (4_000, 9_500, 0),
        T::Conference => (1_500_000, 0, 2_000),
        T::Forking => (180_000, 0, 1_500),
        T::MediaStorage => (200, 15, 0),
        T::PremiumAmd => (4_000, 6_500, 0),
        T::SpeechToText => (110_000, 0, 25_000),
        T::Verify => (25_000, 30_000, 0),
        T::Video => (1_600_000, 0, 2_200),
        T::Wireless => (900_000, 0, 120),
    };
    let duration_ms =
        u32::try_from(draw.around(middle_ms)).unwrap_or(DURATION_MS_MAX).clamp(1, DURATION_MS_MAX);
    // By six seconds begun.
    let cost_millionths = base + duration_ms.div_ceil(6_000) * minute / 10;
    Charge { duration_ms, cost_millionths }
}

/// Four hours.
pub(crate) const DURATION_MS_MAX: u32 = 14_400_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_type_has_attributes_of_its_own_and_no_name_twice() {
        let mut kinds = HashSet::new();
        for &record_type in RecordType::ALL {
            let pool = Pool::new(record_type, 1, true);
            let names =
                |attributes: &Attributes| attributes.iter().map(|&(name, _)| name).collect::<Vec<_>>();
            for outcome in &pool.outcomes {
                for details in &pool.details {
                    let mut all = names(&outcome.attributes);
                    all.extend(names(details));
                    let distinct: HashSet<_> = all.iter().chain(crate::format::COLUMNS).collect();
                    assert_eq!(
                        distinct.len(),
                        all.len() + crate::format::COLUMNS.len(),
                        "{record_type}: {all:?}"
                    );
                }
            }
            assert!(kinds.insert(names(&pool.details[0])), "{record_type}");
        }
    }

    #[test]
    fn statuses_are_known_and_what_came_to_nothing_costs_nothing() {
        for &record_type in RecordType::ALL {
            let pool = Pool::new(record_type, 1, false);
            assert!(pool.outcomes.iter().all(|outcome| STATUSES.contains(&outcome.status)), "{record_type}");
            let charged = pool.outcomes.iter().filter(|outcome| outcome.is_charged()).count();
            assert!(
                (pool.outcomes.len() / 2..pool.outcomes.len()).contains(&charged),
                "{record_type}: {charged}"
            );
            let (something, nothing) = pool.charges.split_at(CHARGES_OF_SOMETHING as usize);
            assert!(something.iter().all(|charge| charge.cost_millionths > 0), "{record_type}");
            assert!(nothing.iter().all(|charge| charge.cost_millionths == 0), "{record_type}");
        }
    }

    #[test]
    fn line_breaks_come_only_when_asked_for() {
        for &record_type in RecordType::ALL {
            for line_breaks in [false, true] {
                let pool = Pool::new(record_type, 1, line_breaks);
                let has_breaks = pool.details.iter().flatten().any(|(_, value)| match value {
                    Value::Text(text) => text.contains('\n'),
                    _ => false,
                });
                assert_eq!(has_breaks, line_breaks, "{record_type}");
            }
        }
    }
}

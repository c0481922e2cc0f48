//! Records as octets: one function for each format, and the tables that all of them copy from.

use crate::attributes::{Attributes, Charge, DETAILS, OUTCOMES, Pool, STATUSES, Value};
use crate::ber;
use crate::generator::Draft;
use crate::moment::{Calendar, Digits};
use crate::number::{Number, Numbers};
use crate::options::Options;
use crate::page::{PAGE_OCTETS, Page, Texts, hexadecimal};
use crate::scope::{RecordType, Region, Scope};

/// Everything that records are put together from.
pub(crate) struct Tables {
    pub(crate) numbers: Numbers,
    digits: Digits,
    type_names: Texts,
    region_names: Texts,
    directions: Texts,
    statuses: Texts,
    pools: Vec<Pool>,
    /// By outcome: the number of its status, and whether there is a charge.
    outcomes: Vec<(u8, bool)>,
    /// By charge.
    charges: Vec<Charge>,
    durations: Texts,
    costs: Texts,
    csv: Halves,
    json: Halves,
    log: Halves,
    plain: Halves,
}

/// Attributes as text, by outcome and by details: one after the other they are a record's.
struct Halves {
    outcomes: Texts,
    details: Texts,
}

impl Tables {
    pub(crate) fn new(options: &Options) -> Self {
        let pools: Vec<Pool> = RecordType::ALL
            .iter()
            .map(|&record_type| Pool::new(record_type, options.seed, options.line_breaks))
            .collect();
        let status_number = |status| STATUSES.iter().position(|&known| known == status).unwrap_or_default();
        let outcomes = pools.iter().flat_map(|pool| &pool.outcomes);
        let charges: Vec<Charge> = pools.iter().flat_map(|pool| pool.charges.iter().copied()).collect();
        Self {
            numbers: Numbers::new(),
            digits: Digits::new(),
            type_names: RecordType::ALL.iter().map(|record_type| record_type.as_str()).collect(),
            region_names: Region::ALL.iter().map(|region| region.as_str()).collect(),
            directions: ["inbound", "outbound"].iter().collect(),
            statuses: STATUSES.iter().collect(),
            outcomes: outcomes
                .map(|outcome| {
                    (u8::try_from(status_number(outcome.status)).unwrap_or_default(), outcome.is_charged())
                })
                .collect(),
            durations: charges.iter().map(|charge| charge.duration_ms.to_string()).collect(),
            costs: charges.iter().map(|charge| cost_text(charge.cost_millionths)).collect(),
            charges,
            csv: Halves::new(&pools, csv_attribute, ";"),
            json: Halves::new(&pools, json_attribute, ","),
            log: Halves::new(&pools, log_attribute, " "),
            plain: Halves::new(&pools, plain_attribute, ";"),
            pools,
        }
    }

    /// Whether an outcome takes its time and costs its money.
    #[inline]
    pub(crate) fn is_charged(&self, outcome: usize) -> bool {
        self.outcomes.get(outcome).is_some_and(|&(_, charged)| charged)
    }

    /// A row of CSV.
    #[inline(always)]
    pub(crate) fn csv(&self, draft: &Draft, calendar: &Calendar, page: &mut Page<'_>) {
        page.text::<16>(&self.type_names, draft.scope.record_type as usize);
        page.literal(b",");
        self.tenant(draft, page);
        page.literal(b",");
        page.text::<16>(&self.region_names, draft.scope.region as usize);
        page.literal(b",");
        page.uuid(draft.id);
        page.literal(b",");
        page.literal(&hexadecimal(draft.session));
        page.literal(b",");
        calendar.write(&self.digits, draft.start_ms, page);
        page.literal(b",");
        calendar.write(&self.digits, draft.start_ms + self.duration_ms(draft), page);
        page.literal(b",");
        page.text::<8>(&self.durations, draft.charge);
        page.literal(b",");
        page.text::<8>(&self.directions, usize::from(draft.outbound));
        page.literal(b",");
        self.numbers.write(draft.from, &self.digits, page);
        page.literal(b",");
        self.numbers.write(draft.to, &self.digits, page);
        page.literal(b",");
        page.text::<32>(&self.statuses, self.status(draft));
        page.literal(b",");
        page.text::<8>(&self.costs, draft.charge);
        page.literal(b",USD,\"");
        page.text::<128>(&self.csv.outcomes, draft.outcome);
        page.text::<192>(&self.csv.details, draft.details);
        page.literal(b"\"\n");
    }

    /// A JSON object and the end of its line.
    #[inline(always)]
    pub(crate) fn json_line(&self, draft: &Draft, calendar: &Calendar, page: &mut Page<'_>) {
        page.literal(b"{\"record_type\":\"");
        self.json(draft, calendar, page);
        page.literal(b"}\n");
    }

    /// A JSON object as it stands in an array.
    #[inline(always)]
    pub(crate) fn json_element(&self, draft: &Draft, calendar: &Calendar, page: &mut Page<'_>) {
        page.literal(b"  {\"record_type\":\"");
        self.json(draft, calendar, page);
        page.literal(b"}");
    }

    #[inline(always)]
    fn json(&self, draft: &Draft, calendar: &Calendar, page: &mut Page<'_>) {
        page.text::<16>(&self.type_names, draft.scope.record_type as usize);
        page.literal(b"\",\"tenant\":\"");
        self.tenant(draft, page);
        page.literal(b"\",\"region\":\"");
        page.text::<16>(&self.region_names, draft.scope.region as usize);
        page.literal(b"\",\"record_id\":\"");
        page.uuid(draft.id);
        page.literal(b"\",\"session_id\":\"");
        page.literal(&hexadecimal(draft.session));
        page.literal(b"\",\"start_time\":\"");
        calendar.write(&self.digits, draft.start_ms, page);
        page.literal(b"\",\"end_time\":\"");
        calendar.write(&self.digits, draft.start_ms + self.duration_ms(draft), page);
        page.literal(b"\",\"duration_ms\":");
        page.text::<8>(&self.durations, draft.charge);
        page.literal(b",\"direction\":\"");
        page.text::<8>(&self.directions, usize::from(draft.outbound));
        page.literal(b"\",\"from\":\"");
        self.numbers.write(draft.from, &self.digits, page);
        page.literal(b"\",\"to\":\"");
        self.numbers.write(draft.to, &self.digits, page);
        page.literal(b"\",\"status\":\"");
        page.text::<32>(&self.statuses, self.status(draft));
        page.literal(b"\",\"cost\":\"");
        page.text::<8>(&self.costs, draft.charge);
        page.literal(b"\",\"currency\":\"USD\",");
        page.text::<128>(&self.json.outcomes, draft.outcome);
        page.text::<192>(&self.json.details, draft.details);
    }

    /// A line of a gateway's access log:
    /// time, host, scope, ids, who with whom, what became of it, and the attributes.
    #[inline(always)]
    pub(crate) fn log_line(&self, draft: &Draft, calendar: &Calendar, page: &mut Page<'_>) {
        calendar.write(&self.digits, draft.start_ms, page);
        page.literal(b" gw.");
        page.text::<16>(&self.region_names, draft.scope.region as usize);
        page.literal(b".example.net ");
        page.text::<16>(&self.type_names, draft.scope.record_type as usize);
        page.literal(b" ");
        self.tenant(draft, page);
        page.literal(b" [");
        page.uuid(draft.id);
        page.literal(b"] [");
        page.literal(&hexadecimal(draft.session));
        page.literal(b"] [");
        page.text::<8>(&self.directions, usize::from(draft.outbound));
        page.literal(b" ");
        self.numbers.write(draft.from, &self.digits, page);
        page.literal(b" > ");
        self.numbers.write(draft.to, &self.digits, page);
        page.literal(b"] ");
        page.text::<32>(&self.statuses, self.status(draft));
        page.literal(b" ");
        page.text::<8>(&self.durations, draft.charge);
        page.literal(b"ms ");
        page.text::<8>(&self.costs, draft.charge);
        page.literal(b"USD ");
        page.text::<128>(&self.log.outcomes, draft.outcome);
        page.text::<192>(&self.log.details, draft.details);
        page.literal(b"\n");
    }

    /// A binary record after its length; the crate's documentation has the layout.
    #[inline(always)]
    pub(crate) fn length_prefixed(&self, draft: &Draft, _: &Calendar, page: &mut Page<'_>) {
        let charge = self.charges.get(draft.charge);
        let start = page.as_bytes().len();
        page.literal(&[0; 4]);
        page.literal(&[1, draft.scope.record_type as u8, draft.scope.region as u8, u8::from(draft.outbound)]);
        page.literal(&draft.scope.tenant.number().to_be_bytes());
        page.literal(&draft.id[0].to_be_bytes());
        page.literal(&draft.id[1].to_be_bytes());
        page.literal(&draft.session.to_be_bytes());
        page.literal(&draft.start_ms.to_be_bytes());
        page.literal(&charge.map_or(0, |charge| charge.duration_ms).to_be_bytes());
        page.literal(&charge.map_or(0, |charge| charge.cost_millionths).to_be_bytes());
        page.literal(&self.outcomes.get(draft.outcome).map_or(0, |&(status, _)| status).to_be_bytes());
        for number in [draft.from, draft.to] {
            page.literal(&self.numbers.length(number).to_be_bytes());
            self.numbers.write(number, &self.digits, page);
        }
        let attributes = self.plain.outcomes.length(draft.outcome) + self.plain.details.length(draft.details);
        page.literal(&u16::try_from(attributes).unwrap_or_default().to_be_bytes());
        page.text::<128>(&self.plain.outcomes, draft.outcome);
        page.text::<192>(&self.plain.details, draft.details);
        let length = page.as_bytes().len() - start - 4;
        page.patch(start, u32::try_from(length).unwrap_or_default().to_be_bytes());
    }

    /// A value of BER.
    pub(crate) fn ber(&self, draft: &Draft, _: &Calendar, page: &mut Page<'_>) {
        page.slice(&self.ber_record(draft));
    }

    /// A value of BER behind the header that it has in a file of TS 32.297.
    pub(crate) fn ts32297(&self, draft: &Draft, _: &Calendar, page: &mut Page<'_>) {
        let record = self.ber_record(draft);
        page.slice(&ber::record_header(draft, &record));
        page.slice(&record);
    }

    fn ber_record(&self, draft: &Draft) -> Vec<u8> {
        let Scope { tenant, record_type, region } = draft.scope;
        let mut text = format!("tenant={tenant};region={region};type={record_type};").into_bytes();
        text.extend_from_slice(self.plain.outcomes.exactly(draft.outcome));
        text.extend_from_slice(self.plain.details.exactly(draft.details));
        let fields = ber::Fields {
            from: self.numbers.text(draft.from),
            to: self.numbers.text(draft.to),
            duration_ms: self.duration_ms(draft),
            text,
        };
        ber::record(draft, &fields)
    }

    /// Everything that a record says, in the order of the columns and then of the attributes.
    pub(crate) fn members(&self, draft: &Draft, calendar: &Calendar) -> Vec<(&'static str, Value)> {
        let written = |write: &dyn Fn(&mut Page<'_>)| {
            let mut octets = [0; PAGE_OCTETS];
            let mut page = Page::new(&mut octets);
            write(&mut page);
            Value::Text(String::from_utf8_lossy(page.as_bytes()).into_owned())
        };
        let time = |millis: u64| written(&|page| calendar.write(&self.digits, millis, page));
        let number = |number: Number| written(&|page| self.numbers.write(number, &self.digits, page));
        let text = |text: &str| Value::Text(text.to_owned());
        let [first_half, second_half] = draft.id;
        let id = format!("{first_half:016x}{second_half:016x}");
        let groups: Vec<&str> =
            [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|at| id.get(at)).collect();
        let cost = self.charges.get(draft.charge).map_or(0, |charge| charge.cost_millionths);
        let mut members = vec![
            ("record_type", text(draft.scope.record_type.as_str())),
            ("tenant", Value::Text(draft.scope.tenant.to_string())),
            ("region", text(draft.scope.region.as_str())),
            ("record_id", Value::Text(groups.join("-"))),
            ("session_id", Value::Text(format!("{:016x}", draft.session))),
            ("start_time", time(draft.start_ms)),
            ("end_time", time(draft.start_ms + self.duration_ms(draft))),
            ("duration_ms", Value::Integer(self.duration_ms(draft))),
            ("direction", text(if draft.outbound { "outbound" } else { "inbound" })),
            ("from", number(draft.from)),
            ("to", number(draft.to)),
            ("status", text(STATUSES.get(self.status(draft)).copied().unwrap_or_default())),
            ("cost", Value::Text(cost_text(cost))),
            ("currency", text("USD")),
        ];
        if let Some(pool) = self.pools.get(draft.scope.record_type as usize) {
            let outcome =
                pool.outcomes.get(draft.outcome % OUTCOMES as usize).map(|outcome| &outcome.attributes);
            let details = pool.details.get(draft.details % DETAILS as usize);
            members.extend([outcome, details].into_iter().flatten().flatten().cloned());
        }
        members
    }

    /// `t-000001`
    #[inline(always)]
    fn tenant(&self, draft: &Draft, page: &mut Page<'_>) {
        let number = draft.scope.tenant.number();
        let (thousands, ones) = (self.digits.three(number / 1000), self.digits.three(number % 1000));
        let text =
            u64::from(b't') << 56 | u64::from(b'-') << 48 | u64::from(thousands) << 24 | u64::from(ones);
        page.literal(&text.to_be_bytes());
    }

    #[inline]
    fn status(&self, draft: &Draft) -> usize {
        self.outcomes.get(draft.outcome).map_or(0, |&(status, _)| usize::from(status))
    }

    #[inline]
    fn duration_ms(&self, draft: &Draft) -> u64 {
        self.charges.get(draft.charge).map_or(0, |charge| u64::from(charge.duration_ms))
    }
}

impl Halves {
    fn new(pools: &[Pool], attribute: fn(&str, &Value) -> String, joint: &str) -> Self {
        let joined = |attributes: &Attributes| {
            let all: Vec<String> = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
            all.join(joint)
        };
        let outcomes = pools.iter().flat_map(|pool| &pool.outcomes);
        Self {
            outcomes: outcomes.map(|outcome| joined(&outcome.attributes) + joint).collect(),
            details: pools.iter().flat_map(|pool| &pool.details).map(joined).collect(),
        }
    }
}

fn cost_text(millionths: u32) -> String {
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn plain_attribute(name: &str, value: &Value) -> String {
    format!("{name}={value}")
}

/// As it stands inside a quoted field, where a quote is doubled.
fn csv_attribute(name: &str, value: &Value) -> String {
    plain_attribute(name, value).replace('"', "\"\"")
}

fn json_attribute(name: &str, value: &Value) -> String {
    format!("\"{name}\":{}", json_value(value))
}

/// A value as JSON. Only quotes, backslashes and line breaks need an escape: no text has other controls.
pub(crate) fn json_value(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("\"{}\"", without_line_breaks(text).replace('"', "\\\"")),
        other => other.to_string(),
    }
}

fn log_attribute(name: &str, value: &Value) -> String {
    format!("[{}]", without_line_breaks(&plain_attribute(name, value)))
}

/// With backslashes and line breaks as escapes.
fn without_line_breaks(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::RECORD_OCTETS_MAX;

    #[test]
    fn the_longest_record_fits_three_times() {
        let tables = Tables::new(&Options { line_breaks: true, ..Options::default() });
        for halves in [&tables.csv, &tables.json, &tables.log, &tables.plain] {
            let longest = |texts: &Texts, count: u32| {
                (0..count as usize * RecordType::ALL.len()).map(|index| texts.length(index)).max().unwrap()
            };
            // All that is no attribute has less than 600 octets, JSON's names included.
            let attributes = longest(&halves.outcomes, OUTCOMES) + longest(&halves.details, DETAILS);
            assert!(600 + attributes < RECORD_OCTETS_MAX / 3, "{attributes}");
        }
    }
}

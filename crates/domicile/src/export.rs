//! What a region's store can prove, taken out of it: the ledger, the audit chains, the homes. Kept where whoever may write to
//! the store cannot, it shows what was changed there, and gives back what a restore lost.
//!
//! One JSON object a line, the first says what it is and the last how many there are.

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::chain::{ChainBeginning, ChainId, SealedEvent, verify_chain};
use crate::checkpoint;
use crate::error::{Code, Error, Result};
use crate::hex;
use crate::home::{ChosenHome, HomeChoice, SignedStatement};
use crate::kms::VerifyingKey;
use crate::ledger::{Statement, digest};
use crate::period::{Period, PeriodUnit};
use crate::region::{Place, Region};
use crate::scope::TenantId;
use crate::store::{KeyName, LedgerEntry};
use crate::time::Time;

/// What was exported of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// The region.
    pub region: Region,
    /// When it was taken.
    pub taken: Time,
    /// The ledger, from its first entry.
    pub ledger: Vec<LedgerEntry>,
    /// The audit chains, each with its events.
    pub chains: Vec<(ChainBeginning, Vec<SealedEvent>)>,
    /// The homes that chose this region.
    pub homes: Vec<ChosenHome>,
}

/// A line is never longer.
const LINE_BYTES_MAX: u64 = 8 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Export {
        version: u32,
        region: Region,
        taken: String,
    },
    Ledger {
        number: u64,
        kind: u8,
        body: String,
        signature: String,
    },
    Chain {
        chain: String,
        region: Region,
        jurisdiction: String,
        begun: i64,
        actor: String,
        signature: String,
    },
    Event {
        chain: String,
        number: u64,
        body: String,
        digest: String,
    },
    Home {
        tenant: String,
        types: String,
        region: Region,
        chosen: i64,
        own: bool,
        body: String,
        signature: String,
    },
    End {
        lines: u64,
    },
}

impl Export {
    pub(crate) fn new(region: Region, taken: Time) -> Self {
        Self { region, taken, ledger: Vec::new(), chains: Vec::new(), homes: Vec::new() }
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`OutputFailed`](Code::OutputFailed).
    pub fn write(&self, mut out: impl Write) -> Result<()> {
        let mut lines = 0;
        let mut write = |line: &Line| {
            lines += 1;
            serde_json::to_writer(&mut out, line).map_err(std::io::Error::from)?;
            out.write_all(b"\n")
        };
        let mut all = || -> std::io::Result<()> {
            write(&Line::Export { version: 1, region: self.region.clone(), taken: self.taken.to_string() })?;
            for LedgerEntry { number, kind, body, signature } in &self.ledger {
                let (body, signature) = (hex::encode(body), hex::encode(signature));
                write(&Line::Ledger { number: *number, kind: *kind, body, signature })?;
            }
            for (beginning, events) in &self.chains {
                write(&Line::Chain {
                    chain: beginning.chain.to_string(),
                    region: beginning.place.region.clone(),
                    jurisdiction: beginning.place.jurisdiction.to_string(),
                    begun: beginning.begun.micros(),
                    actor: beginning.actor.clone(),
                    signature: hex::encode(&beginning.signature),
                })?;
                for event in events {
                    write(&Line::Event {
                        chain: beginning.chain.to_string(),
                        number: event.number,
                        body: event.body.clone(),
                        digest: hex::encode(&event.digest),
                    })?;
                }
            }
            for home in &self.homes {
                let statement = home.statement.as_ref();
                write(&Line::Home {
                    tenant: home.choice.tenant.to_string(),
                    types: home.choice.types.to_string(),
                    region: home.choice.region.clone(),
                    chosen: home.chosen.micros(),
                    own: home.own,
                    body: statement.map(|signed| hex::encode(&signed.body)).unwrap_or_default(),
                    signature: statement.map(|signed| hex::encode(&signed.signature)).unwrap_or_default(),
                })?;
            }
            Ok(())
        };
        let failed = |source| Error::output_failed("the export could not be written", source);
        all().map_err(failed)?;
        let end = Line::End { lines };
        serde_json::to_writer(&mut out, &end).map_err(|source| failed(source.into()))?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(failed)
    }

    /// Reads one back. Nothing of it is believed before it is [verified](Self::verify).
    ///
    /// # Errors
    /// [`InputFraming`](Code::InputFraming) for what is no export, or not a whole one; with its line.
    pub fn read(mut input: impl BufRead) -> Result<Self> {
        let bad = |line: u64, what: &str| {
            Error::new(Code::InputFraming, format!("this is not an export of an audit: {what}"))
                .at(format!("line {line}"))
        };
        let mut export: Option<Self> = None;
        let mut number = 0;
        loop {
            number += 1;
            let mut text = Vec::new();
            std::io::Read::take(&mut input, LINE_BYTES_MAX).read_until(b'\n', &mut text).map_err(
                |source| Error::new(Code::InputFailed, "the export cannot be read").because(source),
            )?;
            if text.is_empty() {
                return Err(bad(number, "it has no end"));
            }
            let line: Line = serde_json::from_slice(&text)
                .map_err(|source| bad(number, "a line that means nothing").because(source))?;
            let octets =
                |text: &str| hex::decode_any(text).ok_or_else(|| bad(number, "what is no hexadecimal"));
            let Some(export) = &mut export else {
                match line {
                    Line::Export { version: 1, region, taken } => {
                        let taken = taken.parse().map_err(|source: Error| source.at("line 1"))?;
                        export = Some(Self::new(region, taken));
                    }
                    _ => return Err(bad(number, "it does not begin as one")),
                }
                continue;
            };
            match line {
                Line::Export { .. } => return Err(bad(number, "it begins twice")),
                Line::Ledger { number, kind, body, signature } => {
                    let (body, signature) = (octets(&body)?, octets(&signature)?);
                    export.ledger.push(LedgerEntry { number, kind, body, signature });
                }
                Line::Chain { chain, region, jurisdiction, begun, actor, signature } => {
                    let chain = hex::decode(&chain).ok_or_else(|| bad(number, "a chain without a name"))?;
                    let beginning = ChainBeginning {
                        chain: ChainId(chain),
                        place: Place { region, jurisdiction: jurisdiction.parse()? },
                        begun: Time::from_micros(begun)?,
                        actor,
                        signature: octets(&signature)?,
                    };
                    export.chains.push((beginning, Vec::new()));
                }
                Line::Event { chain, number: event, body, digest } => {
                    let digest =
                        hex::decode(&digest).ok_or_else(|| bad(number, "an event without its digest"))?;
                    match export.chains.last_mut() {
                        Some((beginning, events)) if beginning.chain.to_string() == chain => {
                            events.push(SealedEvent { number: event, body, digest });
                        }
                        _ => return Err(bad(number, "an event of no chain")),
                    }
                }
                Line::Home { tenant, types, region, chosen, own, body, signature } => {
                    let statement = SignedStatement { body: octets(&body)?, signature: octets(&signature)? };
                    export.homes.push(ChosenHome {
                        choice: HomeChoice { tenant: tenant.parse()?, types: types.parse()?, region },
                        chosen: Time::from_micros(chosen)?,
                        statement: (!statement.body.is_empty()).then_some(statement),
                        own,
                    });
                }
                Line::End { lines } => {
                    let whole = lines + 1 == number;
                    let export = export.clone();
                    return if whole { Ok(export) } else { Err(bad(number, "lines are missing")) };
                }
            }
        }
    }

    /// Verifies the ledger from its first entry to its last, every chain, and that no chain is less than a checkpoint says.
    ///
    /// # Errors
    /// [`LedgerUnverified`](Code::LedgerUnverified), naming the first entry or event that is not what was signed.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Vec<Statement>> {
        let statements = verify_ledger(&self.region, &self.ledger, key)?;
        for (beginning, events) in &self.chains {
            verify_chain(beginning, events, key)?;
        }
        checkpoint::hold(&statements, &self.chains)?;
        Ok(statements)
    }

    /// The keys that the chains say were used, each once, with the event's own words. A key that was made and not used
    /// since may never have come to the store: its maker was overtaken, or died before.
    pub(crate) fn keys_used(&self) -> Vec<(KeyName, String)> {
        #[derive(Deserialize)]
        struct Used {
            event: String,
            key: Option<String>,
            tenant: Option<String>,
            #[serde(rename = "type")]
            record_type: Option<String>,
            period: Option<String>,
        }
        let mut used = std::collections::BTreeMap::new();
        for event in self.chains.iter().flat_map(|(_, events)| events) {
            let Ok(Used { event, key: Some(key), tenant, record_type, period }) =
                serde_json::from_str(&event.body)
            else {
                continue;
            };
            // What posts seal to is used where nobody here sees it. Only their keys are the region's and of a day.
            let of_a_day = period.as_deref().and_then(|period| period.parse::<Period>().ok());
            let of_posts = tenant.as_deref() == Some(TenantId::REGION.as_str())
                && of_a_day.is_some_and(|period| period.unit() == PeriodUnit::Day);
            if event == "generate" && !of_posts {
                continue;
            }
            let Some(name) = hex::decode(&key) else { continue };
            let words = [tenant, record_type, period].map(Option::unwrap_or_default);
            used.insert(KeyName(name), words.join("/"));
        }
        used.into_iter().collect()
    }
}

/// Verifies a region's ledger from its first entry.
///
/// # Errors
/// [`LedgerUnverified`](Code::LedgerUnverified), naming the first entry that is not what was signed.
pub fn verify_ledger(region: &Region, entries: &[LedgerEntry], key: &VerifyingKey) -> Result<Vec<Statement>> {
    let mut statements = Vec::with_capacity(entries.len());
    let (mut expected, mut previous) = (1, [0; 32]);
    for entry in entries {
        let broken = || {
            Error::new(
                Code::LedgerUnverified,
                format!("entry {expected} of the ledger of {region} is not what was signed, or not the next"),
            )
            .advise("the ledger was changed behind Domicile's back: find out by whom")
        };
        key.verify(&entry.body, &entry.signature).map_err(|crate::engine::Unverified| broken())?;
        let statement = Statement::decode(&entry.body).map_err(|source| broken().because(source))?;
        let follows =
            statement.number == expected && entry.number == expected && statement.previous == previous;
        if !follows || statement.region != *region || statement.kind as u8 != entry.kind {
            return Err(broken());
        }
        (expected, previous) = (expected + 1, digest(entry));
        statements.push(statement);
    }
    Ok(statements)
}

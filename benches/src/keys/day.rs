//! The calls of a day: writers of a fleet as they ask for keys, on a clock by which hours pass in minutes.
//!
//! Twice. One writer with everything that it asks for, which shows that calls do not grow with records, lanes and
//! scopes; its calls count a hundred times, because what one writer asks a key service does not depend on others: each
//! has a cache of its own. And a hundred writers on one store, each with a few asks a minute, which shows that it does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domicile::{Action, Domicile, ManualClock};

use super::figures::Figures;
use super::ground::{Calls, Ground, period, region, scope};

/// What the fleet does.
pub(crate) struct Plan {
    /// Tenants times record types.
    pub(crate) scopes: usize,
    pub(crate) writers: usize,
    /// Of all writers.
    pub(crate) records_a_day: f64,
    /// How much of the day is simulated.
    pub(crate) hours: u64,
    /// How many writers there are in the thinned run.
    pub(crate) thinned_writers: usize,
}

const SECTION: &str = "calls of a day";
const STORE: &str = "memory";

/// A writer begins a segment this often, with fresh lanes: the hard age of its keys.
const ROLL_S: u64 = 15 * 60;

/// US dollars for ten thousand requests, as AWS lists them for symmetric keys: an assumption, like every price.
const PRICE_OF_TEN_THOUSAND: f64 = 0.03;

pub(crate) async fn measure(plan: &Plan, figures: &mut Figures) {
    let clock = ManualClock::new("2026-11-25T00:00:00Z".parse().unwrap());
    let ground = Ground::memory(Arc::new(clock.clone()));
    // Keys are there, as on any day but the first of a period.
    let maker = ground.process().await;
    ground.choose_homes(&maker, plan.scopes).await;
    for number in 0..plan.scopes {
        lane(&maker, number).await;
    }
    segment(&maker).await;
    drop(maker);

    let day = 24.0 / plan.hours as f64;
    let (calls, asked) = one_writer(plan, &ground, &clock).await;
    let writers = plan.writers as f64;
    let mut add = |what: &str, value, unit| figures.add(SECTION, STORE, what, value, unit);
    add("hours that were simulated", plan.hours as f64, "h");
    add("one writer: records", asked.records as f64, "records");
    add("one writer: lanes opened, each a sealing leaf", asked.lanes as f64, "asks");
    add("one writer: scopes used, each a first use", asked.scopes as f64, "scopes");
    for (name, calls) in Calls::NAMES.into_iter().zip(calls.0) {
        add(&format!("one writer: {name}"), calls as f64, "calls");
    }
    add("one writer: audit events", asked.events as f64, "events");
    add("one writer: octets of their text", asked.event_bytes as f64, "octets");
    // A process signs when it begins, however long it runs.
    let [generate, wrap, unwrap, sign] = calls.0.map(|calls| calls as f64);
    let all = ((generate + wrap + unwrap) * day + sign) * writers;
    add("all writers, a day", all, "calls");
    add("price of a day", price(all), "USD");
    let a_million = all / (plan.records_a_day / 1e6);
    add("calls for a million records", a_million, "calls");
    let each = asked.by_scope as f64 * writers * day;
    add("hypothetical: a call for each scope and hard age, a day", each, "calls");
    add("price of that day", price(each), "USD");

    let calls = thinned(plan, &ground, &clock).await;
    for (name, calls) in Calls::NAMES.into_iter().zip(calls.0) {
        let what = format!("{} writers on one store, thinned: {name}", plan.thinned_writers);
        figures.add(SECTION, STORE, what, calls as f64, "calls");
    }
}

fn price(calls: f64) -> f64 {
    calls / 10_000.0 * PRICE_OF_TEN_THOUSAND
}

/// What a writer did.
struct Asked {
    records: u64,
    lanes: u64,
    scopes: usize,
    /// What it would have asked a key service, if that wrapped a key for each scope.
    by_scope: u64,
    events: usize,
    event_bytes: usize,
}

/// A writer's share of the records, in its lanes.
async fn one_writer(plan: &Plan, ground: &Ground, clock: &ManualClock) -> (Calls, Asked) {
    let domicile = ground.process().await;
    let before = ground.calls();
    let events_before = events(ground).await;
    let mut draw = Zipf::new(plan.scopes);
    let each_second = plan.records_a_day / plan.writers as f64 / 86_400.0;
    let mut asked = Asked { records: 0, lanes: 0, scopes: 0, by_scope: 0, events: 0, event_bytes: 0 };
    // When each scope's lane was opened, and when its key would have been asked for.
    let mut lanes: HashMap<usize, (u64, u64)> = HashMap::new();
    for second in 0..plan.hours * 3_600 {
        let begun = second / ROLL_S * ROLL_S;
        if second == begun {
            segment(&domicile).await;
        }
        while (asked.records as f64) < each_second * (second + 1) as f64 {
            asked.records += 1;
            let number = draw.next();
            let known = lanes.get(&number).copied();
            if known.is_some_and(|(opened, _)| opened >= begun) {
                continue;
            }
            lane(&domicile, number).await;
            asked.lanes += 1;
            let last = known.map(|(_, last)| last).filter(|last| second - last < ROLL_S);
            asked.by_scope += u64::from(last.is_none());
            lanes.insert(number, (second, last.unwrap_or(second)));
        }
        clock.advance(Duration::from_secs(1));
    }
    asked.scopes = lanes.len();
    let (events, event_bytes) = events(ground).await;
    (asked.events, asked.event_bytes) = (events - events_before.0, event_bytes - events_before.1);
    (ground.calls().since(before), asked)
}

/// Many writers, each with four lanes a minute and its segments.
async fn thinned(plan: &Plan, ground: &Ground, clock: &ManualClock) -> Calls {
    let mut writers = Vec::new();
    for _ in 0..plan.thinned_writers {
        writers.push(ground.process().await);
    }
    let before = ground.calls();
    let mut draw = Zipf::new(plan.scopes);
    for step in 0..plan.hours * 3_600 / 15 {
        for domicile in &writers {
            if (step * 15).is_multiple_of(ROLL_S) {
                segment(domicile).await;
            }
            lane(domicile, draw.next()).await;
        }
        clock.advance(Duration::from_secs(15));
    }
    ground.calls().since(before)
}

async fn segment(domicile: &Domicile) {
    let permit = domicile.permit_region(&region(), Action::Seal).await.unwrap();
    domicile.keyring().segment_leaf(permit, period()).await.unwrap();
}

async fn lane(domicile: &Domicile, number: usize) {
    let permit = domicile.permit(&scope(number), Action::Seal).await.unwrap();
    domicile.keyring().sealing_leaf(permit, period()).await.unwrap();
}

/// How many events the chains hold, and octets of their text.
async fn events(ground: &Ground) -> (usize, usize) {
    let chains = ground.keys.chains().await.unwrap();
    let events = chains.iter().flat_map(|(_, events)| events);
    events.fold((0, 0), |(count, bytes), event| (count + 1, bytes + event.body.len()))
}

/// Scopes by Zipf's law: the one of rank *n* has one *n*th of the records of the first.
struct Zipf {
    /// The share of the records of each scope and all before it.
    shares: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(scopes: usize) -> Self {
        let mut sum = 0.0;
        let shares = (1..=scopes).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self { shares: shares.collect(), state: 0x5eed }
    }

    fn next(&mut self) -> usize {
        // SplitMix64: the same run each time.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let all = self.shares.last().copied().unwrap_or_default();
        let point = (word >> 11) as f64 / (1u64 << 53) as f64 * all;
        self.shares.partition_point(|share| *share <= point).min(self.shares.len() - 1)
    }
}

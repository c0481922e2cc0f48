//! Cases, run in turns: whatever the machine does meanwhile, it does to all of them.

use std::time::Instant;

use domicile::engine::Engine;

/// What runs a case once: it returns the octets of records that it saw, and those that it produced.
pub type Run<'a> = Box<dyn FnMut() -> (u64, u64) + 'a>;

/// Something to measure.
pub struct Case<'a> {
    /// Who does what: `segment/write/300B`.
    pub name: String,
    /// The engine that it was told to use, if it can be told.
    pub engine: Option<Engine>,
    /// What it is held against, if against anything: the name and the engine of another case.
    pub ideal: Option<(&'static str, Engine)>,
    /// How many of the records it takes: all, unless it is a thousand times slower than the others.
    pub records: usize,
    /// Octets of records that go in or come out; a wrong sum fails the run.
    pub expected: u64,
    /// Makes ready what is not measured: keys, and for a reader what it reads.
    pub prepare: Box<dyn FnOnce() -> Run<'a> + 'a>,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) engine: Option<Engine>,
    pub(crate) ideal: Option<(&'static str, Engine)>,
    pub(crate) records: usize,
    pub(crate) record_bytes: u64,
    /// Seconds of each round.
    pub(crate) seconds: Vec<f64>,
    pub(crate) output_bytes: u64,
}

impl Measured {
    /// How often the time of a record at this case fits into that at the other: least, median and most of the rounds.
    pub(crate) fn ratios_to(&self, ideal: &Measured) -> [f64; 3] {
        let share = self.record_bytes as f64 / ideal.record_bytes as f64;
        spread(ideal.seconds.iter().zip(&self.seconds).map(|(ideal, own)| ideal / own * share).collect())
    }
}

/// Runs each case once a round, in an order that rotates; the first round is not counted.
pub(crate) fn interleave(cases: Vec<Case<'_>>, rounds: usize) -> Vec<Measured> {
    let count = cases.len();
    let (mut runs, mut all) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for case in cases {
        let Case { name, engine, ideal, records, expected, prepare } = case;
        runs.push(prepare());
        let seconds = Vec::with_capacity(rounds);
        all.push(Measured { name, engine, ideal, records, record_bytes: expected, seconds, output_bytes: 0 });
    }
    for round in 0..=rounds {
        for turn in 0..count {
            let index = (turn + round) % count;
            let measured = &mut all[index];
            let start = Instant::now();
            let (seen, produced) = runs[index]();
            let elapsed = start.elapsed().as_secs_f64();
            assert_eq!(seen, measured.record_bytes, "{} saw other records", measured.name);
            measured.output_bytes = produced;
            if round > 0 {
                measured.seconds.push(elapsed);
            }
        }
    }
    all
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let [_, median, _] = spread(values.to_vec());
    median
}

/// Least, median and most.
pub(crate) fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

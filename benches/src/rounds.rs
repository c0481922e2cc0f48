//! Cases, run in turns: whatever the machine does meanwhile, it does to all of them.

use std::time::Instant;

use domicile::engine::Engine;

/// Something to measure.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    pub(crate) engine: Option<Engine>,
    /// The name of the case that this one is held against, if it is held against any.
    pub(crate) ideal: Option<String>,
    /// Octets of records that went in or came out; a wrong sum fails the run.
    pub(crate) expected: u64,
    /// Runs once; returns the octets of records that it saw and those that it produced.
    pub(crate) run: Box<dyn FnMut() -> (u64, u64) + 'a>,
}

/// What was measured.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) engine: Option<Engine>,
    pub(crate) ideal: Option<String>,
    /// Seconds of each round.
    pub(crate) seconds: Vec<f64>,
    pub(crate) output_bytes: u64,
}

/// Runs each case once a round, in an order that rotates; the first round is not counted.
pub(crate) fn interleave(mut cases: Vec<Case<'_>>, rounds: usize) -> Vec<Measured> {
    let count = cases.len();
    let mut seconds = vec![Vec::with_capacity(rounds); count];
    let mut output_bytes = vec![0; count];
    for round in 0..=rounds {
        for turn in 0..count {
            let index = (turn + round) % count;
            let case = &mut cases[index];
            let start = Instant::now();
            let (seen, produced) = (case.run)();
            let elapsed = start.elapsed().as_secs_f64();
            assert_eq!(seen, case.expected, "{} saw other records", case.name);
            output_bytes[index] = produced;
            if round > 0 {
                seconds[index].push(elapsed);
            }
        }
    }
    cases
        .into_iter()
        .zip(seconds)
        .zip(output_bytes)
        .map(|((case, seconds), output_bytes)| Measured {
            name: case.name,
            engine: case.engine,
            ideal: case.ideal,
            seconds,
            output_bytes,
        })
        .collect()
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

//! Figures a second of several contenders, each beside another of them.

use serde::Serialize;

use crate::rounds::{median, spread};

#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Octets, or handshakes, a second.
    pub(crate) a_second: f64,
    /// Beside the first of its kind that is plain rustls: least, median and most of the rounds.
    pub(crate) ratio: Option<[f64; 3]>,
}

pub(crate) fn print(row: &Row, figure: f64) {
    let (ratio, spread) = row.ratio.map_or_else(Default::default, |[low, ratio, high]| {
        (format!("{ratio:.3}"), format!("{low:.2}-{high:.2}"))
    });
    println!("{:<44} {figure:>12.0} {ratio:>9} {spread:>13}", row.name);
}

/// Seconds that each contender took, by round; `plain` is what it is held against.
pub(crate) fn rows<const N: usize>(
    names: [(&str, Option<usize>); N],
    seconds: &[Vec<f64>; N],
    units: f64,
) -> Vec<Row> {
    let ratio = |own: &[f64], plain: usize| {
        spread(seconds[plain].iter().zip(own).map(|(plain, own)| plain / own).collect())
    };
    let row = |((name, plain), own): (&(&str, Option<usize>), &Vec<f64>)| Row {
        name: (*name).to_owned(),
        a_second: units / median(own),
        ratio: plain.map(|plain| ratio(own, plain)),
    };
    names.iter().zip(seconds).map(row).collect()
}

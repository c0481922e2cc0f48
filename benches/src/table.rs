//! The table.

use domicile::engine::Suite;

use crate::ResultRow;

pub(crate) fn print(suite: Suite, rows: &[ResultRow]) {
    println!("\n{suite}");
    println!(
        "{:<40} {:<11} {:>9} {:>10} {:>9} {:>13} {:>13} {:>9}",
        "case", "engine", "MB/s", "ns/record", "x ideal", "(spread)", "B/record over", "peak KiB"
    );
    for row in rows {
        let ratio = row.ratio_to_ideal.map_or(String::new(), |ratio| {
            let decimals = if ratio < 0.01 { 5 } else { 3 };
            format!("{ratio:.decimals$}")
        });
        let spread = row.ratio_spread.map_or(String::new(), |[low, high]| format!("{low:.2}-{high:.2}"));
        let peak = row.peak_bytes.map_or(String::new(), |bytes| (bytes / 1024).to_string());
        println!(
            "{:<40} {:<11} {:>9.0} {:>10.1} {ratio:>9} {spread:>13} {:>13.2} {peak:>9}",
            row.name,
            row.engine,
            row.bytes_per_s / 1e6,
            row.ns_per_record,
            row.overhead_bytes_per_record,
        );
    }
}

//! The plot: a bar for each row that is held against an ideal, with a line from the least to the most of its rounds.

use std::fmt::Write;

use crate::ResultRow;

const LEFT: f64 = 330.0;
const WIDTH: f64 = 560.0;
const ROW: f64 = 20.0;
const TOP: f64 = 56.0;

/// An SVG of these rows, in groups of one direction each.
pub(crate) fn svg(title: &str, rows: &[ResultRow]) -> String {
    let mut groups = Vec::new();
    for direction in ["write", "read"] {
        let of_it =
            |row: &&ResultRow| row.name.contains(&format!("/{direction}")) && row.ratio_to_ideal.is_some();
        let mut of_it: Vec<_> = rows.iter().filter(of_it).collect();
        of_it.sort_by(|left, right| {
            right.ratio_to_ideal.unwrap_or(0.0).total_cmp(&left.ratio_to_ideal.unwrap_or(0.0))
        });
        if !of_it.is_empty() {
            groups.push((direction, of_it));
        }
    }
    let shown = groups.iter().flat_map(|(_, rows)| rows);
    let most = shown.filter_map(|row| row.ratio_spread).fold(1.0_f64, |most, [_, high]| most.max(high));
    let x = |ratio: f64| LEFT + WIDTH * ratio / most;
    let height = TOP + groups.iter().map(|(_, rows)| (rows.len() + 2) as f64 * ROW).sum::<f64>();
    let mut svg = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| writeln!(svg, "{text}").unwrap();
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{:.0}" height="{height:.0}" font-family="sans-serif" font-size="12">"#,
        LEFT + WIDTH + 70.0
    ));
    line(format_args!(r#"<rect width="100%" height="100%" fill="white"/>"#));
    line(format_args!(r#"<text x="12" y="22" font-size="15">{title}</text>"#));
    let mut y = TOP;
    for (direction, rows) in &groups {
        line(format_args!(
            r#"<text x="12" y="{y:.0}" font-weight="bold">{direction}, as a fraction of the ideal</text>"#
        ));
        let bottom = y + (rows.len() as f64 + 0.7) * ROW;
        line(format_args!(
            r##"<line x1="{0:.1}" x2="{0:.1}" y1="{y:.0}" y2="{bottom:.0}" stroke="#888" stroke-dasharray="3 3"/>"##,
            x(1.0)
        ));
        for row in rows {
            y += ROW;
            let ratio = row.ratio_to_ideal.unwrap_or(0.0);
            let [low, high] = row.ratio_spread.unwrap_or([ratio; 2]);
            let colour = match row.name.split('/').next() {
                Some("segment") => "#1b6ca8",
                Some("ideal") => "#999",
                _ => "#d08a3c",
            };
            let engine = if row.engine == "-" { String::new() } else { format!(", {}", row.engine) };
            let label = format!("{}{engine}", row.name);
            line(format_args!(
                r#"<text x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            ));
            line(format_args!(
                r#"<rect x="{LEFT:.0}" y="{:.1}" width="{:.1}" height="12" fill="{colour}"/>"#,
                y - 6.0,
                x(ratio) - LEFT
            ));
            line(format_args!(
                r#"<line x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="black"/>"#,
                x(low),
                x(high)
            ));
            let decimals = if ratio < 0.1 { 4 } else { 2 };
            line(format_args!(
                r#"<text x="{:.1}" y="{:.1}">{ratio:.decimals$}</text>"#,
                x(high) + 5.0,
                y + 4.0
            ));
        }
        y += 2.0 * ROW;
    }
    line(format_args!("</svg>"));
    svg
}

//! The forms in which records are written, and what stands around the records of a file.

use crate::ber;
use crate::scope::named;

named! {
    /// How records are written.
    Format, "format":
    /// RFC 4180 with a header line: fifteen columns, the last one quoted; `\n` ends a row.
    Csv = "csv",
    /// One JSON object a line.
    Jsonl = "jsonl",
    /// One JSON array of objects, an object a line.
    Json = "json",
    /// The access log of a gateway, one record a line.
    Lines = "lines",
    /// Binary, each record after its length: see [the layout](crate#the-length-prefixed-layout).
    Lp = "lp",
    /// Values of BER, one after the other: see [the layout](crate#the-layout-of-ber).
    Ber = "ber",
    /// A file of 3GPP TS 32.297 with these values in it.
    Ts32297 = "ts32297",
}

/// The columns of CSV. JSON has all but the last under the same names, and the attributes as members beside them.
pub(crate) const COLUMNS: &[&str] = &[
    "record_type",
    "tenant",
    "region",
    "record_id",
    "session_id",
    "start_time",
    "end_time",
    "duration_ms",
    "direction",
    "from",
    "to",
    "status",
    "cost",
    "currency",
    "attributes",
];

impl Format {
    /// What stands before the first record of a file. Of TS 32.297 it is the header of a file that was not closed;
    /// [`Generator::header`](crate::Generator::header) makes the one of a file that was.
    #[must_use]
    pub const fn header(self) -> &'static [u8] {
        match self {
            Self::Csv => {
                b"record_type,tenant,region,record_id,session_id,start_time,end_time,duration_ms,direction,\
                from,to,status,cost,currency,attributes\n"
            }
            Self::Json => b"[\n",
            Self::Ts32297 => ber::OPEN_FILE,
            Self::Jsonl | Self::Lines | Self::Lp | Self::Ber => b"",
        }
    }

    /// What stands between two records, and neither before the first nor after the last.
    #[must_use]
    pub const fn separator(self) -> &'static [u8] {
        match self {
            Self::Json => b",\n",
            Self::Csv | Self::Jsonl | Self::Lines | Self::Lp | Self::Ber | Self::Ts32297 => b"",
        }
    }

    /// What stands after the last record of a file.
    #[must_use]
    pub const fn footer(self) -> &'static [u8] {
        match self {
            Self::Json => b"\n]\n",
            Self::Csv | Self::Jsonl | Self::Lines | Self::Lp | Self::Ber | Self::Ts32297 => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_line_names_the_columns() {
        assert_eq!(Format::Csv.header(), format!("{}\n", COLUMNS.join(",")).as_bytes());
    }
}

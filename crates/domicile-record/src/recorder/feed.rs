//! An input that keeps coming, fed to a recorder.

use std::io::Read;

use domicile::{Code, Error, Result, Scope};

use super::{LaneOptions, Recorder, RecorderLane};
use crate::framing::{Choice, Fields, Framer, Framing, Piece};
use crate::intake::{FIELD_RECORD_BYTES_MAX, InputReport, event_time_of, of_record};
use crate::writer::WriterOptions;

/// How the records of an input stand in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Feed {
    /// How they are framed. What keeps coming is not looked at ahead: `auto` is taken for lines.
    pub framing: Choice,
    /// The field with a record's event time; without it, records belong to the time at which they come.
    pub time: Option<String>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { framing: Choice::Lines, time: None }
    }
}

impl Feed {
    /// Reads an input to its end and appends its records, all of one scope, as they come: a record is appended before it is
    /// waited for the next. It blocks; whoever commits does so meanwhile.
    ///
    /// # Errors
    /// [`InputFailed`](Code::InputFailed), [`InputFraming`](Code::InputFraming), [`InputField`](Code::InputField) and
    /// [`InputTime`](Code::InputTime), with the record's number and place; those of
    /// [`append`](RecorderLane::append), and [`RecordsLost`](Code::RecordsLost) once a segment failed. The records before
    /// are appended.
    pub fn read(&self, recorder: &Recorder, scope: &Scope, input: impl Read) -> Result<InputReport> {
        let names: Vec<_> = self.time.as_deref().into_iter().collect();
        let framing = if self.framing == Choice::Auto { Choice::Lines } else { self.framing };
        let record_bytes_max =
            if names.is_empty() { WriterOptions::BLOCK_BYTES_MAX } else { FIELD_RECORD_BYTES_MAX };
        let mut framer = Framer::naming(input, framing, &names)?.with_record_bytes_max(record_bytes_max);
        let (framing, mut preamble, mut records) = (framer.framing(), Vec::new(), 0);
        let mut feeding: Option<(RecorderLane, Option<Fields>)> = None;
        loop {
            let (at, seems_a_header) = (framer.position(), framer.seems_to_have_header());
            let place = |error| of_record(error, records, at, seems_a_header);
            let record = match framer.next()? {
                None => break,
                Some(Piece::Preamble(before)) => {
                    preamble = before.to_vec();
                    continue;
                }
                Some(Piece::Postamble(_)) => {
                    return Err(place(
                        Error::new(Code::InputFraming, "something stands behind the records, and is none")
                            .rule("of what keeps coming, what closes it is not kept")
                            .advise("send records alone: lines, or JSON values one after the other"),
                    ));
                }
                Some(Piece::Part { .. }) => {
                    return Err(place(
                        Error::new(Code::InputFraming, "this record is too long for a recorder")
                            .rule(format!("records have at most {record_bytes_max} octets here"))
                            .advise("seal it apart"),
                    ));
                }
                Some(Piece::Record(record)) => record,
            };
            if feeding.is_none() {
                feeding = Some(self.begin(recorder, scope, framing, &preamble, &names)?);
            }
            let Some((lane, fields)) = &mut feeding else { continue };
            recorder.check()?;
            let time = match (fields, &self.time) {
                (Some(fields), Some(name)) => {
                    fields.read(record).map_err(place)?;
                    event_time_of(name, fields.get(0)).map_err(place)?
                }
                _ => recorder.now(),
            };
            lane.append_blocking(time, record).map_err(place)?;
            records += 1;
        }
        let (bytes, warnings) = (framer.position(), framer.warnings().to_vec());
        Ok(InputReport { framing, records, bytes, warnings })
    }

    fn begin(
        &self,
        recorder: &Recorder,
        scope: &Scope,
        framing: Framing,
        preamble: &[u8],
        names: &[&str],
    ) -> Result<(RecorderLane, Option<Fields>)> {
        let options = LaneOptions {
            framing: Some(framing),
            preamble: preamble.into(),
            event_times: self.time.is_some(),
            arrivals: true,
        };
        let lane = pollster::block_on(recorder.scope_with(scope, options))?;
        let fields = self.time.as_ref().map(|_| Fields::new(framing, preamble, names)).transpose()?;
        Ok((lane, fields))
    }
}

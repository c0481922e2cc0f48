//! What is done to a writer.

use crate::write_read::Op;

/// Who seals, by its place in the list.
const ALONE: u8 = 0;
const POOL: u8 = 1;

pub(super) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let everywhere = || History::begin([0, 0, 0, 0, 0]);
    vec![
        ("nothing", Vec::new()),
        ("one-lane", everywhere().lane(0, 0, b"").append(0, b"a\n").append(0, b"").append(0, b"b\n").end()),
        (
            "one-input-of-three-lanes-by-arrival",
            everywhere()
                .lane(STAMPED, 0, b"head\n")
                .lane(STAMPED | JOINS, 1, b"")
                .lane(STAMPED | JOINS, 2, b"")
                .rounds(12, 3)
                .op(Op::SetPostamble, &[0, 5, b'f', b'o', b'o', b't', b'\n'])
                .numbers(3, 7)
                .times(-80, 120)
                .end(),
        ),
        (
            "one-input-lane-by-lane",
            everywhere()
                .lane(TIMES, 0, b"head\n")
                .lane(JOINS, 0, b"")
                .rounds(9, 2)
                .numbers(1, 2)
                .times(0, 40)
                .end(),
        ),
        (
            "many-runs-of-an-index",
            History::begin_with_a_pool([1, 0, 0, 1, 0])
                .lane(STAMPED, 0, b"")
                .many(0, 200, 1, b"x\n")
                .many(0, 200, 90, b"\n")
                .numbers(70, 9)
                .numbers(199, 2)
                .times(-100, 90)
                .end(),
        ),
        (
            "numbers-that-arrived-with-gaps",
            History::begin([2, 0, 0, 0, 1])
                .lane(ARRIVALS, 0, b"")
                .lane(ARRIVALS, 1, b"")
                .many(0, 90, 3, b"a\n")
                .many(1, 90, 2, b"b\n")
                .many(0, 90, 1, b"c\n")
                .op(Op::AskNumbers, &[0x80, 250, 200])
                .op(Op::AskNumbers, &[0x80, 4, 1])
                .end(),
        ),
        (
            "numbers-below-zero",
            History::begin([3, 0, 0, 0, 2]).lane(ARRIVALS, 0, b"").many(0, 9, 0, b"a\n").numbers(0, 2).end(),
        ),
        (
            "a-long-record",
            History::begin_with_a_pool([3, 0, 0, 0, 0])
                .lane(LONG | ARRIVALS, 0, b"head")
                .piece(0, false, &[b'x'; 100])
                .op(Op::Commit, &[2, b'h', b'i'])
                .piece(0, false, b"")
                .piece(0, true, &[b'y'; 41])
                .numbers(0, 1)
                .end(),
        ),
        (
            "a-long-record-among-others",
            History::begin([3, 0, 0, 0, 0])
                .lane(STAMPED, 0, b"head\n")
                .lane(STAMPED | LONG | JOINS, 0, b"")
                .append(0, b"before\n")
                .piece(1, false, &[b'x'; 90])
                .append(0, b"between\n")
                .piece(1, true, b"\n")
                .end(),
        ),
        ("an-empty-long-record", everywhere().lane(LONG, 0, b"").piece(0, true, b"").end()),
        ("an-empty-lane", everywhere().lane(0, 0, b"head").op(Op::SetPostamble, &[0, 1, b'f']).end()),
        (
            "elements-of-an-array",
            everywhere()
                .framed(0, 2, b"[")
                .append(0, b"1,\n")
                .append(0, b"2,")
                .append(0, b"3 ")
                .op(Op::SetPostamble, &[0, 1, b']'])
                .numbers(0, 2)
                .end(),
        ),
        (
            "many-open-blocks",
            History::begin([4, 2, 0, 0, 0])
                .lane(0, 0, b"")
                .lane(TIMES, 1, b"")
                .lane(0, 2, b"")
                .rounds(24, 3)
                .end(),
        ),
        (
            "a-lane-that-is-full",
            History::begin([3, 0, 1, 0, 0])
                .lane(0, 0, b"")
                .many(0, 250, 0, &[b'x'; 30])
                .append(0, b"y")
                .end(),
        ),
        (
            "a-lane-of-too-many-octets",
            History::begin([4, 0, 2, 0, 0])
                .lane(0, 0, b"")
                .op(Op::SetPostamble, &[0, 1, b'f'])
                .many(0, 250, 0, &[b'x'; 90])
                .end(),
        ),
        (
            "a-long-record-that-is-too-long",
            History::begin([1, 0, 1, 0, 0]).lane(LONG, 0, b"").piece(0, false, &[b'x'; 90]).end(),
        ),
        (
            "a-segment-of-three-lanes",
            History::begin([0, 0, 3, 0, 0]).lane(0, 0, b"").lane(0, 1, b"").lane(0, 2, b"").end(),
        ),
        (
            "a-segment-of-so-many-blocks",
            History::begin([1, 0, 4, 0, 0]).lane(0, 0, b"head").many(0, 255, 0, b"x").lane(0, 1, b"").end(),
        ),
        // Found by fuzzing: only the first block of a piece was counted.
        (
            "a-long-record-of-more-blocks-than-the-segment",
            History::begin([1, 0, 4, 0, 0])
                .lane(LONG, 0, b"head")
                .piece(0, false, &[b'x'; 80])
                .piece(0, true, &[b'y'; 250])
                .end(),
        ),
        (
            "commits-of-a-segment-that-is-full",
            (0..8)
                .fold(
                    History::begin([1, 0, 4, 0, 0]).lane(0, 0, b"head").many(0, 255, 0, b"x"),
                    |history, number| history.op(Op::Commit, &[number % 2, b'o']),
                )
                .end(),
        ),
        (
            "misuse",
            (0..8)
                .fold(everywhere().lane(TIMES, 0, b"").lane(LONG, 1, b""), |history, what| {
                    history.op(Op::Misuse, &[what, what])
                })
                .append(0, b"a\n")
                .end(),
        ),
        (
            "a-crash-behind-a-commit",
            History::begin([2, 0, 0, 0, 0])
                .lane(STAMPED, 0, b"head\n")
                .lane(LONG, 1, b"")
                .many(0, 20, 1, b"kept\n")
                .piece(1, false, &[b'x'; 50])
                .op(Op::Commit, &[0])
                .many(0, 20, 1, b"lost\n")
                .op(Op::Crash, &[0, 99, 7])
                .end(),
        ),
        ("a-crash-before-any-commit", everywhere().lane(0, 0, b"").op(Op::Crash, &[0, 0, 0]).end()),
        (
            "a-crash-between-two-blocks",
            History::begin([1, 0, 0, 0, 0])
                .lane(0, 0, b"")
                .many(0, 8, 0, b"x\n")
                .op(Op::Crash, &[0xff, 0xff, 0])
                .end(),
        ),
    ]
}

// What a lane keeps, and that it joins the first input.
const TIMES: u8 = 1;
const ARRIVALS: u8 = 2;
const STAMPED: u8 = TIMES | ARRIVALS;
const LONG: u8 = 4;
const JOINS: u8 = 8;

/// A history, step by step.
struct History(Vec<u8>);

impl History {
    /// Octets of a block, octets of open blocks, limits, suite, first arrival number: each by its place in a list.
    fn begin([block, open, limits, suite, arrival]: [u8; 5]) -> Self {
        Self(vec![block, open, limits, suite, ALONE, arrival])
    }

    /// The same with blocks that are sealed by other threads.
    fn begin_with_a_pool([block, open, limits, suite, arrival]: [u8; 5]) -> Self {
        Self(vec![block, open, limits, suite, POOL, arrival])
    }

    fn end(self) -> Vec<u8> {
        self.0
    }

    fn op(mut self, op: Op, operands: &[u8]) -> Self {
        self.0.push(op.selector());
        self.0.extend_from_slice(operands);
        self
    }

    fn lane(self, what: u8, scope: u8, preamble: &[u8]) -> Self {
        self.opened(what, scope, 0, preamble)
    }

    fn framed(self, what: u8, framing: u8, preamble: &[u8]) -> Self {
        self.opened(what, 0, framing, preamble)
    }

    fn opened(self, what: u8, scope: u8, framing: u8, preamble: &[u8]) -> Self {
        self.op(Op::OpenLane, &[&[scope, scope, what, framing], &short(preamble)[..]].concat())
    }

    fn append(self, lane: u8, record: &[u8]) -> Self {
        self.op(Op::Append, &[&[lane, 0x60], &short(record)[..]].concat())
    }

    fn many(self, lane: u8, count: u8, steps: u8, record: &[u8]) -> Self {
        self.op(Op::AppendMany, &[&[count, lane, steps], &short(record)[..]].concat())
    }

    fn piece(self, lane: u8, last: bool, piece: &[u8]) -> Self {
        self.op(Op::AppendPiece, &[&[lane, u8::from(last)], &short(piece)[..]].concat())
    }

    /// So many records, to so many lanes in turn, at times that go to and fro.
    fn rounds(self, count: u8, lanes: u8) -> Self {
        (0..count).fold(self, |history, number| {
            let op = if number % 2 == 0 { Op::Append } else { Op::AppendWith };
            let record = format!("record {number}\n");
            let steps = if number % 5 == 0 { 0 } else { 0x7c };
            history.op(op, &[&[number % lanes, steps], &short(record.as_bytes())[..]].concat())
        })
    }

    fn numbers(self, start: u8, length: u8) -> Self {
        self.op(Op::AskNumbers, &[0, start, length])
    }

    fn times(self, from: i16, length: u16) -> Self {
        let from = u8::try_from(from + 128).unwrap();
        self.op(Op::AskTimes, &[&[0, 0, from], &length.to_be_bytes()[..]].concat())
    }
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

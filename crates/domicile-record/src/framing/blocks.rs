//! Blocks of lines, an empty line after each.

use memchr::memchr;

use super::framer::PREAMBLE_BYTES_MAX;
use super::lines;
use super::splitter::Finish;

/// Finds the ends of blocks in octets that come bit by bit.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    line: Line,
    /// Whether the current block has a line that is not empty.
    has_text: bool,
    /// Octets of empty lines that it began with.
    empty: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Line {
    /// At the beginning of a line.
    #[default]
    Begin,
    /// After a CR that the line begins with: with an LF it is an empty one.
    Cr,
    /// In a line that is not empty.
    Text,
}

impl Blocks {
    /// Where the current block ends in `fresh`, if it does: behind the first empty line after others.
    pub(super) fn scan(&mut self, fresh: &[u8]) -> Option<usize> {
        let mut rest = fresh;
        loop {
            match (self.line, rest) {
                (_, []) => return None,
                (Line::Text, _) => {
                    rest = rest.get(memchr(b'\n', rest)? + 1..)?;
                    self.line = Line::Begin;
                }
                (line, [b'\n', after @ ..]) => {
                    rest = after;
                    if self.has_text {
                        *self = Self::default();
                        return Some(fresh.len() - rest.len());
                    }
                    self.empty = self.empty.saturating_add(if line == Line::Cr { 2 } else { 1 });
                    self.line = Line::Begin;
                }
                (Line::Begin, [b'\r', after @ ..]) => {
                    rest = after;
                    self.line = Line::Cr;
                }
                (Line::Begin | Line::Cr, _) => {
                    self.line = Line::Text;
                    self.has_text = true;
                }
            }
        }
    }

    /// Whether the octets since the last block's end are a postamble if the input ends now: empty lines.
    pub(super) fn may_be_postamble(&self) -> bool {
        let pending = usize::from(self.line == Line::Cr);
        !self.has_text && self.empty + pending <= PREAMBLE_BYTES_MAX
    }

    /// What it means that the input ends here.
    pub(super) fn finish(&self) -> Finish {
        Finish { is_postamble: self.may_be_postamble(), oddity: None }
    }
}

/// `block` without empty lines around it, and without the end of its last line.
pub(super) fn without_ends(block: &[u8]) -> &[u8] {
    let mut rest = block;
    while let [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] = rest {
        rest = after;
    }
    lines::without_end(lines::without_end(rest))
}

/// Name and value of a line `Name: value`, as it stands between two line ends; blanks around the value
/// (space and tabulator) are none of it.
pub(super) fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let colon = memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let is_text = |octet: &u8| !matches!(octet, b' ' | b'\t');
    let begin = value.iter().skip(1).position(is_text).map_or(value.len(), |at| at + 1);
    let end = value.iter().rposition(is_text).map_or(0, |at| at + 1);
    Some((name, value.get(begin..end).unwrap_or_default()))
}

/// Whether these octets, all of an input or its beginning, are blocks of lines `Name: value` and nothing else.
///
/// There are two at least, all begin with a line of the same name, and that name does not come again in its
/// block: so a log, in which it is a level, is none.
pub(super) fn are_beyond_doubt(octets: &[u8], is_all: bool) -> bool {
    let (mut splitter, mut rest, mut blocks) = (Blocks::default(), octets, 0);
    let mut first = None;
    loop {
        let (end, is_cut) = match splitter.scan(rest) {
            Some(end) => (end, false),
            None => (rest.len(), !is_all),
        };
        let Some((block, after)) = rest.split_at_checked(end) else { return false };
        let mut text = without_ends(block);
        if is_cut {
            // The last line may go on behind the window.
            let end = text.iter().rposition(|octet| *octet == b'\n').unwrap_or(0);
            text = text.get(..end).unwrap_or_default();
        }
        if !text.is_empty() {
            let mut lines = text.split(|octet| *octet == b'\n').map(name);
            let name = lines.next().flatten();
            let (mut count, mut is_fine) = (1, name.is_some() && *first.get_or_insert(name) == name);
            for other in lines {
                is_fine &= other.is_some() && other != name;
                count += 1;
            }
            if !is_fine || (count < 2 && !is_cut) {
                return false;
            }
            blocks += usize::from(!is_cut);
        }
        if after.is_empty() {
            return blocks >= 2;
        }
        rest = after;
    }
}

/// The name that a line `Name: value` begins with.
fn name(line: &[u8]) -> Option<&[u8]> {
    let (name, _) = name_and_value(line)?;
    let after = line.get(name.len() + 1..)?;
    let is_spaced = matches!(after.first(), None | Some(b' ' | b'\t' | b'\r'));
    let is_name = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-_.[]".contains(octet));
    (is_spaced && is_name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(input: &[u8]) -> (Vec<&[u8]>, &[u8], bool) {
        let (mut splitter, mut rest, mut blocks) = (Blocks::default(), input, Vec::new());
        while let Some(end) = splitter.scan(rest) {
            blocks.push(&rest[..end]);
            rest = &rest[end..];
        }
        (blocks, rest, splitter.finish().is_postamble)
    }

    #[test]
    fn a_block_ends_behind_the_first_empty_line() {
        let (blocks, rest, is_postamble) = split(b"a: 1\nb: 2\n\nc: 3\r\n\r\n\n\r\n \n\rx\n\nd");
        assert_eq!(blocks, [&b"a: 1\nb: 2\n\n"[..], b"c: 3\r\n\r\n", b"\n\r\n \n\rx\n\n"]);
        assert_eq!((rest, is_postamble), (&b"d"[..], false));
    }

    #[test]
    fn empty_lines_at_the_end_are_no_block() {
        for tail in [&b"\n"[..], b"\r\n\n", b"\n\r", b"\r"] {
            let input = [b"a\n\n", tail].concat();
            assert_eq!(split(&input), (vec![&b"a\n\n"[..]], tail, true), "{}", tail.escape_ascii());
        }
        let mut splitter = Blocks::default();
        assert_eq!(splitter.scan(&[b'\n'; PREAMBLE_BYTES_MAX]), None);
        assert!(splitter.may_be_postamble());
        assert_eq!(splitter.scan(b"\r"), None);
        assert!(!splitter.may_be_postamble(), "too long for a postamble");
    }

    #[test]
    fn the_content_of_a_block_is_its_lines() {
        for (block, content) in [
            ("a\nb\n\n", "a\nb"),
            ("\n\r\na\r\nb\r\n\r\n", "a\r\nb"),
            ("a\n", "a"),
            ("a\r", "a\r"),
            ("\n\n", ""),
            ("", ""),
        ] {
            assert_eq!(without_ends(block.as_bytes()), content.as_bytes(), "{block:?}");
        }
    }

    #[test]
    fn a_line_has_a_name_and_a_value() {
        for (line, name, value) in [
            ("Event-Name: HANGUP\r", "Event-Name", "HANGUP"),
            ("a:b: c ", "a", "b: c"),
            ("a: \t", "a", ""),
            ("a:", "a", ""),
            (":", "", ""),
            (" a :b", " a ", "b"),
        ] {
            let expected = (name.as_bytes(), value.as_bytes());
            assert_eq!(name_and_value(line.as_bytes()), Some(expected), "{line:?}");
        }
        assert_eq!(name_and_value(b"no colon"), None);
    }

    #[test]
    fn only_what_agrees_throughout_is_believed() {
        for (input, is_all, expected) in [
            ("Event: A\nId: 1\n\nEvent: B\nId: 2\n\n", true, true),
            ("Event: A\r\nId: 1\r\n\r\nEvent: B\r\nId:\r\n", true, true),
            ("\nEvent: A\nId: 1\n\n\n\nEvent: B\nId: 2", true, true),
            // A name may come again, unless it is the first.
            ("Event: A\nId: 1\nId: 2\n\nEvent: B\nId: 2\n\n", true, true),
            ("INFO: a\nINFO: b\n\nINFO: c\nWARN: d\n", true, false),
            ("Event: A\nId: 1\n\nReply: B\nId: 2\n\n", true, false),
            ("Event: A\nId: 1\n\n", true, false),
            ("Event: A\n\nEvent: B\n\n", true, false),
            ("Event: A\nno name\n\nEvent: B\nId: 2\n\n", true, false),
            ("Event: A\nat:12:30\n\nEvent: B\nId: 2\n\n", true, false),
            ("Event: A\nId: 1\n\nEvent: B\nI", true, false),
            ("Event: A\nId: 1\n\nEvent: B\nId: 2\n\nEvent: C\nI", false, true),
            ("Event: A\nId: 1\n\nEvent: B\nId: 2\n\nEv", false, true),
            ("", true, false),
            ("\n\n", true, false),
        ] {
            assert_eq!(are_beyond_doubt(input.as_bytes(), is_all), expected, "{input:?}");
        }
    }
}

//! Lines: each ends with its LF.

use memchr::memchr;

/// Where the current line ends in `fresh`, if it does.
pub(super) fn scan(fresh: &[u8]) -> Option<usize> {
    memchr(b'\n', fresh).map(|at| at + 1)
}

/// `line` without its LF or CRLF.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_after_its_lf() {
        assert_eq!(scan(b"a\r\nb\n"), Some(3));
        assert_eq!(scan(b"\n"), Some(1));
        assert_eq!(scan(b"a\rb"), None);
    }

    #[test]
    fn only_lf_and_crlf_are_line_ends() {
        assert_eq!(without_end(b"a\n"), b"a");
        assert_eq!(without_end(b"a\r\n"), b"a");
        assert_eq!(without_end(b"a\r\r\n"), b"a\r");
        assert_eq!(without_end(b"a\r"), b"a\r");
        assert_eq!(without_end(b"\n"), b"");
        assert_eq!(without_end(b""), b"");
    }
}

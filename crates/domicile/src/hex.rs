//! Hexadecimal, for key files, ids and messages.

use std::fmt::Write;

/// Two lower-case digits an octet.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// Exactly `N` octets in lower-case digits.
#[must_use]
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N * 2 {
        return None;
    }
    let mut bytes = [0; N];
    for (octet, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (value(*pair.first()?)?, value(*pair.get(1)?)?);
        *octet = high << 4 | low;
    }
    Some(bytes)
}

/// Any number of octets in lower-case digits.
#[must_use]
pub fn decode_any(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(value(*pair.first()?)? << 4 | value(*pair.get(1)?)?)).collect()
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_back() {
        assert_eq!(encode(&[0, 0x9a, 0xff]), "009aff");
        assert_eq!(decode("009aff"), Some([0, 0x9a, 0xff]));
        for bad in ["009af", "009afff0", "009AFF", "00 aff"] {
            assert_eq!(decode::<3>(bad), None, "{bad}");
        }
    }
}

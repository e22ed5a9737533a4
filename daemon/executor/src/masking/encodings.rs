//! The forms in which a secret may be printed: raw, base64 and base64url at each alignment, hex in both cases,
//! percent-encoded, JSON-escaped, shell-quoted. Pure.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Every pattern to look for; some may be equal to others. None is empty if `secret` is not.
pub(super) fn all(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut patterns = vec![
        secret.to_vec(),
        hex(secret, b"0123456789abcdef"),
        hex(secret, b"0123456789ABCDEF"),
        percent(secret, b"0123456789ABCDEF", false),
        percent(secret, b"0123456789abcdef", false),
        percent(secret, b"0123456789ABCDEF", true),
        json(secret),
        shell(secret),
    ];
    for alphabet in [STANDARD, URL_SAFE] {
        for alignment in 0..3 {
            patterns.push(base64(secret, alphabet, alignment));
        }
    }
    patterns.retain(|pattern| !pattern.is_empty());
    patterns
}

/// The digits that depend on nothing but the secret when `alignment` unknown bytes stand before it.
fn base64(secret: &[u8], alphabet: &[u8; 64], alignment: usize) -> Vec<u8> {
    let bit = |at: usize| {
        let byte = (at / 8).checked_sub(alignment).and_then(|index| secret.get(index)).copied().unwrap_or(0);
        usize::from(byte >> (7 - at % 8) & 1)
    };
    let first = (alignment * 8).div_ceil(6);
    let end = (alignment + secret.len()) * 8 / 6;
    (first..end).map(|digit| alphabet[(0..6).fold(0, |value, index| value << 1 | bit(digit * 6 + index))]).collect()
}

fn hex(secret: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    secret.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

/// RFC 3986, all but unreserved; `plus` writes a space as forms do.
fn percent(secret: &[u8], digits: &[u8; 16], plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() * 3);
    for &byte in secret {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            b' ' if plus => out.push(b'+'),
            _ => out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

/// RFC 8259 as serializers write it: the short escapes, and `\u00xx` for other control characters.
fn json(secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() + 8);
    for &byte in secret {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            8 => out.extend(b"\\b"),
            12 => out.extend(b"\\f"),
            0..32 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out
}

/// The inside of single quotes, as shells print it.
fn shell(secret: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() + 8);
    for &byte in secret {
        if byte == b'\'' { out.extend(b"'\\''") } else { out.push(byte) }
    }
    out
}

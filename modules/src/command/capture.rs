//! What a command printed, as its result keeps it: the first and the last of it, in bounded memory.

use std::collections::VecDeque;

use lockstep_apis::v1alpha::Value;

/// Kept of the beginning, and as much of the end: 64 KiB a stream. Everything goes to the log besides.
const KEPT: usize = 32 << 10;

/// One stream.
#[derive(Debug, Default)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Capture {
    /// Takes in what came.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(KEPT)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(KEPT);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// Adds to a result the text, without one line break at its end as the shell's `$(…)`; if it is no UTF-8, also all
    /// that was kept in base 64; if not all was kept, also how many bytes there were.
    pub(super) fn describe<'k>(&self, [text, base64, bytes]: [&'k str; 3], result: &mut Vec<(&'k str, Value)>) {
        let kept = self.kept();
        let cut = (self.total > kept.len() as u64).then(|| self.total - kept.len() as u64);
        result.push((text, Value::text(self.text(cut))));
        if std::str::from_utf8(&kept).is_err() && cut.is_none() {
            result.push((base64, Value::text(encode(&kept))));
        }
        if cut.is_some() {
            result.push((bytes, i64::try_from(self.total).unwrap_or(i64::MAX).into()));
        }
    }

    /// The last line that is not blank.
    pub(super) fn last_line(&self) -> Option<String> {
        let kept = self.kept();
        let text = String::from_utf8_lossy(&kept);
        text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    }

    fn kept(&self) -> Vec<u8> {
        let mut kept = self.head.clone();
        kept.extend(&self.tail);
        kept
    }

    fn text(&self, cut: Option<u64>) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        let mut text = match cut {
            None => String::from_utf8_lossy(&self.kept()).into_owned(),
            Some(cut) => {
                let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
                format!("{head}\n… {cut} bytes were cut …\n{tail}")
            }
        };
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        text
    }
}

/// RFC 4648, section 4.
fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * nth) & 63) as usize];
            text.push(if nth <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(capture: &Capture) -> Vec<(&'static str, Value)> {
        let mut result = Vec::new();
        capture.describe(["text", "base64", "bytes"], &mut result);
        result
    }

    #[test]
    fn base_64_is_that_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(encode(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn one_line_break_at_the_end_is_left_out() {
        let mut capture = Capture::default();
        capture.take(b"a\nb\n\n");
        assert_eq!(described(&capture), [("text", Value::text("a\nb\n"))]);
    }

    #[test]
    fn of_much_output_the_first_and_the_last_are_kept() {
        let mut capture = Capture::default();
        capture.take(b"first ");
        for _ in 0..1000 {
            capture.take(&[b'.'; 1000]);
        }
        capture.take(b" last");
        assert!(capture.head.len() == KEPT && capture.tail.len() == KEPT);
        let result = described(&capture);
        let text = result[0].1.as_text().unwrap();
        assert!(text.starts_with("first ") && text.ends_with(" last") && text.contains("bytes were cut"));
        assert_eq!(result[1], ("bytes", Value::from(1_000_011i64)));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_losslessly() {
        let mut capture = Capture::default();
        capture.take(b"\xff\xfe");
        assert_eq!(described(&capture)[1], ("base64", Value::text("//4=")));
    }
}

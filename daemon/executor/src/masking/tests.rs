//! Every encoding, every cut.

use super::*;

const SECRET: &str = "p4ss\"w'rd\n/+ é~tok";

fn masker(secrets: &[&str]) -> Masker {
    let mut masker = Masker::new();
    for secret in secrets {
        masker.add(secret.as_bytes());
    }
    masker
}

fn in_chunks(masker: &Masker, text: &[u8], borders: &[usize]) -> String {
    let mut stream = Stream::default();
    let (mut out, mut from) = (Vec::new(), 0);
    for border in borders.iter().copied().chain([text.len()]) {
        stream.push(masker, &text[from..border], &mut out);
        from = border;
    }
    stream.finish(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit <= chunk.len() { char::from(DIGITS[index]) } else { '=' });
        }
    }
    out
}

#[test]
fn each_encoding_is_masked() {
    let masker = masker(&[SECRET]);
    let hex: String = SECRET.bytes().map(|b| format!("{b:02x}")).collect();
    for (what, printed) in [
        ("raw", SECRET.to_owned()),
        ("base64", base64_of(SECRET.as_bytes())),
        ("base64url", base64_of(SECRET.as_bytes()).replace('+', "-").replace('/', "_")),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("url", "p4ss%22w%27rd%0A%2F%2B%20%C3%A9~tok".to_owned()),
        ("form", "p4ss%22w%27rd%0A%2F%2B+%C3%A9~tok".to_owned()),
        ("json", serde_json::to_string(SECRET).unwrap().trim_matches('"').to_owned()),
        ("shell", SECRET.replace('\'', "'\\''")),
    ] {
        let masked = masker.mask_text(&format!("<{printed}>")).into_owned();
        assert!(masked.starts_with("<***"), "{what}: {masked}");
        // Of base64 the last digit holds bits of what follows; it may stay, with its padding.
        assert!(masked.len() <= "<***xx==>".len(), "{what}: {masked}");
    }
}

#[test]
fn base64_is_masked_at_each_alignment() {
    let masker = masker(&["correct horse battery"]);
    for before in ["", "a", "ab", "abc", "abcd"] {
        let encoded = base64_of(format!("{before}correct horse battery{before}").as_bytes());
        let masked = masker.mask_text(&encoded).into_owned();
        assert!(masked.contains("***"), "{before}: {masked}");
        assert!(masked.len() <= 3 + 2 * (before.len() * 4).div_ceil(3) + 6, "{before}: {masked}");
    }
}

#[test]
fn every_pair_of_cuts_gives_the_same_text() {
    let masker = masker(&["hunter2hunter3", "hunter2", "ter3xy"]);
    let text = b"a hunter2 b hunter2hunter3xy c hunter2hunt";
    let whole = in_chunks(&masker, text, &[]);
    assert_eq!(whole, "a *** b *** c ***hunt");
    for first in 0..text.len() {
        for second in first..text.len() {
            assert_eq!(in_chunks(&masker, text, &[first, second]), whole, "cut at {first} and {second}");
        }
    }
}

#[test]
fn overlapping_secrets_leave_no_rest() {
    assert_eq!(masker(&["abcdef", "defghi"]).mask_text("xabcdefghix"), "x***x");
}

#[test]
fn stream_holds_back_only_what_may_be_a_secret() {
    let masker = masker(&["swordfish"]);
    let mut stream = Stream::default();
    let mut out = Vec::new();
    stream.push(&masker, b"prompt> sword", &mut out);
    assert_eq!(out, b"prompt> ");
    stream.push(&masker, b"play\n", &mut out);
    assert_eq!(out, b"prompt> swordplay\n");
}

#[test]
fn text_cut_inside_a_secret_does_not_show_its_beginning() {
    assert_eq!(masker(&["swordfish"]).mask_cut_text("failed: swordfi"), "failed: ***");
    assert_eq!(masker(&["swordfish"]).mask_text("failed: swordfi"), "failed: swordfi");
}

#[test]
fn short_secret_is_told_and_not_masked() {
    let mut masker = Masker::new();
    assert!(masker.add(b"abc\n"));
    assert!(!masker.add(b"abcd"));
    assert_eq!(masker.mask_text("abc abcd"), "abc ***");
}

#[test]
fn lines_of_a_long_secret_are_masked_alone() {
    let masker = masker(&["-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\n-----END KEY-----\n"]);
    assert_eq!(masker.mask_text("got: MIIEpAIBAAKCAQEA!"), "got: ***!");
}

#[test]
fn values_are_masked_inside_lists_and_maps_and_keys() {
    let masker = masker(&["swordfish"]);
    let mut value = Value::map([("swordfish", Value::list([Value::text("a swordfish"), Value::from(7)]))]);
    masker.mask_value(&mut value);
    assert_eq!(value, Value::map([("***", Value::list([Value::text("a ***"), Value::from(7)]))]));
}

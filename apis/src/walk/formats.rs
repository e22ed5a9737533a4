//! The formats of text fields, and counts or percentages.

mod git;

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use regex::Regex;

use super::Walk;
use crate::{
    descriptor::{Field, Shape},
    name,
    selector::Selector,
    tree::{At, Content, Node, Scalar},
    v1alpha::Format,
    violation::{Path, shown},
};

/// Checks a text against its field's format and pattern.
pub(super) fn check(
    walk: &mut Walk<'_, '_>,
    field: &'static Field,
    format: Format,
    text: &str,
    at: At,
    path: &Path<'_>,
) {
    let wrong = match format {
        Format::Unspecified | Format::Expression | Format::Interpolated | Format::Template => None,
        Format::Name => {
            name::check(text).err().map(|rule| ("InvalidName", format!("{} is no name: {rule}", shown(text))))
        }
        Format::Selector => selector(text),
        Format::Mode => (!is_mode(text)).then(|| {
            ("InvalidMode", format!("{} is no mode: write three or four octal digits, as in \"0644\"", shown(text)))
        }),
        Format::Path => path_fault(text).map(|why| ("InvalidPath", format!("{} is no path: {why}", shown(text)))),
        Format::Identifier => (!is_identifier(text)).then(|| {
            ("InvalidName", format!("{} is no id: a letter, then letters, digits and `_`, at most 63", shown(text)))
        }),
        Format::Checksum => {
            (!is_checksum(text)).then(|| ("Checksum", "a checksum is `sha256:` and 64 hexadecimal digits".to_owned()))
        }
        Format::Unit => (!is_unit(text)).then(|| {
            let rule = "letters, digits and `:-_.\\@`, not beginning with `-` or `.`, at most 255";
            ("InvalidUnit", format!("{} is no name of a unit: {rule}", shown(text)))
        }),
        Format::Package => {
            package_fault(text).map(|why| ("InvalidPackage", format!("{} is no package: {why}", shown(text))))
        }
        Format::Url => url_fault(text).map(|why| ("InvalidURL", format!("the URL {why}"))),
        Format::Crontab => {
            crate::cron::check(text).err().map(|why| ("Schedule", format!("the schedule {} {why}", shown(text))))
        }
        Format::GitUrl => git::url_fault(text).map(|why| ("GitURL", format!("the URL {why}"))),
        Format::GitRef => git::ref_fault(text).map(|why| ("GitRef", format!("{} is no ref: {why}", shown(text)))),
        Format::Regex => Regex::new(text).err().map(|error| {
            // The first lines draw the pattern; the last one says what is wrong.
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            ("Pattern", format!("{} is no regular expression: {why}", shown(text)))
        }),
    };
    if let Some((reason, message)) = wrong {
        walk.violations.push(at, path, reason, message);
    }
    if !field.rules.pattern.is_empty() && !pattern(&field.rules.pattern).is_match(text) {
        let message = format!("{} does not match {}", shown(text), field.rules.pattern);
        walk.violations.push(at, path, "Pattern", message);
    }
}

fn selector(text: &str) -> Option<(&'static str, String)> {
    match Selector::parse(text) {
        Ok(selector) if selector.is_empty() => {
            let message = "an empty selector selects nothing here; for every node say `all: true` in `targets`";
            Some(("EmptySelector", message.into()))
        }
        Ok(_) => None,
        Err(error) => Some(("SelectorSyntax", format!("{} is no selector: {error}", shown(text)))),
    }
}

/// A compiled pattern of the protos: few, so kept for good.
fn pattern(text: &'static str) -> Regex {
    static PATTERNS: OnceLock<Mutex<HashMap<&'static str, Regex>>> = OnceLock::new();
    let mut patterns = PATTERNS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    patterns
        .entry(text)
        .or_insert_with(|| Regex::new(text).expect("invariant: the patterns in the protos compile"))
        .clone()
}

/// Three or four octal digits.
pub(crate) fn is_mode(text: &str) -> bool {
    (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
}

fn is_identifier(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_checksum(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_unit(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || br":-_.\@".contains(&b))
}

/// Why a text is neither a package's name nor `name=version`. It never reaches a shell; so that it never becomes an
/// option or a pattern of a package tool either, only what names and versions are made of is taken.
fn package_fault(text: &str) -> Option<&'static str> {
    let (name, version) = match text.split_once('=') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let rest = |b: u8| b.is_ascii_alphanumeric() || b"+-._:".contains(&b);
    match version {
        _ if name.is_empty() => Some("its name is empty"),
        _ if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) => Some("a name begins with a letter or digit"),
        _ if name.len() > 200 => Some("it is longer than 200 bytes"),
        _ if !name.bytes().all(rest) => Some("a name is letters, digits and `+-._:`, and a version follows `=`"),
        Some("") => Some("no version follows its `=`"),
        Some(version) if version.len() > 200 => Some("its version is longer than 200 bytes"),
        Some(version) if !version.starts_with(|c: char| c.is_ascii_alphanumeric()) => {
            Some("a version begins with a letter or digit")
        }
        Some(version) if !version.bytes().all(|b| rest(b) || b"~^".contains(&b)) => {
            Some("a version is letters, digits and `+-._:~^`")
        }
        _ => None,
    }
}

/// Why a text is no URL to ask. The text itself is not shown: it may hold a password.
fn url_fault(text: &str) -> Option<&'static str> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let Some(rest) =
        ["http://", "https://"].iter().find_map(|scheme| lower.starts_with(scheme).then(|| &text[scheme.len()..]))
    else {
        return Some("begins with neither `http://` nor `https://`");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority {
        "" => Some("names no host"),
        _ if text.len() > 8192 => Some("is longer than 8,192 bytes"),
        _ if authority.contains('@') => Some("holds a user name or password; use a header, with a secret"),
        _ if !text.is_ascii() => Some("holds characters beyond ASCII; write a host as xn--… and the rest with %"),
        _ if text.bytes().any(|b| b <= b' ' || b == 0x7f) => Some("holds a space or control character"),
        _ => None,
    }
}

/// Why a text is no absolute, plain path. `None`: it is one.
pub(crate) fn path_fault(text: &str) -> Option<&'static str> {
    match text {
        "" => Some("it is empty"),
        "/" => Some("`/` itself cannot be managed"),
        _ if !text.starts_with('/') => Some("it must begin with `/`"),
        _ if text.len() > 4096 => Some("it is longer than 4,096 bytes"),
        _ if text.ends_with('/') => Some("it must not end with `/`"),
        _ => text[1..].split('/').find_map(|part| match part {
            "" => Some("it holds `//`"),
            "." | ".." => Some("`.` and `..` are not allowed in it"),
            _ if part.len() > 255 => Some("one of its parts is longer than 255 bytes"),
            _ => None,
        }),
    }
}

/// Field number in `CountOrPercent` and the number.
pub(super) fn count_or_percent(
    walk: &mut Walk<'_, '_>,
    field: &Field,
    node: &Node<'_>,
    path: &Path<'_>,
) -> Option<(u32, u32)> {
    // The bounds of a list are of its length.
    let least = match field.shape {
        Shape::List => 1,
        _ => field.rules.min.and_then(|min| u32::try_from(min).ok()).unwrap_or(1),
    };
    let wanted = format!("a count of at least {least}, or a percentage from \"{least}%\" to \"100%\"");
    match (&node.content, node.scalar()) {
        (_, Some(Scalar::Integer(count))) => {
            if let Some(count) = u32::try_from(count).ok().filter(|count| *count >= least) {
                return Some((1, count));
            }
            walk.out_of_range(node, path, &wanted);
        }
        (_, Some(Scalar::Number(_) | Scalar::HugeInteger)) => walk.out_of_range(node, path, &wanted),
        (_, Some(Scalar::Text(text))) => {
            let digits = text.strip_suffix('%');
            let percent =
                digits.filter(|d| d.len() <= 3 && d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse().ok());
            if let Some(percent) = percent.filter(|percent| (least..=100).contains(percent)) {
                return Some((2, percent));
            }
            let number_in_quotes = matches!(&node.content, Content::Text(text) if text.parse::<f64>().is_ok());
            match (digits.is_some(), number_in_quotes) {
                (true, _) => walk.out_of_range(node, path, &wanted),
                (false, true) => walk.out_of_range(node, path, &format!("{wanted}; a count is written without quotes")),
                (false, false) => walk.mismatch(node, path, &wanted),
            }
        }
        _ => walk.mismatch(node, path, &wanted),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_paths() {
        for good in ["/etc/motd", "/a", "/a b/ü", "/..a/b..c/..."] {
            assert_eq!(path_fault(good), None, "{good}");
        }
        let (long, part) = (format!("/{}", "a/".repeat(2048)), format!("/{}", "a".repeat(256)));
        for bad in ["", "/", "etc", "./etc", "/etc/", "//host", "/a//b", "/a/../b", "/..", "/a/.", &long, &part] {
            assert!(path_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn modes_are_three_or_four_octal_digits() {
        for (text, good) in [
            ("0644", true),
            ("644", true),
            ("1777", true),
            ("999", false),
            ("07777", false),
            ("u+s", false),
            ("", false),
        ] {
            assert_eq!(is_mode(text), good, "{text}");
        }
    }
}

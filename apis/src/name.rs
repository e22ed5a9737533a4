//! The rule for names of objects: RFC 1123 subdomain.

/// The rule, as messages to users quote it.
pub const RULE: &str = "a name is an RFC 1123 subdomain: at most 253 lower-case letters, digits, `-` and `.`, each part between dots \
                        beginning and ending with a letter or digit and at most 63 long";

/// Checks a name. The error is [`RULE`].
pub fn check(name: &str) -> Result<(), &'static str> {
    let part_ok = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        bytes.len() <= 63
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    if name.len() <= 253 && name.split('.').all(part_ok) { Ok(()) } else { Err(RULE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_subdomains_are_names() {
        let long = ["a".repeat(63).as_str(), "b"].join(".");
        for good in ["a", "web1", "a-b.c", "con", "1", long.as_str()] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let too_long = "a.".repeat(127);
        for bad in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a..b",
            ".",
            "..",
            "a/b",
            "a%2fb",
            "a\0b",
            " a",
            "a\n",
            "CON",
            "😀",
            "аdmin",
            "a\u{202e}b",
            too_long.as_str(),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}

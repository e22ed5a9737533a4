//! `file.replaced`: whatever matches a pattern is replaced, all through a file.

use lockstep_apis::v1alpha::Value;
use regex::bytes::Regex;

use super::edit::{Edit, Options, pattern};
use super::state::FileState;
use crate::action::Done;
use crate::module::Refusal;
use crate::parameters::Parameters;

#[derive(Debug)]
struct Replaced {
    /// Set once the parameters are found to be right.
    regexp: Option<Regex>,
    replacement: String,
}

/// Reads the parameters of `file.replaced`.
pub(super) fn read(parameters: &Value) -> Result<FileState, Done> {
    let mut from = Parameters::new(parameters, None);
    let options = Options::read(&mut from);
    let regexp = pattern(&mut from, "regexp");
    if regexp.is_none() {
        from.fault("regexp is missing");
    }
    let replacement = from.text("replacement").unwrap_or_default();
    if let Some(unknown) = regexp.as_ref().and_then(|regexp| unknown_group(regexp, &replacement)) {
        from.fault(format!(
            "replacement reads ${unknown}, and regexp has no such group; before text write ${{1}}, and $$ for a $"
        ));
    }
    options.state(from, Replaced { regexp, replacement })
}

/// The first group that the replacement reads and the pattern does not have: it would be nothing, silently.
fn unknown_group(regexp: &Regex, replacement: &str) -> Option<String> {
    let mut rest = replacement;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let name = match after.strip_prefix('{') {
            Some(inside) => inside.split_once('}').map_or("", |(name, _)| name),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                &after[..end]
            }
        };
        let is_known = match name.parse::<usize>() {
            Ok(number) => number < regexp.captures_len(),
            Err(_) => name.is_empty() || regexp.capture_names().flatten().any(|known| known == name),
        };
        if !is_known {
            return Some(name.to_owned());
        }
        rest = after;
    }
    None
}

impl Edit for Replaced {
    fn edit(&self, path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let Some(regexp) = &self.regexp else { return Ok(old.to_vec()) };
        let replacement = self.replacement.as_bytes();
        let new = regexp.replace_all(old, replacement);
        if *regexp.replace_all(&new, replacement) != *new {
            let message = format!(
                "replacing {:?} in {path} again would change it again; let regexp not match what it makes. \
                 The file is as it was",
                regexp.as_str()
            );
            return Err(Refusal::Module { reason: "NotConverging", message });
        }
        Ok(new.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(old: &str, regexp: &str, replacement: &str) -> Result<String, String> {
        let parameters =
            Value::map([("path", "/f".into()), ("regexp", regexp.into()), ("replacement", replacement.into())]);
        let state = read(&parameters).map_err(|done| done.message)?;
        let new = state.edit(old.as_bytes()).map_err(|refusal| refusal.to_string())?;
        Ok(String::from_utf8(new).unwrap())
    }

    #[test]
    fn every_match_is_replaced_and_the_second_time_none() {
        for (old, regexp, replacement, new) in [
            ("a=1\nb=1\n", r"^(\w)=1$", "$1=2", "a=2\nb=2\n"),
            ("a=1\r\n", r"=\d$", "=2", "a=2\r\n"),
            ("x\ny\n", "^x\n", "", "y\n"),
            ("a", "b", "c", "a"),
            ("http://a http://b", "http://", "https://", "https://a https://b"),
            ("cost", "cost", "$$5", "$5"),
            ("v1", r"v(?<n>\d)", "w${n}0", "w10"),
        ] {
            assert_eq!(edited(old, regexp, replacement), Ok(new.to_owned()), "{regexp}");
        }
    }

    #[test]
    fn what_would_go_on_changing_or_lose_text_is_refused() {
        assert!(edited("a", "a", "aa").unwrap_err().contains("change it again"));
        assert!(edited("a", "(a)", "$1b").unwrap_err().contains("$1b"));
        assert!(edited("a", "(a)", "$2").unwrap_err().contains("$2"));
        assert!(edited("a", "", "x").unwrap_err().contains("regexp is missing"));
    }
}

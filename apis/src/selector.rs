//! Label selectors in Kubernetes' syntax, and the syntax of labels themselves.

use std::collections::BTreeMap;

use thiserror::Error;

/// Most terms of a selector: more is a mistake, and each costs at every match.
pub const MAX_TERMS: usize = 100;

/// The text is not a label selector.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "{message} at column {column}; write terms as `role=web`, `role!=web`, `tier in (a, b)`, `tier notin (a)`, `role` or `!role`, with commas between them"
)]
pub struct SelectorError {
    /// What is wrong.
    pub message: String,
    /// Where in the selector's text, from 1, in characters.
    pub column: u32,
}

/// A parsed selector: all its terms must hold. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// Holds for absent keys, too, as in Kubernetes.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads a selector. The empty text is the empty selector.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        Reader { text, at: 0 }.selector()
    }

    /// Whether the labels satisfy every term.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.terms.iter().all(|term| {
            let value = labels.get(&term.key);
            match &term.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        })
    }

    /// Whether it has no term, and so matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The label keys that it reads, in the order written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.terms.iter().map(|term| term.key.as_str())
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn selector(mut self) -> Result<Selector, SelectorError> {
        let mut terms = Vec::new();
        self.space();
        if self.rest().is_empty() {
            return Ok(Selector { terms });
        }
        loop {
            if terms.len() == MAX_TERMS {
                return Err(self.error(format!("more than {MAX_TERMS} terms")));
            }
            terms.push(self.term()?);
            self.space();
            if self.rest().is_empty() {
                return Ok(Selector { terms });
            }
            if !self.take(",") {
                return Err(self.error("expected a comma or the end"));
            }
        }
    }

    fn term(&mut self) -> Result<Term, SelectorError> {
        self.space();
        if self.take("!") {
            return Ok(Term { key: self.key()?, test: Test::Absent });
        }
        let key = self.key()?;
        self.space();
        let test = if self.take("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.take("==") || self.take("=") {
            Test::In(vec![self.value()?])
        } else if self.take_word("in") {
            Test::In(self.values()?)
        } else if self.take_word("notin") {
            Test::NotIn(self.values()?)
        } else {
            Test::Exists
        };
        Ok(Term { key, test })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        self.space();
        let from = self.at;
        let word = self.word();
        if word.is_empty() {
            return Err(self.error("expected a label key"));
        }
        label_key(word).map_err(|why| Reader { text: self.text, at: from }.error(why))?;
        Ok(word.to_owned())
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.space();
        let from = self.at;
        let word = self.word();
        label_value(word).map_err(|why| Reader { text: self.text, at: from }.error(why))?;
        Ok(word.to_owned())
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        self.space();
        if !self.take("(") {
            return Err(self.error("expected `(`"));
        }
        self.space();
        if self.rest().starts_with(')') {
            return Err(self.error("expected at least one value"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.value()?);
            self.space();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(self.error("expected a comma or `)`"));
            }
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches(' ').len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn take_word(&mut self, word: &str) -> bool {
        let tail = self.rest().strip_prefix(word);
        // `in(a)` and `in (a)`, but not `inner`.
        let found = tail.is_some_and(|tail| tail.starts_with([' ', '(']));
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| " ,()=!".contains(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn error(&self, message: impl Into<String>) -> SelectorError {
        let column = self.text[..self.at].chars().count() + 1;
        SelectorError { message: message.into(), column: u32::try_from(column).unwrap_or(u32::MAX) }
    }
}

/// Checks a label's or annotation's key: `name` or `prefix/name`. The error is a sentence.
pub fn label_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            crate::name::check(prefix).map_err(|_| "the key's prefix is not a DNS name".to_owned())?;
            name
        }
        None => key,
    };
    match !name.is_empty() && label_value(name).is_ok() {
        true => Ok(()),
        false => Err(
            "a label key is 1 to 63 letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit, \
                      with an optional DNS name and `/` before it"
                .into(),
        ),
    }
}

/// Checks a label's value; it may be empty. The error is a sentence.
pub fn label_value(value: &str) -> Result<(), String> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    match bytes.len() <= 63 && bytes.iter().all(|b| inside(*b)) && edge(bytes.first()) && edge(bytes.last()) {
        true => Ok(()),
        false => Err(
            "a label value is at most 63 letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit"
                .into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Selector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_form_of_term_selects_as_kubernetes_does() {
        let web = [("role", "web"), ("tier", "front"), ("example.com/rack", "r1")];
        for yes in [
            "",
            "role",
            "role=web",
            "role==web",
            "role = web",
            "role!=db",
            "!db",
            "missing!=x",
            "role in (web,db)",
            "role in(web)",
            "tier notin (back), role=web",
            "missing notin (a)",
            "example.com/rack=r1",
        ] {
            assert!(matches(yes, &web), "{yes}");
        }
        for no in
            ["role=db", "!role", "missing", "role!=web", "role in (db)", "role notin (web)", "role=web,!tier", "role="]
        {
            assert!(!matches(no, &web), "{no}");
        }
        assert!(matches("inner", &[("inner", "")]));
    }

    #[test]
    fn what_is_no_selector_is_refused_with_its_column() {
        for (text, column) in [
            ("a in ()", 7),
            ("a in (b", 8),
            ("!", 2),
            ("==", 1),
            ("a,", 3),
            ("a b", 3),
            ("a=~b.*", 3),
            ("a=b c", 5),
            (",a", 1),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().column, column, "{text}");
        }
        assert!(Selector::parse(&"a,".repeat(10_000)).unwrap_err().message.contains("more than"));
    }
}

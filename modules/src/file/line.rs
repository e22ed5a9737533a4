//! `file.line`: a line is in a file, or none that is like it.

use lockstep_apis::v1alpha::Value;
use regex::bytes::Regex;

use super::edit::{Edit, Nothing, Options, Position, pattern};
use super::lines::Lines;
use super::state::FileState;
use crate::action::Done;
use crate::module::Refusal;
use crate::parameters::Parameters;

#[derive(Debug)]
struct Line {
    line: Option<String>,
    regexp: Option<Regex>,
    absent: bool,
    position: Position,
}

/// Reads the parameters of `file.line`.
pub(super) fn read(parameters: &Value) -> Result<FileState, Done> {
    let mut from = Parameters::new(parameters, None);
    let options = Options::read(&mut from);
    let line = from.text("line").filter(|line| !line.is_empty());
    let regexp = pattern(&mut from, "regexp");
    let wanted = Line { line, regexp, absent: from.flag("absent"), position: Position::read(&mut from) };
    wanted.check(&mut from);
    options.state(from, wanted)
}

impl Line {
    fn check(&self, from: &mut Parameters<'_>) {
        match &self.line {
            None if !self.absent => from.fault("line is missing"),
            None if self.regexp.is_none() => from.fault("absent needs line or regexp"),
            Some(line) if line.contains(['\n', '\r']) => from.fault("line holds a line break; use file.block"),
            Some(line)
                if !self.absent && self.regexp.as_ref().is_some_and(|regexp| !regexp.is_match(line.as_bytes())) =>
            {
                // It would be added again on every run.
                from.fault("regexp does not match line, so it would never be found again");
            }
            _ => {}
        }
    }

    fn is_meant(&self, text: &[u8]) -> bool {
        let same = || self.line.as_ref().is_some_and(|line| line.as_bytes() == text);
        match &self.regexp {
            Some(regexp) if self.absent => regexp.is_match(text) || same(),
            Some(regexp) => regexp.is_match(text),
            None => same(),
        }
    }
}

impl Edit for Line {
    fn edit(&self, path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut lines = Lines::of(old);
        let mut found = lines.positions(|text| self.is_meant(text));
        let line = match &self.line {
            Some(line) if !self.absent => line.as_bytes(),
            _ => {
                lines.remove(found);
                return Ok(lines.bytes());
            }
        };
        if found.is_empty() {
            let at = self.position.find(path, &lines)?;
            lines.splice(at, at, [line]);
        } else if self.regexp.is_some() {
            // One remains: the one that is right already, else the first.
            let right = lines.positions(|text| text == line);
            let kept = right.first().copied().unwrap_or(found[0]);
            lines.replace(kept, line);
            found.retain(|at| *at != kept);
            lines.remove(found);
        }
        Ok(lines.bytes())
    }

    fn without_file(&self) -> Nothing {
        if self.absent { Nothing::Done } else { Nothing::Missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(old: &str, parameters: &[(&str, Value)]) -> Result<String, String> {
        let path = [("path", Value::text("/f"))];
        let parameters = Value::map(path.into_iter().chain(parameters.iter().cloned()));
        let state = read(&parameters).map_err(|done| done.message)?;
        let edit = |old: &str| -> Result<String, String> {
            let new = state.edit(old.as_bytes()).map_err(|refusal| refusal.to_string())?;
            Ok(String::from_utf8(new).unwrap())
        };
        let new = edit(old)?;
        assert_eq!(edit(&new), Ok(new.clone()), "the second time changes something");
        Ok(new)
    }

    #[test]
    fn a_line_is_there_once_the_action_is_done() {
        let (line, regexp) = (("line", Value::text("Port 22")), ("regexp", Value::text("^#?Port ")));
        for (old, new, with_regexp) in [
            ("", "Port 22\n", false),
            ("a\nPort 22\nb\n", "a\nPort 22\nb\n", false),
            ("a", "a\nPort 22\n", false),
            ("a\r\n", "a\r\nPort 22\r\n", false),
            (" Port 22\n", " Port 22\nPort 22\n", false),
            ("Port 22\nPort 22\n", "Port 22\nPort 22\n", false),
            ("a\n#Port 1\nb\n", "a\nPort 22\nb\n", true),
            ("#Port 1\nPort 22\nPort 3\n", "Port 22\n", true),
            ("Port 1\r\nb", "Port 22\r\nb", true),
            ("b\nPort 1", "b\nPort 22", true),
            ("b\n", "b\nPort 22\n", true),
        ] {
            let parameters = if with_regexp { vec![line.clone(), regexp.clone()] } else { vec![line.clone()] };
            assert_eq!(edited(old, &parameters), Ok(new.to_owned()), "{old:?}");
        }
    }

    #[test]
    fn a_new_line_goes_where_it_was_asked_for_or_nowhere() {
        let line = ("line", Value::text("x"));
        for (old, position, pattern, new) in [
            ("a\nb\na\nc\n", "insertAfter", "^a$", "a\nb\na\nx\nc\n"),
            ("a\nb\na\nc\n", "insertBefore", "^a$", "x\na\nb\na\nc\n"),
            ("a", "insertAfter", "a", "a\nx\n"),
            ("a\nb\n", "insertBefore", "^", "x\na\nb\n"),
        ] {
            assert_eq!(edited(old, &[line.clone(), (position, Value::text(pattern))]), Ok(new.to_owned()), "{old:?}");
        }
        let refused = edited("a\n", &[line.clone(), ("insertAfter", Value::text("^b"))]).unwrap_err();
        assert!(refused.contains("insertAfter \"^b\" matches no line of /f"), "{refused}");
        assert_eq!(edited("x\n", &[line, ("insertAfter", Value::text("^b"))]), Ok("x\n".to_owned()));
    }

    #[test]
    fn lines_are_taken_out_and_the_rest_stays() {
        let absent = ("absent", Value::from(true));
        for (old, parameter, new) in [
            ("a\nb\na\n", ("line", "a"), "b\n"),
            ("a1\nb\na2", ("regexp", "^a"), "b\n"),
            ("b", ("regexp", "^a"), "b"),
            ("a\n", ("line", "a"), ""),
        ] {
            let parameters = [absent.clone(), (parameter.0, Value::text(parameter.1))];
            assert_eq!(edited(old, &parameters), Ok(new.to_owned()), "{old:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let parameters = Value::map([("path", "/f".into()), ("line", "x".into())]);
        let state = read(&parameters).unwrap();
        assert_eq!(state.edit(b"\xff\xfe\n").unwrap(), b"\xff\xfe\nx\n");
    }

    #[test]
    fn what_would_not_converge_or_is_no_line_is_refused() {
        for (parameters, word) in [
            (vec![("line", "a"), ("regexp", "^b")], "never be found again"),
            (vec![("line", "a\nb")], "line break"),
            (vec![], "line is missing"),
            (vec![("line", "a"), ("regexp", "(")], "no regular expression"),
            (vec![("line", "a"), ("insertBefore", "x"), ("insertAfter", "y")], "exclude each other"),
        ] {
            let parameters: Vec<_> = parameters.into_iter().map(|(key, text)| (key, Value::text(text))).collect();
            let refused = edited("", &parameters).unwrap_err();
            assert!(refused.contains(word), "{refused}");
        }
    }
}

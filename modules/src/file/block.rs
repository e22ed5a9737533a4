//! `file.block`: lines between two markers.

use lockstep_apis::v1alpha::Value;

use super::edit::{Edit, Nothing, Options, Position};
use super::lines::Lines;
use super::managed::text;
use super::state::FileState;
use crate::action::Done;
use crate::module::Refusal;
use crate::parameters::Parameters;

#[derive(Debug)]
struct Block {
    /// `None`: neither lines nor markers.
    lines: Option<String>,
    begin: String,
    end: String,
    position: Position,
}

/// Reads the parameters of `file.block`.
pub(super) fn read(parameters: &Value) -> Result<FileState, Done> {
    let mut from = Parameters::new(parameters, None);
    let options = Options::read(&mut from);
    let name = from.required("name");
    let comment = from.text("comment").unwrap_or_else(|| "#".to_owned());
    let comment_end = from.text("commentEnd").filter(|end| !end.is_empty());
    for (what, text) in
        [("name", &name), ("comment", &comment), ("commentEnd", comment_end.as_ref().unwrap_or(&comment))]
    {
        if text.contains(['\n', '\r']) {
            from.fault(format!("{what} holds a line break"));
        }
    }
    let marker = |word: &str| {
        let end = comment_end.as_ref().map(|end| format!(" {end}")).unwrap_or_default();
        format!("{comment} {word} {name} (lockstep){end}").trim_start().to_owned()
    };
    let content = text(&mut from);
    let lines = match (content, from.flag("absent")) {
        (content, false) => {
            if content.is_none() {
                from.fault("content or template is missing; to take the block out, say absent: true");
            }
            Some(content.unwrap_or_default())
        }
        (None, true) => None,
        (Some(_), true) => {
            from.fault("absent and a content exclude each other");
            None
        }
    };
    let block = Block { lines, begin: marker("BEGIN"), end: marker("END"), position: Position::read(&mut from) };
    if block.texts().any(|line| block.is_marker(line)) {
        from.fault("the content holds a marker of its own block");
    }
    options.state(from, block)
}

impl Block {
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.as_deref().unwrap_or_default().lines().map(str::as_bytes)
    }

    fn is_marker(&self, line: &[u8]) -> bool {
        line == self.begin.as_bytes() || line == self.end.as_bytes()
    }

    /// The lines of both markers, if the block is there.
    fn find(&self, path: &str, lines: &Lines<'_>) -> Result<Option<(usize, usize)>, Refusal> {
        let begins = lines.positions(|line| line == self.begin.as_bytes());
        let ends = lines.positions(|line| line == self.end.as_bytes());
        match (&begins[..], &ends[..]) {
            ([], []) => Ok(None),
            ([begin], [end]) if begin < end => Ok(Some((*begin, *end))),
            _ => {
                let numbers = |at: &[usize]| {
                    let numbers: Vec<String> = at.iter().take(3).map(|at| (at + 1).to_string()).collect();
                    if numbers.is_empty() { "nowhere".to_owned() } else { format!("in line {}", numbers.join(", ")) }
                };
                let message = format!(
                    "{path} has the marker {:?} {} and its end {}; mend it by hand, the file is as it was",
                    self.begin,
                    numbers(&begins),
                    numbers(&ends)
                );
                Err(Refusal::Module { reason: "BrokenMarkers", message })
            }
        }
    }
}

impl Edit for Block {
    fn edit(&self, path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut lines = Lines::of(old);
        let found = self.find(path, &lines)?;
        match (found, &self.lines) {
            (None, None) => {}
            (Some((begin, end)), None) => lines.splice(begin, end + 1, []),
            (Some((begin, end)), Some(_)) => {
                if !lines.texts(begin + 1, end).eq(self.texts()) {
                    lines.splice(begin + 1, end, self.texts());
                }
            }
            (None, Some(_)) => {
                let at = self.position.find(path, &lines)?;
                let begin = std::iter::once(self.begin.as_bytes());
                lines.splice(at, at, begin.chain(self.texts()).chain([self.end.as_bytes()]));
            }
        }
        Ok(lines.bytes())
    }

    fn without_file(&self) -> Nothing {
        if self.lines.is_none() { Nothing::Done } else { Nothing::Missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(more: &[(&str, Value)]) -> Result<FileState, Done> {
        let parameters = [("path", Value::text("/f")), ("name", Value::text("web"))];
        read(&Value::map(parameters.into_iter().chain(more.iter().cloned())))
    }

    fn edited(old: &str, more: &[(&str, Value)]) -> Result<String, String> {
        let state = block(more).map_err(|done| done.message)?;
        let new = state.edit(old.as_bytes()).map_err(|refusal| refusal.to_string())?;
        assert_eq!(state.edit(&new).unwrap(), new, "the second time changes something");
        Ok(String::from_utf8(new).unwrap())
    }

    const BEGIN: &str = "# BEGIN web (lockstep)";
    const END: &str = "# END web (lockstep)";

    #[test]
    fn a_block_is_added_then_only_its_inside_is_replaced() {
        let content = |text: &str| ("content", Value::text(text));
        let placed = format!("a\n{BEGIN}\nx\ny\n{END}\n");
        assert_eq!(edited("a\n", &[content("x\ny\n")]), Ok(placed.clone()));
        assert_eq!(edited("a", &[content("x\ny")]), Ok(placed.clone()));
        assert_eq!(edited(&placed, &[content("z")]), Ok(format!("a\n{BEGIN}\nz\n{END}\n")));
        assert_eq!(edited(&placed, &[content("")]), Ok(format!("a\n{BEGIN}\n{END}\n")));
        let crlf = placed.replace('\n', "\r\n");
        assert_eq!(edited(&crlf, &[content("x\ny")]), Ok(crlf.clone()));
        assert_eq!(edited(&format!("{placed}b"), &[("absent", true.into())]), Ok("a\nb".to_owned()));
        assert_eq!(edited("b", &[("absent", true.into())]), Ok("b".to_owned()));
        let first = edited("a\nb\n", &[content("x"), ("insertBefore", "^a".into())]);
        assert_eq!(first, Ok(format!("{BEGIN}\nx\n{END}\na\nb\n")));
    }

    #[test]
    fn markers_are_comments_of_the_files_language() {
        let more = [("content", "x".into()), ("comment", "<!--".into()), ("commentEnd", "-->".into())];
        assert_eq!(edited("", &more), Ok("<!-- BEGIN web (lockstep) -->\nx\n<!-- END web (lockstep) -->\n".to_owned()));
    }

    #[test]
    fn broken_markers_are_named_and_nothing_is_guessed() {
        for old in [
            format!("{BEGIN}\nx\n"),
            format!("{END}\n"),
            format!("{END}\n{BEGIN}\n"),
            format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n"),
        ] {
            for more in [("content", Value::text("x")), ("absent", true.into())] {
                let refused = edited(&old, &[more]).unwrap_err();
                assert!(refused.contains("mend it by hand"), "{refused}");
            }
        }
        let refused = edited("", &[("content", Value::text(END))]).unwrap_err();
        assert!(refused.contains("marker of its own"), "{refused}");
    }
}

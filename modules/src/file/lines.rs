//! A text as lines of bytes, each with its own ending: what an edit does not touch stays as it was, byte for byte.

/// The lines of a text.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    lines: Vec<Line<'a>>,
    /// What ends lines that are added: as the first line does.
    ending: &'static [u8],
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    text: &'a [u8],
    /// Empty only at the end of a text without a last line break.
    ending: &'a [u8],
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a [u8]) -> Lines<'a> {
        let lines: Vec<Line<'a>> = text.split_inclusive(|byte| *byte == b'\n').map(Line::of).collect();
        let crlf = lines.first().is_some_and(|line| line.ending == b"\r\n");
        Lines { lines, ending: if crlf { b"\r\n" } else { b"\n" } }
    }

    /// Numbers of the lines, from 0, that are like that.
    pub(crate) fn positions(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Vec<usize> {
        let wanted = self.lines.iter().enumerate().filter(|(_, line)| is_wanted(line.text));
        wanted.map(|(at, _)| at).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Gives the line another text; its ending stays.
    pub(crate) fn replace(&mut self, at: usize, text: &'a [u8]) {
        self.lines[at].text = text;
    }

    /// Puts other lines in place of those from `from` to before `to`.
    pub(crate) fn splice(&mut self, from: usize, to: usize, texts: impl IntoIterator<Item = &'a [u8]>) {
        let ending = self.ending;
        // A line that is no longer the last one ends like the others.
        if let Some(before) = from.checked_sub(1).and_then(|at| self.lines.get_mut(at))
            && before.ending.is_empty()
        {
            before.ending = ending;
        }
        self.lines.splice(from..to, texts.into_iter().map(|text| Line { text, ending }));
    }

    pub(crate) fn remove(&mut self, mut at: Vec<usize>) {
        at.sort_unstable();
        let mut number = 0;
        self.lines.retain(|_| {
            number += 1;
            at.binary_search(&(number - 1)).is_err()
        });
    }

    /// The texts of the lines from `from` to before `to`.
    pub(crate) fn texts(&self, from: usize, to: usize) -> impl Iterator<Item = &'a [u8]> {
        self.lines[from..to].iter().map(|line| line.text)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| [line.text, line.ending].concat()).collect()
    }
}

impl<'a> Line<'a> {
    fn of(whole: &'a [u8]) -> Line<'a> {
        let text = whole.strip_suffix(b"\n").unwrap_or(whole);
        let text = if text.len() < whole.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        Line { text, ending: &whole[text.len()..] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_byte_for_byte() {
        for text in ["", "\n", "a", "a\n", "a\r\nb", "a\rb\n\r\n", "\r"] {
            assert_eq!(Lines::of(text.as_bytes()).bytes(), text.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn added_lines_end_as_the_others_do() {
        let mut lines = Lines::of(b"a\r\nb");
        lines.splice(2, 2, [&b"c"[..]]);
        assert_eq!(lines.bytes(), b"a\r\nb\r\nc\r\n");
        let mut lines = Lines::of(b"a\nb");
        lines.splice(0, 1, []);
        assert_eq!(lines.bytes(), b"b");
    }
}

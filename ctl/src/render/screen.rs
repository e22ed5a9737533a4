//! What standard output is: how wide, and whether colour says anything there. The only file that asks.

use std::{
    env,
    io::{self, IsTerminal},
};

/// Of what is no terminal, and of a terminal that does not know its width.
const COLUMNS: usize = 100;
/// Narrower than this, lines are better broken by the terminal.
const LEAST_COLUMNS: usize = 40;

/// What states are shown in; the terminal's own palette.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
}

/// Where text goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Columns.
    pub(crate) width: usize,
    colour: bool,
}

impl Screen {
    /// Standard output as it is now. `NO_COLOR`, if it is set to anything, is obeyed (no-color.org).
    pub(crate) fn stdout() -> Screen {
        let terminal = io::stdout().is_terminal();
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        let plain = env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        match terminal {
            true => {
                let width = if columns == 0 { COLUMNS } else { columns.clamp(LEAST_COLUMNS, COLUMNS) };
                Screen { width, colour: !plain }
            }
            false => Screen::plain(),
        }
    }

    /// A pipe or a file.
    pub(crate) fn plain() -> Screen {
        Screen { width: COLUMNS, colour: false }
    }

    /// A terminal that shows colour.
    #[cfg(test)]
    pub(crate) fn coloured() -> Screen {
        Screen { width: COLUMNS, colour: true }
    }

    /// The text, to stand out.
    pub(crate) fn bold(self, text: &str) -> String {
        self.escaped(text, "1")
    }

    /// The text in a colour, if it has one.
    pub(crate) fn paint(self, text: &str, colour: Option<Colour>) -> String {
        let code = match colour {
            None => return text.to_owned(),
            Some(Colour::Red) => "31",
            Some(Colour::Green) => "32",
            Some(Colour::Yellow) => "33",
            Some(Colour::Cyan) => "36",
        };
        self.escaped(text, code)
    }

    fn escaped(self, text: &str, code: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Text in lines of at most `width` columns, each behind `indent` spaces. A longer word has a line of its own.
pub(crate) fn wrap(text: &str, indent: usize, width: usize) -> String {
    let room = width.saturating_sub(indent).max(20);
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > room {
            out.push('\n');
            column = 0;
        }
        if column == 0 {
            out.extend(std::iter::repeat_n(' ', indent));
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_only() {
        assert_eq!(wrap("one two three four five six", 2, 22), "  one two three four\n  five six\n");
        assert_eq!(wrap("", 2, 22), "");
        let long = "x".repeat(50);
        assert_eq!(wrap(&format!("a {long} b"), 0, 30), format!("a\n{long}\nb\n"));
    }

    #[test]
    fn a_pipe_gets_no_escapes() {
        assert_eq!(Screen::plain().bold("x"), "x");
    }
}

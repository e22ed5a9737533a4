//! Questions to whoever sits in front of the terminal. Scripts are asked nothing.

use crate::error::{Error, Result};
use std::io::{self, BufRead, IsTerminal, Write};

/// More objects or nodes than this are asked about.
const WITHOUT_ASKING: usize = 10;

/// Goes on if few are concerned, if `--yes` was given, if nobody can be asked, or if the answer is yes.
pub(crate) fn confirm(count: usize, what: &str, yes: bool) -> Result<()> {
    if count <= WITHOUT_ASKING || yes || !is_there() {
        return Ok(());
    }
    match ask(&format!("{what}?"), false) {
        true => Ok(()),
        false => Err(Error::Usage("nothing was done; --yes goes on without asking".into())),
    }
}

/// Whether somebody can be asked.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks until the answer is yes or no; no line at all is the default.
pub(crate) fn ask(question: &str, default: bool) -> bool {
    let choice = if default { "Y/n" } else { "y/N" };
    loop {
        let _ = write!(io::stderr(), "{question} [{choice}] ");
        let _ = io::stderr().flush();
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        match line.trim().to_lowercase().as_str() {
            "" => return default,
            "y" | "yes" => return true,
            "n" | "no" => return false,
            _ => {}
        }
    }
}

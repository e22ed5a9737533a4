//! What the Handlebars parser must never see: it recurses on nesting and is slow on many tags, without a bound.
//! Knows as much of the syntax as it takes to find tags; refuses rather than guesses.

use super::{MAX_SOURCE_BYTES, MAX_TAGS};
use crate::expression::SyntaxError;

/// Most brackets opened within one tag.
const MAX_BRACKETS: usize = 64;

/// Most blocks that are open at once.
const MAX_BLOCKS: usize = 50;

pub(super) fn check(source: &str) -> Result<(), SyntaxError> {
    let wrong = |offset: usize, message: String| {
        let before = &source[..offset];
        let line = before.matches('\n').count() as u32 + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
        Err(SyntaxError { message, line, column })
    };
    if source.len() > MAX_SOURCE_BYTES {
        return wrong(0, format!("has {} bytes: a template has at most {MAX_SOURCE_BYTES}", source.len()));
    }
    let (mut tags, mut blocks, mut at) = (0, 0_usize, 0);
    while let Some(found) = source[at..].find("{{") {
        let start = at + found;
        tags += 1;
        if tags > MAX_TAGS {
            return wrong(start, format!("is the tag after {MAX_TAGS}: use `each`, or several templates"));
        }
        let tag = Tag::read(&source[start..]);
        at = start + tag.length;
        match tag.opens {
            Some(true) => blocks += 1,
            Some(false) => blocks = blocks.saturating_sub(1),
            None => {}
        }
        if blocks > MAX_BLOCKS {
            return wrong(start, format!("opens a block within {MAX_BLOCKS} others: nest less"));
        }
        if tag.brackets > MAX_BRACKETS {
            return wrong(start, format!("opens more than {MAX_BRACKETS} brackets: use `expr` for what is calculated"));
        }
        if tag.quote_in_bracket {
            return wrong(start, "has a quote inside `[ ]`: use `expr` for lists and for such names".to_owned());
        }
    }
    Ok(())
}

/// What matters of one tag.
#[derive(Default)]
struct Tag {
    length: usize,
    /// A block's start or end.
    opens: Option<bool>,
    brackets: usize,
    /// The parser may take it for a name, where a quote is no quote: then nobody knows where the tag ends.
    quote_in_bracket: bool,
}

impl Tag {
    /// Reads the tag at the start of a text, up to its `}}` or the text's end.
    fn read(text: &str) -> Tag {
        let braces = text.len() - text.trim_start_matches('{').len();
        let inside = text[braces..].trim_start_matches('~').trim_start();
        let mut tag = Tag::default();
        if inside.starts_with('!') {
            let end = if inside.starts_with("!--") { "--}}" } else { "}}" };
            tag.length = text.find(end).map_or(text.len(), |found| found + end.len());
            return tag;
        }
        tag.opens = match inside.bytes().next() {
            Some(b'#' | b'^') => Some(true),
            Some(b'/') => Some(false),
            // A raw block is over with its own end tag.
            _ => None,
        };
        let bytes = text.as_bytes();
        let (mut index, mut quote, mut bracket) = (braces, None, false);
        while index < bytes.len() {
            let byte = bytes[index];
            // Counted in quotes, too: that only refuses more.
            tag.brackets += usize::from(matches!(byte, b'(' | b'[' | b'{'));
            match (quote, byte) {
                (Some(_), b'\\') => index += 1,
                (Some(open), _) if byte == open => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => {
                    tag.quote_in_bracket |= bracket;
                    quote = Some(byte);
                }
                (None, b'[') => bracket = true,
                (None, b']') => bracket = false,
                (None, b'}') if bytes.get(index + 1) == Some(&b'}') => {
                    tag.length = index + 2;
                    return tag;
                }
                _ => {}
            }
            index += 1;
        }
        tag.length = text.len();
        tag
    }
}

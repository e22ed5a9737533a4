//! The kinds of objects: their names, plurals, short names, and whether they live in a namespace.

use std::sync::OnceLock;

use crate::{descriptor, nearest};

/// One kind of object, as its proto message's `kind` option says.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// CamelCase: `TaskBook`. The word in manifests.
    pub name: &'static str,
    /// Lower case: `taskbooks`. The word in store keys and on the command line.
    pub plural: &'static str,
    /// Further words of the command line.
    pub short_names: &'static [String],
    /// Lives in a namespace.
    pub namespaced: bool,
}

/// All kinds, in the order of the `Object` message.
pub fn all() -> &'static [Kind] {
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let table = descriptor::table();
        let fields = &table.message("Object").fields;
        fields
            .iter()
            .filter_map(|field| match field.ty {
                descriptor::Type::Message(index) => Some(&table.messages[index]),
                _ => None,
            })
            .filter_map(|message| {
                let rules = message.rules.kind.as_ref()?;
                Some(Kind {
                    name: &message.name,
                    plural: &rules.plural,
                    short_names: &rules.short_names,
                    namespaced: rules.namespaced,
                })
            })
            .collect()
    })
}

/// The kind that a word names: name, singular or plural in any case, or a short name.
pub fn find(word: &str) -> Option<&'static Kind> {
    all().iter().find(|kind| words(kind).any(|own| own.eq_ignore_ascii_case(word)))
}

/// The kind of exactly that name, as manifests write it.
pub fn named(name: &str) -> Option<&'static Kind> {
    all().iter().find(|kind| kind.name == name)
}

/// The kind's name or plural that is nearest to a word that names none.
pub fn nearest(word: &str) -> Option<&'static str> {
    nearest::nearest(word, all().iter().flat_map(|kind| [kind.name, kind.plural]))
}

fn words(kind: &'static Kind) -> impl Iterator<Item = &'static str> {
    [kind.name, kind.plural].into_iter().chain(kind.short_names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_a_kind_finds_it() {
        let book = find("TaskBook").unwrap();
        assert_eq!((book.plural, book.namespaced), ("taskbooks", true));
        for word in ["taskbook", "taskbooks", "tb", "book"] {
            assert_eq!(find(word), Some(book), "{word}");
        }
        assert_eq!(find("nodes").unwrap().name, "Node");
        assert!(find("cronjob").is_none());
        assert_eq!(nearest("TaksBook"), Some("TaskBook"));
        assert_eq!(all().len(), 11);
    }
}

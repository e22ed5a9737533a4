//! `lockstep label | annotate | cordon | uncordon`: one small change to objects, each based on what was read.

use super::get::{bare, fetch, kind, kind_and_name, list, namespace_of};
use crate::{
    cli::{Cordon, Label},
    context::Session,
    error::{Error, Result},
    render::path,
    terminal::confirm,
};
use lockstep_apis::{
    kinds::Kind,
    v1alpha::{Object, UpdateRequest, object::Kind as Message},
};
use std::collections::BTreeMap;
use tonic::Code;

/// How often somebody else may be faster. The change is small and is made anew on what they wrote.
const ATTEMPTS: usize = 5;

/// Which map of the metadata.
#[derive(Clone, Copy)]
pub(crate) enum Words {
    Labels,
    Annotations,
}

pub(crate) async fn label(session: &Session, words: Words, label: &Label) -> Result<()> {
    let (kind, first) = kind_and_name(&label.kind)?;
    let (changes, names): (Vec<&String>, Vec<&String>) = label.arguments.iter().partition(|word| is_change(word));
    let changes = changes.into_iter().map(|word| Change::of(word)).collect::<Result<Vec<_>>>()?;
    if changes.is_empty() {
        return Err(Error::Usage("say what to change: key=value sets, key- removes".into()));
    }
    let names = first.into_iter().chain(names.iter().map(|name| bare(kind, name)));
    let objects = targets(session, kind, names, label.selector.as_deref()).await?;
    let what = match words {
        Words::Labels => "label",
        Words::Annotations => "annotate",
    };
    confirm(objects.len(), &format!("{what} {} {}", objects.len(), kind.plural), label.yes)?;
    for object in objects {
        modify(session, object, |object| {
            let metadata = object.metadata_mut();
            let own = match words {
                Words::Labels => &mut metadata.labels,
                Words::Annotations => &mut metadata.annotations,
            };
            changes.iter().filter_map(|change| change.apply(own)).collect()
        })
        .await?;
    }
    Ok(())
}

pub(crate) async fn cordon(session: &Session, cordon: &Cordon, unschedulable: bool) -> Result<()> {
    let kind = kind("nodes")?;
    let names = cordon.nodes.iter().map(|name| bare(kind, name));
    let nodes = targets(session, kind, names, cordon.selector.as_deref()).await?;
    let word = if unschedulable { "cordon" } else { "uncordon" };
    confirm(nodes.len(), &format!("{word} {} nodes", nodes.len()), cordon.yes)?;
    for node in nodes {
        modify(session, node, |object| {
            let Some(Message::Node(node)) = &mut object.kind else { return Vec::new() };
            let spec = node.spec.get_or_insert_default();
            let before = std::mem::replace(&mut spec.unschedulable, unschedulable);
            if before == unschedulable { Vec::new() } else { vec![format!("{word}ed")] }
        })
        .await?;
    }
    Ok(())
}

/// What is named, or what the selector matches.
async fn targets(
    session: &Session,
    kind: &'static Kind,
    names: impl Iterator<Item = &str>,
    selector: Option<&str>,
) -> Result<Vec<Object>> {
    let names: Vec<&str> = names.collect();
    match selector {
        Some(_) if !names.is_empty() => Err(Error::Usage("give names or a selector, not both".into())),
        Some(selector) => {
            let (found, _) = list(session, kind, &namespace_of(session, kind.name), selector).await?;
            if found.is_empty() { Err(Error::Usage(format!("no {} match {selector}", kind.plural))) } else { Ok(found) }
        }
        None if names.is_empty() => {
            Err(Error::Usage(format!("which {}? Give names, or a selector with -l", kind.plural)))
        }
        None => {
            let mut found = Vec::new();
            for name in names {
                found.push(fetch(session, kind, name).await?);
            }
            Ok(found)
        }
    }
}

/// Changes an object and says how; nothing if it is so already. What another writes meanwhile is kept.
async fn modify(session: &Session, mut object: Object, change: impl Fn(&mut Object) -> Vec<String>) -> Result<()> {
    for attempt in 1.. {
        let (kind, name) = (object.kind_of(), object.metadata().name.clone());
        let done = change(&mut object);
        let shown = path(&object);
        if done.is_empty() {
            println!("{shown} unchanged");
            return Ok(());
        }
        match session.objects().update(UpdateRequest { object: Some(object), dry_run: false }).await {
            Ok(_) => {
                println!("{shown} {}", done.join(", "));
                return Ok(());
            }
            Err(status) if status.code() == Code::Aborted && attempt < ATTEMPTS => {
                object = fetch(session, kind, &name).await?;
            }
            Err(status) => return Err(status.into()),
        }
    }
    Ok(())
}

/// Names hold no `=` and do not end with `-`.
fn is_change(word: &str) -> bool {
    word.contains('=') || word.ends_with('-')
}

/// One label or annotation.
enum Change<'a> {
    Set(&'a str, &'a str),
    Remove(&'a str),
}

impl Change<'_> {
    fn of(word: &str) -> Result<Change<'_>> {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some(("", _)), _) | (None, Some("")) => Err(Error::Usage(format!("{word}: a key is missing"))),
            (Some((key, value)), _) => Ok(Change::Set(key, value)),
            (None, Some(key)) => Ok(Change::Remove(key)),
            (None, None) => Err(Error::Usage(format!("{word}: write key=value or key-"))),
        }
    }

    /// Says what it did; `None` if it was so already.
    fn apply(&self, own: &mut BTreeMap<String, String>) -> Option<String> {
        match self {
            Change::Set(key, value) => match own.insert((*key).to_owned(), (*value).to_owned()) {
                Some(before) if before == *value => None,
                Some(before) => Some(format!("{key}={value} (was {before})")),
                None => Some(format!("{key}={value}")),
            },
            Change::Remove(key) => own.remove(*key).map(|before| format!("{key} removed (was {before})")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_was_there() {
        let mut own = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
        let mut said = |word: &str| Change::of(word).unwrap().apply(&mut own);
        assert_eq!(said("role=web").as_deref(), Some("role=web (was db)"));
        assert_eq!(said("role=web"), None);
        assert_eq!(said("role-").as_deref(), Some("role removed (was web)"));
        assert_eq!(said("role-"), None);
        assert_eq!(said("a=b=c").as_deref(), Some("a=b=c"));
        assert!(Change::of("=x").is_err() && Change::of("-").is_err());
    }
}

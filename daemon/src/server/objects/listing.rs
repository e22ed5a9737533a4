//! List: pages of one revision, straight from the store. Knows prefixes and continue tokens.

use lockstep_apis::commit::Revision;
use lockstep_apis::keys::Key;
use lockstep_apis::kinds::Kind;
use lockstep_apis::v1alpha::{ListRequest, ListResponse, Object};
use prost::Message;

use super::{decode, kind_of, prefix_of, selector_of};
use crate::events;
use crate::status::{Answer, Problem};
use crate::store::{Range, Store};

/// Objects of a page, if nothing is asked for, and at most.
const DEFAULT_LIMIT: usize = 500;
const MAX_LIMIT: usize = 5000;

/// A page ends after this many bytes: gRPC clients take 4 MiB, and one object is 1 MiB at most.
const MAX_PAGE_BYTES: usize = 2_500_000;

/// Entries that are read at a time.
const SCAN: usize = 500;

/// Lists a page.
pub(super) async fn list(store: &dyn Store, request: &ListRequest) -> Answer<ListResponse> {
    let kind = kind_of(&request.kind)?;
    let prefix = prefix_of(kind, &request.namespace)?;
    let selector = selector_of(&request.selector)?;
    let limit = match request.limit as usize {
        0 => DEFAULT_LIMIT,
        asked => asked.min(MAX_LIMIT),
    };
    let mut place = Place::parse(&request.continue_token, &prefix)?;
    let mut items: Vec<Object> = Vec::new();
    let mut bytes = 0;
    loop {
        let range = Range { after: place.after.clone(), limit: SCAN, at: place.at };
        let page = store.list(&prefix, range).await?;
        place.at = Some(page.revision);
        for entry in page.entries {
            for (index, object) in objects_in(kind, &entry)?.into_iter().enumerate().skip(place.index) {
                if !selector.matches(&object.metadata().labels) {
                    continue;
                }
                if items.len() >= limit || bytes >= MAX_PAGE_BYTES {
                    place.index = index;
                    return Ok(answer(items, page.revision, place.text()));
                }
                bytes += object.encoded_len();
                items.push(object);
            }
            (place.after, place.index) = (Some(entry.key), 0);
        }
        if !page.more {
            return Ok(answer(items, page.revision, String::new()));
        }
    }
}

fn answer(items: Vec<Object>, revision: Revision, continue_token: String) -> ListResponse {
    ListResponse { items, resource_version: revision.to_string(), continue_token }
}

/// The objects that an entry of a kind's prefix holds: one, or a batch of events.
pub(super) fn objects_in(kind: &Kind, entry: &lockstep_apis::commit::Entry) -> Answer<Vec<Object>> {
    Ok(match kind.name {
        "Event" => events::objects_of(entry).into_iter().map(std::sync::Arc::unwrap_or_clone).collect(),
        _ => vec![decode(entry)?],
    })
}

/// How far a list has come: behind a key, and behind that many objects of the entry that follows.
#[derive(Debug, PartialEq)]
struct Place {
    at: Option<Revision>,
    index: usize,
    after: Option<Key>,
}

impl Place {
    fn parse(token: &str, prefix: &Key) -> Answer<Self> {
        if token.is_empty() {
            return Ok(Self { at: None, index: 0, after: None });
        }
        let read = || {
            let mut parts = token.splitn(3, ':');
            let (at, index, after) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
            let after = Key::from_bytes(after.as_bytes()).filter(|key| !after.is_empty() && key > prefix);
            let inside = after.as_ref().is_none_or(|key| key.as_str().starts_with(prefix.as_str()));
            inside.then_some(Self { at: Some(at), index, after })
        };
        read().ok_or_else(|| Problem::Invalid("`continueToken` is not one of this list: begin again without it".into()))
    }

    fn text(&self) -> String {
        format!("{}:{}:{}", self.at.unwrap_or(0), self.index, self.after.as_ref().map_or("", Key::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::keys;

    #[test]
    fn a_token_reads_back_and_stays_in_its_list() {
        let prefix = keys::object_prefix("runs", Some("shop"));
        let place = Place { at: Some(7), index: 3, after: Some(keys::object("runs", "shop", "a")) };
        assert_eq!(Place::parse(&place.text(), &prefix).unwrap(), place);
        let foreign = Place { after: Some(keys::object("runs", "shopping", "a")), ..place };
        assert!(Place::parse(&foreign.text(), &prefix).is_err());
        assert!(Place::parse("7:x:", &prefix).is_err());
    }
}

//! Facts of the Run's nodes that tasks read of each other: of what each node last said of itself, the paths that the book
//! names.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::{SnapshotNode, Value, value::Kind};
use prost::Message;

use super::{AdmissionNode, Rejection};
use crate::references::{References, Root};

/// Most bytes that the facts of one node may have: each node is given those of all.
const MAX_FACTS_BYTES: usize = 16 * 1024;

/// Puts what is read of them into the nodes of a snapshot.
pub(super) fn add<'r>(
    nodes: &mut [SnapshotNode],
    of: &[AdmissionNode<'_>],
    read: impl Iterator<Item = &'r References>,
) -> Result<(), Rejection> {
    let references = read.flat_map(References::iter).filter(|reference| reference.root == Root::Nodes);
    let paths = references.filter_map(|reference| reference.path.split_first());
    let paths: BTreeSet<&[String]> =
        paths.filter(|(first, rest)| *first == "facts" && !rest.is_empty()).map(|(_, rest)| rest).collect();
    if paths.is_empty() {
        return Ok(());
    }
    for (node, of) in nodes.iter_mut().zip(of) {
        let Some(known) = of.node.status.as_ref().and_then(|status| status.facts.as_ref()) else { continue };
        let mut facts = Value::map::<String>([]);
        paths.iter().for_each(|path| copy(known, path, &mut facts));
        let bytes = facts.encoded_len();
        if bytes > MAX_FACTS_BYTES {
            let message = format!(
                "the facts of {} that are read of `nodes` have {bytes} bytes, and at most {MAX_FACTS_BYTES} are handed to \
                 every node: read less of them",
                node.name
            );
            return Err(Rejection::new("FactsTooLarge", message));
        }
        node.facts = Some(facts);
    }
    Ok(())
}

/// Copies what is at a path. What is not there stays away; below a list, the list is taken as a whole.
fn copy(from: &Value, path: &[String], to: &mut Value) {
    let [first, rest @ ..] = path else { return *to = from.clone() };
    let Some(value) = from.get(first) else { return };
    let Some(Kind::Map(map)) = &mut to.kind else { return };
    let deeper = !rest.is_empty() && value.as_map().is_some();
    let start = || if deeper { Value::map::<String>([]) } else { value.clone() };
    let place = map.entries.entry(first.clone()).or_insert_with(start);
    if deeper {
        copy(value, rest, place);
    }
}

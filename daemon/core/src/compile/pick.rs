//! `pick`: which of the nodes that targets mean, and which they were before. A sticky choice is the same wherever it is
//! named, in this Run and in every later one, until a node of it is missing.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::{Pick, PickOnMissing, SnapshotPick};

use super::{AdmissionNode, Rejection, order, targets};

/// Sticky choices by name: as they were, and as this Run made them.
#[derive(Debug, Default)]
pub(super) struct Picks {
    before: BTreeMap<String, Vec<String>>,
    now: BTreeMap<String, Vec<String>>,
}

impl Picks {
    pub(super) fn new(before: &BTreeMap<String, Vec<String>>) -> Self {
        Self { before: before.clone(), now: BTreeMap::new() }
    }

    /// The choices of this Run, with what they stand in place of.
    pub(super) fn made(&self) -> Vec<SnapshotPick> {
        let before = |name: &String| self.before.get(name).cloned().unwrap_or_default();
        let pick = |(name, nodes): (&String, &Vec<String>)| SnapshotPick {
            name: name.clone(),
            nodes: nodes.clone(),
            before: before(name),
        };
        self.now.iter().map(pick).collect()
    }

    /// At most `limit` of the nodes, which are in order of name.
    pub(super) fn choose<'a>(
        &mut self,
        pick: &Pick,
        limit: usize,
        nodes: Vec<AdmissionNode<'a>>,
        name_of: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Vec<AdmissionNode<'a>>, Rejection> {
        let mut ordered: Vec<(AdmissionNode<'a>, ())> = nodes.into_iter().map(|node| (node, ())).collect();
        order::sort(&pick.order_by, &mut ordered)?;
        let ordered = ordered.into_iter().map(|(node, ())| node);
        if pick.sticky.is_empty() {
            return Ok(ordered.take(limit).collect());
        }
        let known = self.now.get(&pick.sticky).or(self.before.get(&pick.sticky)).cloned().unwrap_or_default();
        let is_known = |node: &AdmissionNode<'a>| known.iter().any(|uid| uid == targets::uid(node));
        let (mut chosen, others): (Vec<_>, Vec<_>) = ordered.partition(is_known);
        let missing = known.iter().find(|uid| !chosen.iter().any(|node| targets::uid(node) == *uid));
        if let Some(missing) = missing.filter(|_| pick.on_missing() != PickOnMissing::Choose) {
            let why = match name_of(missing) {
                Some(name) => format!("{name}, which the targets no longer mean"),
                None => format!("a node that is gone ({missing})"),
            };
            let message =
                format!("the pick `{}` is {why}: with `onMissing: Choose` another one takes its place", pick.sticky);
            return Err(Rejection::new("PickMissing", message));
        }
        chosen.extend(others);
        chosen.truncate(limit);
        let uids = chosen.iter().map(|node| targets::uid(node).to_owned()).collect();
        self.now.insert(pick.sticky.clone(), uids);
        Ok(chosen)
    }
}

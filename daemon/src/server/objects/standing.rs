//! What is told of a Node beside what is stored of it: the Run that it works for, what it owes, and its conditions. Read
//! from the cache when somebody asks; a watch tells what is stored alone.

use lockstep_apis::v1alpha::{Condition, Node, NodeStatus, Object, object};
use lockstep_core::standing::Standings;
use lockstep_modules::FAULTS;

use crate::cache::Cache;

/// Fills in the Nodes among these.
pub(super) fn fill(cache: &Cache, objects: &mut [Object]) {
    let is_node = |object: &Object| matches!(object.kind, Some(object::Kind::Node(_)));
    if !objects.iter().any(is_node) {
        return;
    }
    let state = cache.read();
    let standings = Standings::of(state.world());
    for object in objects {
        let Some(object::Kind::Node(Node { metadata: Some(metadata), status, .. })) = &mut object.kind else {
            continue;
        };
        let status = status.get_or_insert_default();
        status.run = standings.run(&metadata.uuid).unwrap_or_default();
        status.owed_handlers = standings.owed_handlers(&metadata.uuid);
        let is_heard = state.world().session(&metadata.uuid).is_some();
        let reboots = !is_heard && state.world().reboot_ms(&metadata.uuid) > 0;
        status.conditions = conditions(status, reboots);
    }
}

/// `Ready` always; others while they are true.
fn conditions(status: &NodeStatus, reboots: bool) -> Vec<Condition> {
    let (ready, reason, message) = match status.liveness.as_str() {
        "Ready" if reboots => ("False", "Rebooting", "it reboots, as a Run wants it"),
        "Ready" => ("True", "Heard", "a server hears it"),
        "Unreachable" => ("Unknown", "Unreachable", "no server hears it"),
        "Lost" => ("False", "Lost", "neither servers nor other nodes hear it"),
        _ => ("Unknown", "NeverSeen", "it has never attached to a server"),
    };
    let condition = |r#type: &str, status: &str, reason: &str, message: String| Condition {
        r#type: r#type.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        changed_at: None,
    };
    let mut conditions = vec![Condition {
        changed_at: status.liveness_since.or(status.last_seen_at),
        ..condition("Ready", ready, reason, message.into())
    }];
    if let Some(files) = status.facts.as_ref().and_then(|facts| facts.get(FAULTS)?.as_map()) {
        let files: Vec<&str> = files.keys().map(String::as_str).collect();
        let message = format!("files of facts.d give no facts: {}", files.join(", "));
        conditions.push(condition("FactsRefused", "True", "BadFiles", message));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use lockstep_apis::v1alpha::Value;

    use super::*;

    fn shown(status: &NodeStatus, reboots: bool) -> Vec<String> {
        let shown = |of: &Condition| format!("{} {} {}", of.r#type, of.status, of.reason);
        conditions(status, reboots).iter().map(shown).collect()
    }

    #[test]
    fn conditions_say_whether_a_node_is_heard_and_what_is_odd() {
        let of = |liveness: &str| NodeStatus { liveness: liveness.into(), ..NodeStatus::default() };
        assert_eq!(shown(&of("Ready"), false), ["Ready True Heard"]);
        assert_eq!(shown(&of("Ready"), true), ["Ready False Rebooting"]);
        assert_eq!(shown(&of("Unreachable"), true), ["Ready Unknown Unreachable"]);
        assert_eq!(shown(&of("Lost"), false), ["Ready False Lost"]);
        assert_eq!(shown(&of(""), false), ["Ready Unknown NeverSeen"]);
        let bad = Value::map([(FAULTS, Value::map([("x.json", Value::text("broken"))]))]);
        let odd = NodeStatus { facts: Some(bad), ..of("Ready") };
        assert_eq!(shown(&odd, false), ["Ready True Heard", "FactsRefused True BadFiles"]);
    }
}

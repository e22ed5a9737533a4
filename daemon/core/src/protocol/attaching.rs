//! Which of a node's streams counts: its record in the store. Knows records; of streams only when the node opened them.

use lockstep_apis::{
    commit::{Commit, Compare, LeaseId},
    keys,
    v1alpha::Session,
};
use prost::Message;

use crate::world::World;

/// Puts a session's record in the store, over what the cache knows there and nothing newer. Conflict: let the cache
/// catch up and ask again. `None`: the node has opened another stream since; this one is to be closed.
///
/// Otherwise an old stream's end could take away the record of the one that is used: the node would be away, and fenced,
/// while a server keeps its work alive.
pub fn attach(world: &World, node: &str, session: &Session, lease: LeaseId) -> Option<Commit> {
    let key = keys::session(node);
    let stored = world.stored_session(node);
    if stored.is_some_and(|stored| is_later(&stored.value, session)) {
        return None;
    }
    let commit = match stored {
        Some(stored) => Commit::new().when(Compare::ModRevision(key.clone(), stored.revision)),
        None => Commit::new().when(Compare::Absent(key.clone())),
    };
    Some(commit.put_leased(key, session.encode_to_vec(), lease))
}

/// Whether the node opened this stream after the other. A Hello may come long after it was sent, even after a reboot.
pub fn is_later(session: &Session, other: &Session) -> bool {
    match session.boot_id == other.boot_id {
        true => session.attached_boot_ms > other.attached_boot_ms,
        false => session.boot_number > other.boot_number,
    }
}

/// Takes a session's record away, if it is this one's.
pub fn detach(node: &str, session: &Session) -> Commit {
    let key = keys::session(node);
    Commit::new().when(Compare::Value(key.clone(), session.encode_to_vec())).delete(key)
}

/// Takes away what streams of this server left that are over: a detach that was lost, an attach that came after its
/// stream's end. To be asked now and then, for nobody else does it: the records are under the server's lease, and as long
/// as that goes on their nodes look attached, and are never fenced. `is_served` is whether the server has a stream of
/// the node, whose attaching then settles it.
pub fn left_over(world: &World, server: &str, is_served: impl Fn(&str) -> bool) -> Vec<Commit> {
    let own = world.sessions().filter(|(node, session)| session.server_uid == server && !is_served(node));
    own.map(|(node, session)| detach(node, session)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    fn session(boot: &str, attached_boot_ms: u64) -> Session {
        Session { boot_id: boot.into(), attached_boot_ms, ..Default::default() }
    }

    #[test]
    fn what_a_stream_left_goes_though_its_end_was_lost() {
        let mut f = Fixture::new();
        let of = |server: &str| Session { server_uid: server.into(), ..session("b", 1) };
        for (node, server) in [("served", "s1"), ("gone", "s1"), ("elsewhere", "s2")] {
            f.commit(attach(&f.world, node, &of(server), LeaseId(1)).unwrap()).unwrap();
        }
        let mut left = left_over(&f.world, "s1", |node| node == "served");
        assert_eq!(left, [detach("gone", &of("s1"))]);
        let overtaken = left.remove(0);
        f.commit(attach(&f.world, "gone", &Session { attached_boot_ms: 2, ..of("s1") }, LeaseId(1)).unwrap()).unwrap();
        assert!(f.commit(overtaken).is_err(), "the node has attached anew");
        let again = left_over(&f.world, "s1", |node| node == "served").remove(0);
        f.commit(again).unwrap();
        assert!(f.world.session("gone").is_none());
    }

    #[test]
    fn an_older_stream_does_not_take_the_place_of_a_newer_one() {
        let mut f = Fixture::new();
        let lease = LeaseId(1);
        let (old, new) = (session("b", 1), session("b", 2));
        let before = attach(&f.world, "a", &old, lease).unwrap();
        f.commit(attach(&f.world, "a", &new, lease).unwrap()).unwrap();
        assert!(f.commit(before).is_err(), "decided before it was known");
        assert_eq!(attach(&f.world, "a", &old, lease), None);
        assert!(f.commit(detach("a", &old)).is_err(), "not its own");
        assert!(attach(&f.world, "a", &new, LeaseId(2)).is_some(), "again, under another lease");
        let rebooted = Session { boot_number: 1, ..session("c", 1) };
        assert!(attach(&f.world, "a", &rebooted, lease).is_some(), "after a reboot the clock begins anew");
        let before = Session { boot_number: 2, ..session("z", 3) };
        assert!(is_later(&before, &rebooted) && !is_later(&rebooted, &before), "a Hello of the boot before comes late");
        f.commit(detach("a", &new)).unwrap();
        assert!(f.world.session("a").is_none());
    }
}

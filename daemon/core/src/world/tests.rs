//! Folding entries in any order.

use lockstep_apis::{keys, v1alpha::Outcome};

use super::*;
use crate::fixture::{Fixture, plan, with_barriers};

fn halfway() -> Fixture {
    let mut f = Fixture::new();
    f.admit(with_barriers(plan("r", &["a", "b", "c"], 3), 2));
    f.settle();
    f.work("a", Outcome::Changed);
    f.work("b", Outcome::Interrupted);
    f.settle();
    f.claim("b");
    f
}

fn summary(world: &World) -> impl PartialEq + std::fmt::Debug {
    let run = world.run("r").unwrap();
    let offered: Vec<String> =
        ["a", "b", "c"].iter().flat_map(|node| world.offers(node)).map(|at| format!("{at:?}")).collect();
    let claimed: Vec<Attempt> = ["a", "b", "c"].iter().flat_map(|node| world.claimed(node)).cloned().collect();
    (run.open().clone(), run.places().clone(), *run.task_counts(), offered, claimed, crate::outcome::node_states(run))
}

#[test]
fn the_order_of_entries_does_not_matter() {
    let f = halfway();
    let mut entries: Vec<Entry> = f.entries().cloned().collect();
    for turn in 0..entries.len() {
        entries.rotate_left(1);
        if turn % 2 == 1 {
            entries.reverse();
        }
        let mut world = World::new();
        entries.iter().for_each(|entry| world.put(entry).unwrap());
        assert_eq!(summary(&world), summary(&f.world));
    }
}

#[test]
fn what_is_repeated_or_old_changes_nothing() {
    let f = halfway();
    let mut world = f.world.clone();
    for entry in f.entries() {
        world.put(entry).unwrap();
    }
    assert_eq!(summary(&world), summary(&f.world));
    let open = Entry { key: keys::gate("r"), value: vec![0xff], create_revision: 0, mod_revision: 0 };
    assert!(world.put(&open).is_err(), "what does not decode is an error");
    assert_eq!(summary(&world), summary(&f.world));
}

#[test]
fn a_removed_run_leaves_nothing() {
    let f = halfway();
    let mut world = f.world.clone();
    f.entries().for_each(|entry| world.delete(&entry.key));
    assert!(world.run("r").is_none() && world.live().next().is_none());
    assert!(world.outstanding.is_empty());
}

#[test]
fn a_name_that_is_made_again_is_another_run() {
    let mut f = Fixture::new();
    f.create(&plan("r", &["a"], 1));
    let key = keys::object("runs", "shop", "r");
    f.delete(&key);
    assert!(f.world.run("r").is_none());
    f.create(&plan("r", &["a"], 1));
    assert!(f.world.run_named("shop", "r").is_some());
}

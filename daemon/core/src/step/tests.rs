//! Decisions as claims, one small world each. What random worlds say is in the simulator.

mod delegates;

use lockstep_apis::{
    commit::{Compare, Term},
    v1alpha::{EarlyEnd, LockMode, OnFailure, OnInterrupt, Outcome, RunPhase, Snapshot, SnapshotPick},
};

use crate::{
    fixture::{Fixture, START_MS, plan, with_barriers, with_lock},
    protocol,
    step::{self, rejection},
    world::NodeEnd,
};

mod blocks;

#[test]
fn a_run_goes_through_its_windows_one_after_another_and_ends() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b", "c"], 2));
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1", "r/b/0/1"]);
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/b/0/1"], "the next window waits for all of this one");
    f.work("b", Outcome::Changed);
    f.settle();
    assert_eq!(f.offered(), ["r/c/0/1"]);
    f.work("c", Outcome::Ok);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Succeeded);
    assert_eq!(f.end_of("r", "b"), Some(NodeEnd::Changed));
    assert!(f.world.run("r").unwrap().cursor().is_none(), "nothing is held");
    assert!(f.step().commits.is_empty() && f.step().wake_at_ms.is_none(), "an ended run costs nothing");
}

#[test]
fn opening_a_small_window_is_one_commit_with_its_assignments() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b"], 2));
    let step = f.step();
    assert_eq!(step.commits.len(), 1);
    assert_eq!(step.commits[0].operations.len(), 3, "cursor and two assignments");
    assert!(step.commits[0].compares.contains(&f.term.compare()));
}

#[test]
fn a_barrier_holds_back_everyone() {
    let mut f = Fixture::new();
    f.admit(with_barriers(plan("r", &["a", "b"], 2), 2));
    f.settle();
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/b/0/1"]);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/a/1/1", "r/b/1/1"]);
}

#[test]
fn nodes_without_part_in_a_segment_pass_through_it() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.segments[0].all_of_window = false;
    plan.segments[0].nodes = vec![1];
    f.admit(plan);
    f.settle();
    assert_eq!(f.offered(), ["r/b/0/1"]);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/a/1/1", "r/b/1/1"]);
}

#[test]
fn the_first_failure_closes_the_gate_and_withdraws_what_is_not_claimed() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b", "c"], 3));
    f.settle();
    let claimed = f.claim("b");
    f.work("a", Outcome::Failed);
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new());
    assert_eq!(f.phase("r"), RunPhase::Running, "b is waited for");
    f.report(&claimed, Outcome::Ok);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Failed);
    let ends = ["a", "b", "c"].map(|node| f.end_of("r", node).unwrap());
    assert_eq!(ends, [NodeEnd::Failed, NodeEnd::Ok, NodeEnd::Cancelled]);
}

#[test]
fn finish_window_judges_when_the_window_is_done_and_max_failures_may_fail() {
    for (max_failures, goes_on) in [(0, false), (1, true)] {
        let mut f = Fixture::new();
        let mut plan = plan("r", &["a", "b", "c"], 2);
        plan.groups[0].on_failure = OnFailure::FinishWindow.into();
        plan.groups[0].max_failures = max_failures;
        f.admit(plan);
        f.settle();
        f.work("a", Outcome::Failed);
        f.settle();
        assert_eq!(f.offered(), ["r/b/0/1"], "the window is finished");
        f.work("b", Outcome::Ok);
        f.settle();
        assert_eq!(!f.offered().is_empty(), goes_on);
        if goes_on {
            f.work("c", Outcome::Ok);
            f.settle();
        }
        assert_eq!(f.phase("r"), RunPhase::Failed);
    }
}

#[test]
fn a_failed_node_enters_no_later_segment() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.groups[0].max_failures = 1;
    f.admit(plan);
    f.settle();
    f.work("a", Outcome::Failed);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/b/1/1"]);
}

#[test]
fn cordoned_nodes_are_skipped_and_unreachable_ones_count() {
    for (early, phase) in [
        (EarlyEnd::Cordoned, RunPhase::Succeeded),
        (EarlyEnd::UnreachableSkipped, RunPhase::Succeeded),
        (EarlyEnd::UnreachableFailed, RunPhase::Failed),
    ] {
        let mut f = Fixture::new();
        let mut plan = plan("r", &["a", "b"], 1);
        plan.nodes[0].early = early.into();
        f.admit(plan);
        f.settle();
        if phase == RunPhase::Succeeded {
            assert_eq!(f.offered(), ["r/b/0/1"]);
            f.work("b", Outcome::Ok);
            f.settle();
        }
        assert_eq!(f.phase("r"), phase, "{early:?}");
        assert!(f.end_of("r", "a").is_some() && f.end_of("r", "b").is_some());
    }
}

#[test]
fn interrupted_goes_on_where_it_may_and_fails_where_not() {
    for (on, end) in [(OnInterrupt::Rerun, None), (OnInterrupt::Fail, Some(NodeEnd::Interrupted))] {
        let mut f = Fixture::new();
        let mut plan = plan("r", &["a"], 1);
        plan.segments[0].tasks[0].on_interrupt = on.into();
        f.admit(plan);
        f.settle();
        f.work("a", Outcome::Interrupted);
        f.settle();
        match end {
            None => assert_eq!(f.offered(), ["r/a/0/2"]),
            Some(_) => assert_eq!(f.phase("r"), RunPhase::Failed),
        }
        assert_eq!(f.end_of("r", "a"), end);
    }
}

#[test]
fn a_node_works_for_one_run_at_a_time_in_the_order_of_tickets() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b"], 2));
    f.settle();
    f.admit(plan("s", &["a", "b", "c"], 3));
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1", "r/b/0/1", "s/c/0/1"], "without sync points each node starts on its turn");
    assert_eq!(f.step().why["s"][0].on, "node/a");
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["s/a/0/1", "r/b/0/1", "s/c/0/1"]);
}

#[test]
fn a_window_with_sync_points_starts_when_it_heads_all_its_queues() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    f.settle();
    f.admit(with_barriers(plan("s", &["a", "b"], 2), 2));
    f.settle();
    f.admit(plan("t", &["b"], 1));
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1"], "b waits for s, which waits for a");
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["s/a/0/1", "s/b/0/1"]);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["s/a/0/1"], "between two segments b is kept");
}

#[test]
fn priority_goes_first_but_never_interrupts() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    f.settle();
    f.admit(plan("s", &["a"], 1));
    f.settle();
    let mut urgent = plan("t", &["a"], 1);
    urgent.priority = 10;
    f.admit(urgent);
    f.settle();
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["t/a/0/1"]);
}

#[test]
fn concurrent_runs_and_runs_that_only_read_do_not_queue() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    let mut reads = plan("s", &["a"], 1);
    reads.segments[0].tasks[0].action = "command.query".into();
    f.admit(reads);
    let mut concurrent = plan("t", &["a"], 1);
    concurrent.concurrent = true;
    f.admit(concurrent);
    f.settle();
    assert_eq!(f.offered(), ["r/a/0/1", "s/a/0/1", "t/a/0/1"]);
}

#[test]
fn locks_are_granted_in_order_and_nobody_overtakes_whom_it_conflicts_with() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("r1", &["a"], 1), "l", LockMode::Read));
    f.settle();
    f.admit(with_lock(plan("w", &["b"], 1), "l", LockMode::Write));
    f.admit(with_lock(plan("r2", &["c"], 1), "l", LockMode::Read));
    f.admit(with_lock(plan("x", &["d"], 1), "other", LockMode::Write));
    f.settle();
    assert_eq!(f.offered(), ["r1/a/0/1", "x/d/0/1"], "r2 may share with r1, but w came first");
    assert_eq!(f.step().why["w"][0].reason, "LockHeld");
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["w/b/0/1", "x/d/0/1"]);
}

#[test]
fn a_paused_run_keeps_what_it_holds_and_is_passed_over_where_it_waits() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b"], 2));
    f.settle();
    f.admit(plan("s", &["a"], 1));
    f.settle();
    f.admit(plan("t", &["a", "b"], 2));
    f.settle();
    let pause = |f: &mut Fixture, run: &str| f.commit(protocol::pause(&f.world, run, "user/x", 1).unwrap()).unwrap();
    pause(&mut f, "r");
    pause(&mut f, "s");
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new(), "r keeps a and b");
    f.commit(protocol::resume(&f.world, "r").unwrap()).unwrap();
    f.work("a", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["t/a/0/1", "r/b/0/1"], "s is passed over");
}

#[test]
fn a_cancelled_run_waits_for_what_is_claimed_and_then_ends() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a", "b"], 2));
    f.settle();
    let claimed = f.claim("a");
    f.commit(protocol::cancel(&f.world, "r", "user/x", f.now_ms).unwrap()).unwrap();
    assert_eq!(
        f.world.cancels("a").map(|(attempt, grace)| (attempt.clone(), grace)).collect::<Vec<_>>(),
        [(claimed.clone(), 10_000)]
    );
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelling);
    f.report(&claimed, Outcome::Cancelled);
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
    assert_eq!(f.end_of("r", "b"), Some(NodeEnd::Cancelled));
}

#[test]
fn a_run_that_is_cancelled_before_its_admission_ends_without_one() {
    let mut f = Fixture::new();
    f.create(&plan("r", &["a"], 1));
    assert_eq!(f.step().admit, ["r"]);
    f.commit(protocol::cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    assert!(f.step().admit.is_empty());
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
}

#[test]
fn at_the_timeout_what_is_claimed_is_lost_after_the_grace_and_keeps_its_place() {
    let mut f = Fixture::new();
    f.admit(with_lock(plan("r", &["a", "b"], 1), "l", LockMode::Write));
    f.settle();
    let lost = f.claim("a");
    assert!(f.step().wake_at_ms.unwrap() <= f.now_ms + 60_000);
    f.now_ms += 60_000;
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelling);
    assert!(f.step().wake_at_ms.unwrap() <= f.now_ms + 10_000);
    f.now_ms += 10_000;
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Failed);
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost));
    assert_eq!(f.end_of("r", "b"), Some(NodeEnd::Cancelled));

    let later = |plan| Snapshot { created_ms: START_MS + 70_000, ..plan };
    f.admit(later(with_lock(plan("s", &["c"], 1), "l", LockMode::Write)));
    f.admit(later(plan("t", &["a"], 1)));
    f.settle();
    assert_eq!(f.offered(), Vec::<String>::new(), "lock and node are held");
    f.report(&lost, Outcome::Ok);
    f.settle();
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost), "a late report changes nothing");
    assert_eq!(f.offered(), ["t/a/0/1", "s/c/0/1"]);
}

#[test]
fn release_frees_a_place_and_the_window_goes_on() {
    let mut f = Fixture::new();
    let mut plan = plan("r", &["a", "b"], 1);
    plan.groups[0].max_failures = 1;
    f.admit(plan);
    f.settle();
    let released = f.claim("a");
    f.commit(protocol::release(&f.world, "r", "a", "user/x", 1).unwrap()).unwrap();
    f.settle();
    assert_eq!(f.offered(), ["r/b/0/1"]);
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost));
    assert_eq!(f.world.cancels("a").count(), 1, "the node is told to stop when it is back");
    f.report(&released, Outcome::Changed);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Lost));
}

#[test]
fn groups_follow_each_other_and_take_the_failures_of_their_own() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.groups[0].segment_count = 1;
    plan.groups[0].max_failures = 1;
    let mut second = plan.groups[0].clone();
    (second.first_segment, second.max_failures) = (1, 0);
    plan.groups.push(second);
    f.admit(plan);
    f.settle();
    f.work("a", Outcome::Failed);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.offered(), ["r/b/1/1"], "the failure in the first group is not the second's");
}

#[test]
fn a_node_that_a_group_is_not_for_is_through_without_it() {
    let mut f = Fixture::new();
    let mut plan = with_barriers(plan("r", &["a", "b"], 2), 2);
    plan.groups[0].segment_count = 1;
    let mut second = plan.groups[0].clone();
    second.first_segment = 1;
    second.windows[0].nodes = vec![1];
    plan.groups.push(second);
    f.admit(plan);
    f.settle();
    f.work("a", Outcome::Ok);
    f.work("b", Outcome::Ok);
    f.settle();
    assert_eq!(f.end_of("r", "a"), Some(NodeEnd::Ok), "it has nothing more to do");
    assert_eq!(f.offered(), ["r/b/1/1"]);
    f.work("b", Outcome::Changed);
    f.settle();
    assert_eq!((f.phase("r"), f.end_of("r", "a")), (RunPhase::Succeeded, Some(NodeEnd::Ok)));
}

#[test]
fn many_nodes_are_assigned_in_commits_of_at_most_a_hundred() {
    let mut f = Fixture::new();
    let names: Vec<String> = (0..1000).map(|at| format!("n{at:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    f.admit(plan("r", &names, 1000));
    f.settle();
    assert_eq!(f.world.run("r").unwrap().open().len(), 1000);
}

#[test]
fn a_leader_that_is_behind_or_deposed_decides_nothing() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    assert!(!f.step().commits.is_empty());
    let later = Term { revision: f.term.revision + 1000, ..f.term };
    assert!(step::step(&f.world, later, f.now_ms).commits.is_empty());
    f.delete(&lockstep_apis::keys::leader());
    assert!(f.step().commits.is_empty());
}

#[test]
fn every_decision_compares_the_term_and_something_that_it_changes() {
    let mut f = Fixture::new();
    let mut plan = with_lock(with_barriers(plan("r", &["a", "b", "c"], 2), 2), "l", LockMode::Write);
    plan.nodes[2].early = EarlyEnd::Cordoned.into();
    f.admit(plan);
    for round in 0..20 {
        let step = f.step();
        for commit in step.commits.iter().chain(&step.status) {
            assert!(commit.compares.contains(&f.term.compare()), "{commit:?}");
            f.commit(commit.clone()).unwrap();
            let again = f.commit(commit.clone());
            assert!(again.is_err(), "a copy that arrives late does nothing: {commit:?}");
        }
        for node in ["a", "b"] {
            if round == 6 && f.world.offers(node).next().is_some() {
                f.claim(node);
            } else if f.world.offers(node).next().is_some() {
                f.work(node, Outcome::Ok);
            }
        }
        if round == 8 {
            f.now_ms += 60_000;
        }
        if round == 10 {
            f.now_ms += 10_000;
        }
    }
    assert!(f.world.run("r").unwrap().has_ended());
}

#[test]
fn a_large_snapshot_is_admitted_in_chunks_and_leftovers_of_another_are_ignored() {
    let mut f = Fixture::new();
    let mut plan = plan("r", &["a"], 1);
    plan.segments[0].tasks[0].name = "x".repeat(1_200_000);
    f.create(&plan);
    let mut other = plan.clone();
    other.segments[0].tasks[0].name.push('y');
    for commit in step::admission(&f.world, f.term, "r", &other).unwrap().into_iter().take(2) {
        f.commit(commit).unwrap();
    }
    for commit in step::admission(&f.world, f.term, "r", &plan).unwrap() {
        f.commit(commit).unwrap();
    }
    assert_eq!(*f.world.run("r").unwrap().plan().unwrap().snapshot, plan);
    f.settle();
    f.work("a", Outcome::Ok);
    f.settle();
    let chunks = f.entries().filter(|entry| entry.key.as_str().starts_with("snapshots/")).count();
    assert_eq!(chunks, 3, "the end sweeps the leftovers");
}

#[test]
fn a_rejected_run_ends_with_the_reason() {
    let mut f = Fixture::new();
    f.create(&plan("r", &["a"], 1));
    let commit = rejection(&f.world, f.term, "r", "NoTargets", "no node matches", 5).unwrap();
    f.commit(commit).unwrap();
    assert_eq!(f.phase("r"), RunPhase::Failed);
    assert!(f.step().admit.is_empty());
}

#[test]
fn a_cancel_that_commits_first_wins_over_the_end() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    f.settle();
    f.work("a", Outcome::Ok);
    let end = f.step().commits.remove(0);
    f.commit(protocol::cancel(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    assert!(matches!(f.commit(end), Err(Compare::ModRevision(..))));
    f.settle();
    assert_eq!(f.phase("r"), RunPhase::Cancelled);
}

#[test]
fn a_sticky_choice_is_remembered_by_the_commit_that_admits_and_not_over_a_newer_one() {
    let mut f = Fixture::new();
    let choosing = |run: &str, nodes: &[&str], before: &[&str]| {
        let texts = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
        let pick = SnapshotPick { name: "founder".into(), nodes: texts(nodes), before: texts(before) };
        Snapshot { picks: vec![pick], ..plan(run, &["a", "b"], 2) }
    };
    f.admit(choosing("r", &["a"], &[]));
    assert_eq!(f.world.picks("shop"), [("founder".to_owned(), vec!["a".to_owned()])].into());
    // Compiled before r was admitted: it would choose again, and is compiled anew.
    let late = choosing("s", &["b"], &[]);
    f.create(&late);
    assert!(step::admission(&f.world, f.term, "s", &late).unwrap().is_empty());
    for commit in step::admission(&f.world, f.term, "s", &choosing("s", &["b"], &["a"])).unwrap() {
        f.commit(commit).unwrap();
    }
    assert_eq!(f.world.picks("shop")["founder"], ["b"]);
}

#[test]
fn a_move_that_a_pause_overtook_does_not_happen_when_it_is_taken_back() {
    let mut f = Fixture::new();
    f.admit(plan("r", &["a"], 1));
    let copy = f.step().commits.remove(0);
    f.commit(protocol::pause(&f.world, "r", "user/x", 1).unwrap()).unwrap();
    assert!(f.commit(copy.clone()).is_err());
    f.admit(plan("s", &["b"], 1));
    f.settle();
    f.commit(protocol::resume(&f.world, "r").unwrap()).unwrap();
    assert!(f.commit(copy).is_err(), "its ticket is another run's by now");
    f.settle();
    let ticket = |run: &str| f.world.run(run).unwrap().cursor().unwrap().ticket;
    assert_ne!(ticket("r"), ticket("s"));
}

//! Judges of what tasks really did, at the true time.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::Outcome;

use super::{
    Checker,
    facts::{Facts, node_index, run_index},
};
use crate::simulation::cluster::{Deed, Execution};

/// What executes just now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    run: usize,
    segment: u32,
    /// The node that it is for.
    node: usize,
    attempt: u32,
    /// The node that does it.
    doer: usize,
}

pub(super) fn check(facts: &mut Facts<'_>) {
    let mut executing: BTreeMap<Place, BTreeSet<u32>> = BTreeMap::new();
    let mut starts: BTreeMap<(Place, u32), u32> = BTreeMap::new();
    let mut ends: BTreeMap<(Place, u32), (u64, Outcome)> = BTreeMap::new();
    let cluster = facts.cluster;
    for mark in &cluster.executions {
        let place = Place {
            run: run_index(&mark.attempt.run),
            segment: mark.attempt.segment,
            node: node_index(&mark.attempt.for_node),
            attempt: mark.attempt.attempt,
            doer: node_index(&mark.attempt.node),
        };
        match mark.what {
            Deed::Start => {
                let times = starts.entry((place, mark.task)).or_default();
                *times += 1;
                if *times > 1 {
                    facts.object(
                        Checker::AtMostOnce,
                        mark.at_ms,
                        format!("{:?} task {} began twice", mark.attempt, mark.task),
                    );
                }
                if facts.book(place.run).is_left_out(mark.task) {
                    let message = format!("{:?} task {} began though it is left out", mark.attempt, mark.task);
                    facts.object(Checker::LeftOut, mark.at_ms, message);
                }
                check_order(facts, mark, place, &executing, &ends);
                executing.entry(place).or_default().insert(mark.task);
                check_claim(facts, mark, place);
                check_others(facts, mark, place, &executing);
                check_barrier(facts, mark, place);
            }
            Deed::End(outcome) => {
                rests(&mut executing, place, mark.task);
                ends.insert((place, mark.task), (mark.at_ms, outcome));
            }
            Deed::Killed => rests(&mut executing, place, mark.task),
        }
    }
    check_reports(facts, &starts, &ends);
    check_reboots(facts);
}

/// Nobody reboots twice for one task, however many attempts there are.
fn check_reboots(facts: &mut Facts<'_>) {
    let mut reboots: BTreeMap<(usize, u32, usize, u32), u32> = BTreeMap::new();
    let cluster = facts.cluster;
    for mark in cluster.executions.iter().filter(|mark| mark.what == Deed::Start) {
        let (run, node) = (run_index(&mark.attempt.run), node_index(&mark.attempt.for_node));
        if !facts.book(run).reboots(mark.task) {
            continue;
        }
        let times = reboots.entry((run, mark.attempt.segment, node, mark.task)).or_default();
        *times += 1;
        if *times > 1 {
            let message = format!("node {node} rebooted again for task {} of run {run}", mark.task);
            facts.object(Checker::AtMostOnce, mark.at_ms, message);
        }
    }
}

fn check_claim(facts: &mut Facts<'_>, mark: &Execution, place: Place) {
    let life = facts.runs[place.run].lives.get(&(place.segment, place.node, place.attempt));
    if life.is_none_or(|life| life.claimed.is_none_or(|at| at > mark.at_ms)) {
        facts.object(Checker::Gate, mark.at_ms, format!("{:?} began without a claim", mark.attempt));
    }
}

fn rests(executing: &mut BTreeMap<Place, BTreeSet<u32>>, place: Place, task: u32) {
    let Some(tasks) = executing.get_mut(&place) else { return };
    tasks.remove(&task);
    if tasks.is_empty() {
        executing.remove(&place);
    }
}

/// What a task requires has ended well, in this attempt or an earlier one, and is not at work.
fn check_order(
    facts: &mut Facts<'_>,
    mark: &Execution,
    place: Place,
    executing: &BTreeMap<Place, BTreeSet<u32>>,
    ends: &BTreeMap<(Place, u32), (u64, Outcome)>,
) {
    let book = facts.book(place.run);
    let ended = |task: u32| {
        let mut attempts = (1..=place.attempt).map(|attempt| Place { attempt, ..place });
        attempts.any(|earlier| ends.get(&(earlier, task)).is_some_and(|(_, outcome)| *outcome != Outcome::Failed))
    };
    let is_at_work = |task: u32| executing.get(&place).is_some_and(|tasks| tasks.contains(&task));
    let after = book.after(place.segment, mark.task).iter().copied();
    let missing = after.filter(|task| !book.is_left_out(*task) && (is_at_work(*task) || !ended(*task)));
    for task in missing.collect::<Vec<u32>>() {
        let message = format!("{:?} task {} began before task {task} had ended", mark.attempt, mark.task);
        facts.object(Checker::Order, mark.at_ms, message);
    }
}

/// Window, turns and locks. A released attempt is the admin's affair.
fn check_others(facts: &mut Facts<'_>, mark: &Execution, place: Place, executing: &BTreeMap<Place, BTreeSet<u32>>) {
    let counted = |other: &Place| {
        let life = facts.runs[other.run].lives.get(&(other.segment, other.node, other.attempt));
        life.and_then(|life| life.released).is_none_or(|at| at > mark.at_ms)
    };
    if !counted(&place) {
        return;
    }
    let book = facts.book(place.run);
    let group = book.group_of(place.segment);
    let size = book.window_of(group, place.node).map_or(0, |window| book.snapshot.groups[group].windows[window].size);
    let mut nodes: Vec<usize> = Vec::new();
    let mut objections = Vec::new();
    for other in executing.keys().filter(|other| counted(other)) {
        if other.run == place.run {
            // Delegates are not counted.
            nodes.extend((other.doer == other.node).then_some(other.node));
            continue;
        }
        let theirs = facts.book(other.run);
        if book.locks_against(theirs) {
            objections.push((Checker::Locks, format!("run {} began beside run {}", place.run, other.run)));
        }
        if book.shares_key(theirs) {
            objections.push((Checker::Keys, format!("run {} began beside run {}", place.run, other.run)));
        }
        if other.doer == place.doer && !book.snapshot.concurrent && !theirs.snapshot.concurrent {
            objections.push((
                Checker::Turns,
                format!("node {} works for run {} and run {}", place.doer, place.run, other.run),
            ));
        }
    }
    nodes.dedup();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() > size as usize {
        objections.push((Checker::Window, format!("run {} executes on {nodes:?}, {size} may", place.run)));
    }
    for (checker, message) in objections {
        facts.object(checker, mark.at_ms, message);
    }
}

fn check_barrier(facts: &mut Facts<'_>, mark: &Execution, place: Place) {
    let book = facts.book(place.run);
    let group = book.group_of(place.segment);
    let window = book.window_of(group, place.node);
    let mut early: Vec<(u32, usize)> = Vec::new();
    for (at, of) in book.snapshot.groups.iter().enumerate().take(group + 1) {
        for (number, nodes) in of.windows.iter().enumerate() {
            if at == group && Some(number) > window {
                break;
            }
            let same = at == group && Some(number) == window;
            let until = if same { place.segment } else { of.first_segment + of.segment_count };
            for segment in of.first_segment..until {
                let nodes = nodes.nodes.iter().map(|&node| node as usize);
                let part = nodes.filter(|&node| book.takes_part(segment, node));
                let not = part.filter(|&node| !facts.runs[place.run].through(book, segment, node, mark.at_ms));
                early.extend(not.map(|node| (segment, node)));
            }
        }
    }
    for (segment, node) in early {
        let message = format!("{:?} began before node {node} was through with segment {segment}", mark.attempt);
        facts.object(Checker::Barrier, mark.at_ms, message);
    }
    let stopped = (0..place.segment)
        .any(|segment| facts.runs[place.run].stopped(book, segment, place.node, mark.at_ms).is_some());
    if stopped {
        facts.object(Checker::Barrier, mark.at_ms, format!("{:?} began though the node failed before", mark.attempt));
    }
}

/// What reports say against what happened.
fn check_reports(
    facts: &mut Facts<'_>,
    starts: &BTreeMap<(Place, u32), u32>,
    ends: &BTreeMap<(Place, u32), (u64, Outcome)>,
) {
    let mut objections: Vec<(u64, String)> = Vec::new();
    for (run, of) in facts.runs.iter().enumerate() {
        let book = facts.book(run);
        for (&(segment, node, attempt), life) in &of.lives {
            let Some((at, report)) = &life.report else { continue };
            let place = Place { run, segment, node, attempt, doer: life.doer };
            for task in &report.tasks {
                let truth = ends.get(&(place, task.task)).filter(|(ended, _)| ended <= at);
                let claims_end = matches!(task.outcome(), Outcome::Ok | Outcome::Changed | Outcome::Failed);
                if claims_end && truth.is_none_or(|(_, outcome)| *outcome != task.outcome()) {
                    let (task, outcome) = (task.task, task.outcome());
                    objections.push((
                        *at,
                        format!("run {run} {segment}/{node}/{attempt}: task {task} said {outcome:?}, truly {truth:?}"),
                    ));
                }
                let later = |from: u32| {
                    (from..=12).any(|attempt| starts.contains_key(&(Place { attempt, ..place }, task.task)))
                };
                if matches!(task.outcome(), Outcome::Ok | Outcome::Changed) && !report.late && later(attempt + 1) {
                    objections.push((
                        *at,
                        format!("run {run} {segment}/{node}/{attempt}: task {} was known and began again", task.task),
                    ));
                }
                if task.outcome() == Outcome::Interrupted
                    && book.must_not_rerun(segment, task.task)
                    && later(attempt + 1)
                {
                    objections.push((
                        *at,
                        format!("run {run} {segment}/{node}/{attempt}: task {} must not run again", task.task),
                    ));
                }
            }
            // What began and did not end by itself is interrupted or cancelled, or nothing is said of it.
            for ((_, task), _) in starts.range((place, 0)..=(place, u32::MAX)) {
                let said = report.tasks.iter().find(|report| report.task == *task);
                if !ends.contains_key(&(place, *task)) && said.is_none() {
                    objections.push((
                        *at,
                        format!("run {run} {segment}/{node}/{attempt}: task {task} was cut, and nothing is said"),
                    ));
                }
            }
        }
    }
    for (at, message) in objections {
        facts.object(Checker::Interrupted, at, message);
    }
}

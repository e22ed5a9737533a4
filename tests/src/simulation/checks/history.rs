//! Judges of the store's history, commit by commit.

use lockstep_apis::{
    commit::{Entry, Revision},
    keys::{self, Attempt, AttemptKey, Parsed},
    v1alpha::{
        Assignment, Claim, ConcurrencyPolicy, Cursor, Gate, GateReasonType, Lock, LockMode, LockStatus, OnUnreachable,
        Outcome, Report, Run, RunPhase, Verdict, VerdictType,
    },
};
use prost::Message;

use super::{
    Checker,
    facts::{Facts, Life, node_index, run_index},
};
use crate::simulation::store::{Change, Committed};

pub(super) fn check(facts: &mut Facts<'_>) {
    let mut leader: Option<Revision> = None;
    for committed in &facts.cluster.store.history {
        if committed.term.is_some() && committed.term != leader {
            let message =
                format!("a write of Term {:?} at {} under Term {leader:?}", committed.term, committed.revision);
            facts.object(Checker::FencedLeadership, committed.at_ms, message);
        }
        for change in &committed.changes {
            match change {
                Change::Put(entry) if entry.key == keys::leader() => leader = Some(entry.create_revision),
                Change::Delete(key) if *key == keys::leader() => leader = None,
                Change::Put(entry) => put(facts, committed, entry),
                Change::Delete(key) => match keys::parse(key) {
                    Some(Parsed::Cursor { run }) => delete_cursor(facts, run_index(&run), committed.at_ms),
                    Some(Parsed::Object { kind, name, .. }) if kind == "locks" => {
                        put_lock(facts, committed, &name, LockStatus::default());
                    }
                    _ => {}
                },
            }
        }
        check_entered(facts, committed);
        check_poison(facts, committed);
        check_places(facts, committed);
    }
}

fn put(facts: &mut Facts<'_>, committed: &Committed, entry: &Entry) {
    let (at, bytes) = (committed.at_ms, entry.value.as_slice());
    let decoded = "the simulation stores nothing corrupt";
    match keys::parse(&entry.key) {
        Some(Parsed::Object { kind, name, .. }) if kind == "locks" => {
            let lock = Lock::decode(bytes).expect(decoded);
            put_lock(facts, committed, &name, lock.status.unwrap_or_default());
        }
        Some(Parsed::Object { .. }) => put_run(facts, at, Run::decode(bytes).expect(decoded)),
        Some(Parsed::Gate { run }) => facts.runs[run_index(&run)].gate = Some(Gate::decode(bytes).expect(decoded)),
        Some(Parsed::Cursor { run }) => put_cursor(facts, at, run_index(&run), Cursor::decode(bytes).expect(decoded)),
        Some(Parsed::Attempt { kind, attempt }) => put_attempt(facts, at, kind, &attempt, bytes),
        _ => {}
    }
}

fn put_run(facts: &mut Facts<'_>, at: u64, run: Run) {
    let index = run_index(&run.metadata.clone().unwrap_or_default().uuid);
    let phase = run.status.as_ref().map(|status| status.phase()).unwrap_or_default();
    let ended = matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled);
    facts.runs[index].object = Some(run);
    if !ended || facts.runs[index].ended.is_some() {
        return;
    }
    facts.runs[index].ended = Some(at);
    if phase == RunPhase::Failed && facts.runs[index].cursor.as_ref().is_some_and(|cursor| cursor.granted) {
        facts.failing.push(index);
    }
    let open: Vec<_> =
        facts.runs[index].lives.iter().filter(|(_, life)| life.over().is_none()).map(|(key, _)| *key).collect();
    for key in open {
        facts.object(Checker::Cancel, at, format!("run {index} ended, and {key:?} is neither reported nor judged"));
    }
    let cancelled = facts.runs[index].gate.iter().flat_map(|gate| &gate.reasons);
    let cancelled = cancelled.filter(|reason| reason.r#type() == GateReasonType::Cancelled).count() > 0;
    if cancelled != (phase == RunPhase::Cancelled) {
        facts.object(Checker::Cancel, at, format!("run {index} was cancelled: {cancelled}, and ended {phase:?}"));
    }
}

fn put_lock(facts: &mut Facts<'_>, committed: &Committed, name: &str, status: LockStatus) {
    let before = facts.locks.insert(name.to_owned(), status.clone()).unwrap_or_default();
    facts.acquired += u64::from(status.holds.len() > before.holds.len());
    facts.poisoned += u64::from(status.poison.is_some() && before.poison.is_none());
    if before.poison.is_some() && status.poison.is_none() && committed.term.is_some() {
        facts.object(Checker::Poison, committed.at_ms, format!("a leader took the poison from {name}"));
    }
}

/// After the commit in which a Run fails: its locks are poisoned if it asks for that.
fn check_poison(facts: &mut Facts<'_>, committed: &Committed) {
    for run in std::mem::take(&mut facts.failing) {
        for lock in facts.book(run).snapshot.locks.iter().filter(|lock| lock.poison) {
            if facts.locks.get(&lock.name).is_none_or(|status| status.poison.is_none()) {
                let message = format!("run {run} failed, and {} is not poisoned", lock.name);
                facts.object(Checker::Poison, committed.at_ms, message);
            }
        }
    }
}

/// What admins and failed Runs keep from a Run that is granted its locks now.
fn check_grant(facts: &mut Facts<'_>, at: u64, run: usize) {
    let book = facts.book(run);
    let mut objections = Vec::new();
    for lock in &book.snapshot.locks {
        let status = facts.locks.get(&lock.name).cloned().unwrap_or_default();
        if status.poison.is_some() {
            objections.push((Checker::Poison, format!("run {run} was granted {}, which is poisoned", lock.name)));
        }
        let excludes = |mode: LockMode| mode != LockMode::Read || lock.mode() != LockMode::Read;
        if let Some(hold) = status.holds.iter().find(|hold| excludes(hold.mode())) {
            objections.push((Checker::Locks, format!("run {run} was granted {} of {}", lock.name, hold.owner)));
        }
    }
    let gated = !book.snapshot.locks.is_empty() || !book.snapshot.concurrency_key.is_empty();
    if gated && facts.runs[run].gate.as_ref().is_none_or(|gate| !gate.reasons.is_empty()) {
        objections.push((Checker::Gate, format!("run {run} was granted its locks under a closed gate")));
    }
    for (checker, message) in objections {
        facts.object(checker, at, message);
    }
}

fn put_cursor(facts: &mut Facts<'_>, at: u64, run: usize, cursor: Cursor) {
    let before = facts.runs[run].cursor.replace(cursor.clone()).unwrap_or_default();
    if cursor.granted && !before.granted {
        check_grant(facts, at, run);
        let others = (0..facts.runs.len()).filter(|&other| other != run);
        let others = others.filter(|&other| facts.runs[other].cursor.as_ref().is_some_and(|cursor| cursor.granted));
        let conflicts: Vec<usize> = others.filter(|&other| facts.book(run).locks_against(facts.book(other))).collect();
        for other in conflicts {
            facts.object(Checker::Locks, at, format!("run {run} was granted what run {other} holds"));
        }
        let begun = |other: &usize| facts.runs[*other].cursor.as_ref().is_some_and(|cursor| cursor.granted);
        let same = (0..facts.runs.len()).filter(|&other| other != run && facts.book(run).shares_key(facts.book(other)));
        for other in same.filter(begun).collect::<Vec<usize>>() {
            facts.object(Checker::Keys, at, format!("run {run} begins while run {other} has its key"));
        }
    }
    if cursor.ticket != before.ticket {
        let book = facts.book(run);
        for group in before.group..=cursor.group {
            let failures = facts.runs[run].failures(book, group as usize, at);
            let max = book.snapshot.groups[group as usize].max_failures;
            if failures > max {
                facts.object(
                    Checker::Gate,
                    at,
                    format!("run {run} opens a window over {failures} failures, {max} may be"),
                );
            }
        }
        check_gates(facts, run, &before, at);
        let same =
            |other: &usize| facts.runs[*other].cursor.as_ref().is_some_and(|other| other.ticket == cursor.ticket);
        if cursor.ticket != 0 && (0..facts.runs.len()).filter(|&other| other != run).any(|other| same(&other)) {
            facts.object(Checker::Turns, at, format!("ticket {} was given twice", cursor.ticket));
        }
    }
}

/// No window opens before every node of the one before it has passed the gate, or is out.
fn check_gates(facts: &mut Facts<'_>, run: usize, before: &Cursor, at: u64) {
    let book = facts.book(run);
    let group = &book.snapshot.groups[before.group as usize];
    let (first, end) = (group.first_segment, group.first_segment + group.segment_count);
    let of_gate = book.snapshot.segments[end as usize - 1].tasks.iter().find(|task| task.gate.is_some());
    let (Some(gate), true) = (of_gate, before.ticket != 0) else { return };
    let window = group.windows[before.window as usize].nodes.iter().map(|&node| node as usize);
    let out = |node: usize| {
        book.is_early(node) || (0..end).any(|segment| facts.runs[run].stopped(book, segment, node, at).is_some())
    };
    let passed = |node: usize| {
        let lives = facts.runs[run].lives.range((end - 1, node, 1)..=(end - 1, node, u32::MAX));
        let reports = lives.filter_map(|(_, life)| life.report.as_ref().filter(|(_, report)| !report.late));
        reports
            .flat_map(|(_, report)| &report.tasks)
            .any(|task| task.task == gate.index && matches!(task.outcome(), Outcome::Ok | Outcome::Changed))
    };
    let shut: Vec<usize> = window.filter(|&node| !out(node) && !passed(node)).collect();
    for node in shut {
        let message = format!("run {run} opens a window, and node {node} has not passed the gate of group {first}");
        facts.object(Checker::Barrier, at, message);
    }
}

fn delete_cursor(facts: &mut Facts<'_>, run: usize, at: u64) {
    facts.runs[run].cursor = None;
    if facts.runs[run].places().next().is_some() {
        facts.object(Checker::Window, at, format!("run {run} let go of locks and turns, and places are held"));
    }
}

fn put_attempt(facts: &mut Facts<'_>, at: u64, kind: AttemptKey, attempt: &Attempt, bytes: &[u8]) {
    let (run, node, doer) = (run_index(&attempt.run), node_index(&attempt.for_node), node_index(&attempt.node));
    let key = (attempt.segment, node, attempt.attempt);
    let before = facts.runs[run].lives.get(&key).cloned().unwrap_or(Life { doer, ..Life::default() });
    let decoded = "the simulation stores nothing corrupt";
    let mut objections: Vec<(Checker, String)> = Vec::new();
    let mut object = |checker, what: &str| objections.push((checker, format!("run {run} {key:?}: {what}")));
    let mut life = before.clone();
    if doer != before.doer || doer != facts.book(run).doer(attempt.segment, node) {
        object(Checker::OneEnd, "of another node than the one that does it");
    }
    match kind {
        AttemptKey::Assignment => {
            life.assigned = Some((at, Assignment::decode(bytes).expect(decoded)));
            if before.assigned.is_some() || before.verdict.is_some() {
                object(Checker::AtMostOnce, "assigned twice, or over a verdict");
            }
            let others = facts.runs[run].lives.range((attempt.segment, node, 1)..=(attempt.segment, node, u32::MAX));
            if others.clone().any(|(other, life)| *other != key && life.over().is_none()) {
                object(Checker::AtMostOnce, "assigned while another attempt lives");
            }
            if facts.runs[run].ended.is_some() {
                object(Checker::Cancel, "assigned after the run's end");
            }
            if facts.runs[run].gate.as_ref().is_none_or(|gate| !gate.reasons.is_empty()) {
                object(Checker::Gate, "assigned under a closed gate");
            }
        }
        AttemptKey::Claim => {
            Claim::decode(bytes).expect(decoded);
            life.claimed = Some(at);
            if before.claimed.is_some() {
                object(Checker::AtMostOnce, "claimed twice");
            }
            if before.assigned.is_none() || before.verdict.is_some() || before.report.is_some() {
                object(Checker::OneEnd, "claimed without an assignment, or after its end");
            }
            let reasons = facts.runs[run].gate.as_ref().map(|gate| gate.reasons.clone()).unwrap_or_default();
            if reasons.iter().any(|reason| reason.r#type() == GateReasonType::Cancelled) {
                object(Checker::Cancel, "claimed after the cancel");
            } else if !reasons.is_empty() {
                object(Checker::Gate, "claimed under a closed gate");
            }
        }
        AttemptKey::Report => {
            let report = Report::decode(bytes).expect(decoded);
            if before.claimed.is_none() {
                object(Checker::OneEnd, "reported without a claim");
            }
            if before.report.is_some() {
                object(Checker::OneEnd, "reported twice");
            }
            if report.late != before.verdict.is_some() {
                object(Checker::OneEnd, "late if and only if a verdict was there");
            }
            life.report = Some((at, report));
        }
        AttemptKey::Verdict => {
            let verdict = Verdict::decode(bytes).expect(decoded).r#type();
            let allowed = match before.verdict {
                None => true,
                Some((_, VerdictType::Lost)) => matches!(verdict, VerdictType::Released | VerdictType::Fencing),
                Some((_, VerdictType::Fencing)) => matches!(verdict, VerdictType::Released | VerdictType::Fenced),
                Some(_) => false,
            };
            if !allowed || before.report.is_some() {
                object(Checker::OneEnd, "a second end");
            }
            if verdict == VerdictType::Withdrawn && before.claimed.is_some() {
                object(Checker::OneEnd, "withdrawn though claimed");
            }
            let is_given_up = matches!(verdict, VerdictType::Skipped | VerdictType::Unreachable) && key.2 > 0;
            let begun = |((_, of, _), life): (&(u32, usize, u32), &Life)| *of == node && life.claimed.is_some();
            if is_given_up && facts.runs[run].lives.iter().any(begun) {
                object(Checker::OneEnd, "given up as unreachable though the node had begun");
            }
            if is_given_up && facts.book(run).snapshot.on_unreachable() == OnUnreachable::Wait {
                object(Checker::OneEnd, "given up as unreachable under `onUnreachable: Wait`");
            }
            if verdict == VerdictType::Fenced && before.claimed.is_some() && before.verdict.is_none() {
                object(Checker::OneEnd, "fenced though claimed, without having waited");
            }
            if matches!(verdict, VerdictType::Fencing | VerdictType::Fenced) && facts.book(run).snapshot.fence_ms == 0 {
                object(Checker::OneEnd, "fenced under `Wait`");
            }
            if verdict == VerdictType::Released {
                life.released = Some(at);
            }
            life.verdict = Some((before.verdict.map_or(at, |(first, _)| first), verdict));
        }
    }
    for (checker, message) in objections {
        facts.object(checker, at, message);
    }
    facts.runs[run].lives.insert(key, life);
}

/// After the commit that makes a Run: what its policy says of the others with its key.
fn check_entered(facts: &mut Facts<'_>, committed: &Committed) {
    let made = committed.changes.iter().filter_map(|change| match change {
        Change::Put(entry) if entry.create_revision == committed.revision => match keys::parse(&entry.key) {
            Some(Parsed::Object { kind, name, .. }) if kind == "runs" => Some(facts.run_named(&name)),
            _ => None,
        },
        _ => None,
    });
    for run in made.collect::<Vec<usize>>() {
        let book = facts.book(run);
        let Some(policy) = book.concurrency().map(|own| own.policy()) else { continue };
        let others = (0..facts.runs.len()).filter(|&other| other != run && facts.runs[other].is_live());
        let others = others.filter(|&other| book.shares_key(facts.book(other)));
        let wrong = |other: &usize| {
            let of = &facts.runs[*other];
            let begun = of.cursor.as_ref().is_some_and(|cursor| cursor.granted);
            match policy {
                ConcurrencyPolicy::Refuse | ConcurrencyPolicy::Join => true,
                ConcurrencyPolicy::Replace => of.ended.is_none() && !of.is_stopped(),
                ConcurrencyPolicy::QueueLatest => of.ended.is_none() && !begun && !of.is_stopped(),
                _ => false,
            }
        };
        for other in others.filter(wrong).collect::<Vec<usize>>() {
            let message = format!("run {run} was made under {policy:?} beside run {other}");
            facts.object(Checker::Keys, committed.at_ms, message);
        }
    }
}

/// After each commit: places within the window, and nodes with one Run.
fn check_places(facts: &mut Facts<'_>, committed: &Committed) {
    let assigned = committed.changes.iter().filter_map(|change| match change {
        Change::Put(entry) => match keys::parse(&entry.key) {
            Some(Parsed::Attempt { kind: AttemptKey::Assignment, attempt }) => Some(attempt),
            _ => None,
        },
        Change::Delete(_) => None,
    });
    for attempt in assigned {
        let (run, node, doer) = (run_index(&attempt.run), node_index(&attempt.for_node), node_index(&attempt.node));
        let book = facts.book(run);
        let group = book.group_of(attempt.segment);
        let size = book.window_of(group, node).map(|window| book.snapshot.groups[group].windows[window].size as usize);
        // Delegates are not counted.
        let places = facts.runs[run].places().filter(|((_, of, _), life)| life.doer == *of).count();
        if size.is_none_or(|size| places > size) {
            facts.object(Checker::Window, committed.at_ms, format!("run {run} holds {places} places of {size:?}"));
        }
        if book.is_early(node) {
            facts.object(Checker::Barrier, committed.at_ms, format!("run {run} assigns node {node} that it skips"));
        }
        let throttle = book.snapshot.segments[attempt.segment as usize].throttle as usize;
        let with_doer = facts.runs[run].places().filter(|((of, ..), life)| *of == attempt.segment && life.doer == doer);
        let at_once = with_doer.count();
        if doer != node && throttle > 0 && at_once > throttle {
            let message = format!("run {run} has {at_once} at once on delegate {doer}, {throttle} may");
            facts.object(Checker::Window, committed.at_ms, message);
        }
        let others = (0..facts.runs.len()).filter(|&other| other != run && !facts.book(other).snapshot.concurrent);
        let mine = [node, doer];
        // Who is at work for another Run, and whom somebody else is at work for.
        let busy = |other: &usize| {
            let mut places = facts.runs[*other].places();
            places.any(|((_, of, _), life)| mine.contains(&life.doer) || (life.over().is_none() && mine.contains(of)))
        };
        let busy: Vec<usize> = others.filter(busy).collect();
        for other in busy.iter().filter(|_| !book.snapshot.concurrent) {
            let message = format!("node {node} was given to run {run} while it is run {other}'s");
            facts.object(Checker::Turns, committed.at_ms, message);
        }
    }
}

//! Books in one line, stories in one line.

use super::*;

mod together;
use BlockPart::{Always as A, Body as B, Rescue as R};

struct Book {
    tasks: Vec<CompiledTask>,
    blocks: Vec<CompiledBlock>,
}

/// Tasks by their places; the blocks that have a rescue in them do rescue.
fn book(places: &[&[(u32, BlockPart)]]) -> Book {
    let within = |places: &[(u32, BlockPart)]| {
        places.iter().map(|(block, part)| Within { block: *block, part: (*part).into() }).collect()
    };
    let tasks = places.iter().enumerate();
    let tasks = tasks.map(|(at, of)| CompiledTask { index: at as u32, within: within(of), ..Default::default() });
    let all: BTreeSet<u32> = places.iter().flat_map(|of| of.iter().map(|(block, _)| *block)).collect();
    let rescues = |block: u32| places.iter().any(|of| of.contains(&(block, R)));
    let block = |index| CompiledBlock { index, rescues: rescues(index), ..Default::default() };
    Book { tasks: tasks.collect(), blocks: all.into_iter().map(block).collect() }
}

/// Goes through it; these tasks end so, the others well. What was done, and what it all came to.
fn told(book: &Book, left: &[u32], ends: &[(usize, Outcome)]) -> (Vec<usize>, Option<(usize, Outcome)>, Vec<u32>) {
    let mut course = Course::new(&book.tasks, &book.blocks, left);
    let mut done = Vec::new();
    while let Some(at) = course.due() {
        done.push(at);
        course.ended(at, &report(ends.iter().find(|(of, _)| *of == at).map_or(Outcome::Ok, |(_, outcome)| *outcome)));
    }
    (done, course.fall().map(|fall| (fall.at, fall.outcome)), course.left_behind().collect())
}

fn report(outcome: Outcome) -> TaskReport {
    TaskReport { outcome: outcome.into(), ..Default::default() }
}

#[test]
fn a_failure_that_is_ignored_is_none() {
    let book = whole();
    let mut course = Course::new(&book.tasks, &book.blocks, &[]);
    let mut done = Vec::new();
    while let Some(at) = course.due() {
        done.push(at);
        course.ended(at, &TaskReport { ignored: at == 0, ..report(if at == 0 { FAILED } else { Outcome::Ok }) });
    }
    assert_eq!((done, course.fall()), (vec![0, 1, 3, 4], None));
}

const FAILED: Outcome = Outcome::Failed;
const CANCELLED: Outcome = Outcome::Cancelled;

/// Two in the body, one that rescues, one for always, one after.
fn whole() -> Book {
    book(&[&[(0, B)], &[(0, B)], &[(0, R)], &[(0, A)], &[]])
}

#[test]
fn without_a_failure_the_rescue_is_passed_over() {
    assert_eq!(told(&whole(), &[], &[]), (vec![0, 1, 3, 4], None, vec![]));
}

#[test]
fn a_failure_that_was_rescued_does_not_count() {
    assert_eq!(told(&whole(), &[], &[(0, FAILED)]), (vec![0, 2, 3, 4], None, vec![]));
}

#[test]
fn always_is_done_after_a_rescue_that_failed_and_the_rescue_is_what_counts() {
    assert_eq!(told(&whole(), &[], &[(1, FAILED), (2, FAILED)]), (vec![0, 1, 2, 3], Some((2, FAILED)), vec![]));
}

#[test]
fn without_a_rescue_the_failure_counts_after_always() {
    let book = book(&[&[(0, B)], &[(0, B)], &[(0, A)], &[]]);
    assert_eq!(told(&book, &[], &[(0, FAILED)]), (vec![0, 2], Some((0, FAILED)), vec![]));
    assert_eq!(told(&book, &[], &[(2, FAILED)]), (vec![0, 1, 2], Some((2, FAILED)), vec![]));
}

#[test]
fn what_an_inner_block_does_not_rescue_an_outer_one_does() {
    // 0: [1: [a, b], always: [c], d], rescue: [e], then f
    let book = book(&[&[(0, B), (1, B)], &[(0, B), (1, B)], &[(0, B), (1, A)], &[(0, B)], &[(0, R)], &[]]);
    assert_eq!(told(&book, &[], &[(0, FAILED)]), (vec![0, 2, 4, 5], None, vec![]));
}

#[test]
fn blocks_in_rescue_and_always_are_blocks() {
    // [a], rescue: [1: [b], rescue: [c]], always: [2: [d], always: [e]]
    let book = book(&[&[(0, B)], &[(0, R), (1, B)], &[(0, R), (1, R)], &[(0, A), (2, B)], &[(0, A), (2, A)], &[]]);
    assert_eq!(told(&book, &[], &[]), (vec![0, 3, 4, 5], None, vec![]));
    assert_eq!(told(&book, &[], &[(0, FAILED), (1, FAILED)]), (vec![0, 1, 2, 3, 4, 5], None, vec![]));
    assert_eq!(told(&book, &[], &[(3, FAILED)]), (vec![0, 3, 4], Some((3, FAILED)), vec![]));
}

#[test]
fn after_a_cancel_nothing_is_rescued_and_only_always_of_what_was_begun_is_done() {
    assert_eq!(told(&whole(), &[], &[(0, CANCELLED)]), (vec![0, 3], Some((0, CANCELLED)), vec![]));
    assert_eq!(told(&whole(), &[], &[(0, FAILED), (2, CANCELLED)]), (vec![0, 2, 3], Some((2, CANCELLED)), vec![]));
    // It was rescued before the cancel came.
    assert_eq!(told(&whole(), &[], &[(0, FAILED), (3, CANCELLED)]), (vec![0, 2, 3], Some((3, CANCELLED)), vec![]));
    // 0: [1: [a], always: [b]], rescue: [c], always: [d]: the cancel comes before the outer rescue.
    let nested = book(&[&[(0, B), (1, B)], &[(0, B), (1, A)], &[(0, R)], &[(0, A)], &[]]);
    let story = told(&nested, &[], &[(0, FAILED), (1, CANCELLED)]);
    assert_eq!(story, (vec![0, 1, 3], Some((0, FAILED)), vec![]));
}

#[test]
fn a_block_that_was_refused_its_first_task_was_not_begun() {
    let book = whole();
    let mut course = Course::new(&book.tasks, &book.blocks, &[]);
    assert_eq!(course.due(), Some(0));
    course.refused(0);
    assert_eq!((course.due(), course.fall().map(|fall| fall.outcome)), (None, Some(CANCELLED)));
    // Of one that was begun in an earlier segment, always is done.
    let blocks = [CompiledBlock { begun: true, ..book.blocks[0].clone() }];
    let mut course = Course::new(&book.tasks, &blocks, &[]);
    course.due();
    course.refused(0);
    assert_eq!(course.due(), Some(3));
}

#[test]
fn where_a_block_goes_on_later_its_rescue_and_always_are_only_for_who_fails() {
    let mut book = book(&[&[(0, B)], &[(0, B)], &[(0, R)], &[(0, A)]]);
    book.blocks[0].goes_on = true;
    assert_eq!(told(&book, &[], &[]), (vec![0, 1], None, vec![]));
    assert_eq!(told(&book, &[], &[(0, FAILED)]), (vec![0, 2, 3], None, vec![0]));
    assert_eq!(told(&book, &[], &[(0, FAILED), (2, FAILED)]), (vec![0, 2, 3], Some((2, FAILED)), vec![0]));
}

#[test]
fn who_left_a_block_does_only_what_is_after_it() {
    assert_eq!(told(&whole(), &[0], &[]), (vec![4], None, vec![]));
}

#[test]
fn a_rescue_knows_what_it_follows() {
    let book = whole();
    let mut course = Course::new(&book.tasks, &book.blocks, &[]);
    let mut followed = Vec::new();
    while let Some(at) = course.due() {
        followed.push((at, course.follows().map(|fall| fall.at)));
        course.ended(at, &report(if at == 1 { FAILED } else { Outcome::Changed }));
    }
    assert_eq!(followed, [(0, None), (1, None), (2, Some(1)), (3, Some(1)), (4, None)]);
}

#[test]
fn every_story_of_a_block_is_what_its_words_say() {
    // All outcomes of [a, b], rescue: [c, d], always: [e], then f, against the sentences of the documentation.
    let book = book(&[&[(0, B)], &[(0, B)], &[(0, R)], &[(0, R)], &[(0, A)], &[]]);
    for bits in 0..64_u32 {
        let fails = |at: usize| bits & (1 << at) != 0;
        let ends: Vec<_> = (0..6).filter(|&at| fails(at)).map(|at| (at, FAILED)).collect();
        let (done, fall, _) = told(&book, &[], &ends);
        let body_failed = fails(0) || fails(1);
        let rescued = !fails(2) && !fails(3);
        assert_eq!(done.contains(&1), !fails(0), "{bits:b}");
        assert_eq!(done.contains(&2), body_failed, "{bits:b}");
        assert_eq!(done.contains(&3), body_failed && !fails(2), "{bits:b}");
        assert!(done.contains(&4), "{bits:b}");
        let goes_on = (!body_failed || rescued) && !fails(4);
        assert_eq!(done.contains(&5), goes_on, "{bits:b}");
        assert_eq!(fall.is_none(), goes_on && !fails(5), "{bits:b}");
    }
}

/// A task that notifies both handlers, one that notifies the second, then the handlers.
fn with_handlers() -> Book {
    let mut book = book(&[&[], &[], &[], &[]]);
    (book.tasks[0].notify, book.tasks[1].notify) = (vec![2, 3], vec![3]);
    (book.tasks[2].handler, book.tasks[3].handler) = (true, true);
    book
}

#[test]
fn a_handler_is_due_once_if_what_notifies_it_was_changed() {
    const CHANGED: Outcome = Outcome::Changed;
    let book = with_handlers();
    assert_eq!(told(&book, &[], &[]).0, [0, 1]);
    assert_eq!(told(&book, &[], &[(1, CHANGED)]).0, [0, 1, 3]);
    assert_eq!(told(&book, &[], &[(0, CHANGED), (1, CHANGED)]).0, [0, 1, 2, 3]);
    assert_eq!(told(&book, &[], &[(0, CHANGED), (1, FAILED)]).0, [0, 1], "owed");
    assert_eq!(told(&book, &[], &[(0, CHANGED), (2, FAILED)]).0, [0, 1, 2]);
    assert_eq!(told(&book, &[], &[(0, CHANGED), (1, CANCELLED)]).0, [0, 1]);
}

#[test]
fn what_is_owed_is_due_without_being_notified() {
    let book = with_handlers();
    let mut course = Course::new(&book.tasks, &book.blocks, &[]).owing(&[2]);
    let mut done = Vec::new();
    while let Some(at) = course.due() {
        done.push(at);
        course.ended(at, &report(Outcome::Ok));
    }
    assert_eq!(done, [0, 1, 2]);
}

//! Stories of tasks that do not wait for all before them.

use super::*;

/// Tasks by what they wait for, then one that waits for all.
fn free(after: &[&[u32]]) -> Vec<CompiledTask> {
    let tasks = after.iter().enumerate();
    let task = |(at, after): (usize, &&[u32])| CompiledTask {
        index: at as u32,
        together: 1,
        after: after.to_vec(),
        ..Default::default()
    };
    let last = CompiledTask { index: after.len() as u32, ..Default::default() };
    tasks.map(task).chain([last]).collect()
}

/// What may begin beside what has.
fn begun(course: &mut Course<'_>) -> Vec<usize> {
    let due = std::iter::from_fn(|| course.due().inspect(|at| course.begin(*at)));
    due.take(10).collect()
}

#[test]
fn a_task_begins_when_what_it_waits_for_has_ended() {
    let tasks = free(&[&[2], &[], &[], &[0, 1]]);
    let mut course = Course::new(&tasks, &[], &[]);
    assert_eq!(begun(&mut course), [1, 2]);
    course.ended(2, &report(Outcome::Ok));
    assert_eq!(begun(&mut course), [0]);
    course.ended(1, &report(Outcome::Changed));
    assert_eq!(begun(&mut course), Vec::<usize>::new());
    course.ended(0, &report(Outcome::Skipped));
    assert_eq!(begun(&mut course), [3]);
    assert_eq!(course.due(), None);
    course.ended(3, &report(Outcome::Ok));
    assert_eq!(course.due(), Some(4));
    course.ended(4, &report(Outcome::Ok));
    assert_eq!((course.due(), course.fall()), (None, None));
}

#[test]
fn after_a_failure_nothing_new_begins_and_what_has_begun_ends() {
    let tasks = free(&[&[], &[], &[1], &[]]);
    let mut course = Course::new(&tasks, &[], &[]);
    assert_eq!(begun(&mut course), [0, 1, 3]);
    course.ended(0, &report(FAILED));
    assert_eq!(course.due(), None);
    course.ended(1, &report(Outcome::Changed));
    course.ended(3, &report(Outcome::Ok));
    assert_eq!(course.due(), None);
    assert_eq!(course.fall().map(|fall| (fall.at, fall.outcome)), Some((0, FAILED)));
}

#[test]
fn a_failure_beside_a_cancel_is_the_end() {
    let tasks = free(&[&[], &[]]);
    let mut course = Course::new(&tasks, &[], &[]);
    assert_eq!(begun(&mut course), [0, 1]);
    course.ended(0, &report(CANCELLED));
    course.ended(1, &report(FAILED));
    assert_eq!(course.due(), None);
    assert_eq!(course.fall().map(|fall| fall.outcome), Some(FAILED));
}

#[test]
fn what_ended_in_any_order_is_resumed_at_what_is_left() {
    let tasks = free(&[&[2], &[], &[], &[0, 1]]);
    let resume = |ends: &[(u32, Outcome)]| {
        let reports: Vec<TaskReport> =
            ends.iter().map(|(task, outcome)| TaskReport { task: *task, ..report(*outcome) }).collect();
        let mut course = Course::new(&tasks, &[], &[]);
        let due = course.resume(|task| reports.iter().find(|report| report.task == task.index));
        (due, course.fall().map(|fall| fall.at))
    };
    use Outcome::{Changed as C, Ok as O};
    assert_eq!(resume(&[]), (Some(1), None));
    assert_eq!(resume(&[(2, O), (0, C)]), (Some(1), None));
    assert_eq!(resume(&[(2, O), (0, C), (1, O)]), (Some(3), None));
    // Of what did not begin beside a failure nothing is missing.
    assert_eq!(resume(&[(2, FAILED)]), (None, Some(2)));
    assert_eq!(resume(&[(1, FAILED), (2, O)]), (None, Some(1)));
    assert_eq!(resume(&[(2, O), (0, C), (1, O), (3, O)]), (Some(4), None));
}

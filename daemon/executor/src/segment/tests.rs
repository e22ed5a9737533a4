//! Folders without an executor: made, listed, judged, read, removed.

use lockstep_apis::v1alpha::{CompiledTask, JournalRecord, OutputStream, Report, TaskReport, journal_record::Record};

use super::*;

const BOOT: &str = "boot-1";

fn some_work() -> Work {
    let task = |index| CompiledTask { index, action: "command.run".into(), ..Default::default() };
    Work { run_uid: "r".into(), attempt: 1, tasks: vec![task(0), task(1)], ..Default::default() }
}

struct Made {
    parent: tempfile::TempDir,
    path: PathBuf,
}

fn made() -> Made {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("r-0-n-n-1");
    create(&path, &some_work(), BOOT).unwrap();
    Made { parent, path }
}

fn journal(path: &Path) -> Journal {
    Journal::open(&Folder::at(path).journal()).unwrap().0
}

#[test]
fn new_folder_holds_work_and_claim_and_has_not_started() {
    let made = made();
    assert_eq!(work(&made.path).unwrap(), some_work());
    assert_eq!(status(&made.path, BOOT).unwrap(), Status::NotStarted);
}

#[test]
fn attempt_gets_one_folder() {
    let made = made();
    assert!(matches!(create(&made.path, &some_work(), BOOT), Err(SegmentError::Exists { .. })));
}

#[test]
fn half_made_and_half_removed_folders_are_cleared() {
    let made = made();
    fs::create_dir(beside(&made.path, MAKING)).unwrap();
    fs::create_dir(made.parent.path().join("other.removing")).unwrap();
    assert_eq!(list(made.parent.path()).unwrap(), std::slice::from_ref(&made.path));
    assert_eq!(fs::read_dir(made.parent.path()).unwrap().count(), 1);
    remove(&made.path).unwrap();
    assert!(list(made.parent.path()).unwrap().is_empty());
    remove(&made.path).unwrap();
}

#[test]
fn living_executor_is_working() {
    let made = made();
    let lock = Folder::at(&made.path).lock().unwrap().unwrap();
    assert_eq!(status(&made.path, BOOT).unwrap(), Status::Working);
    drop(lock);
    assert_eq!(status(&made.path, BOOT).unwrap(), Status::NotStarted);
}

#[test]
fn lost_claim_is_never_not_started() {
    let made = made();
    fs::write(Folder::at(&made.path).journal(), [0u8; 100]).unwrap();
    let Status::Ended(report) = status(&made.path, BOOT).unwrap() else { panic!("it may have run") };
    assert_eq!(report.tasks.len(), 2);
}

#[test]
fn another_boot_interrupts_what_was_claimed() {
    let made = made();
    assert!(matches!(status(&made.path, "boot-2").unwrap(), Status::Ended(report) if report.tasks.len() == 2));
}

#[test]
fn lost_work_is_an_error_of_the_segment() {
    let made = made();
    fs::remove_file(made.path.join("work")).unwrap();
    assert!(matches!(status(&made.path, BOOT).unwrap(), Status::Ended(report) if report.error.contains("work")));
}

#[test]
fn finished_report_comes_back_as_written() {
    let made = made();
    let report = Report { tasks: vec![TaskReport { task: 1, ..Default::default() }], ..Default::default() };
    journal(&made.path).finished(report.clone()).unwrap();
    assert_eq!(status(&made.path, "boot-2").unwrap(), Status::Ended(report));
}

#[test]
fn journal_that_failed_ends_the_segment_with_its_reason() {
    let made = made();
    fs::write(Folder::at(&made.path).failure(), "no space").unwrap();
    assert!(matches!(status(&made.path, BOOT).unwrap(), Status::Ended(report) if report.error == "no space"));
}

#[test]
fn every_cut_of_a_journal_is_judged_by_the_records_before_it() {
    let made = made();
    let path = Folder::at(&made.path).journal();
    let mut borders = vec![fs::metadata(&path).unwrap().len()];
    let mut journal = journal(&made.path);
    let mut steps: Vec<Record> = Vec::new();
    for task in 0..2 {
        journal.intent(task, 1).unwrap();
        borders.push(fs::metadata(&path).unwrap().len());
        journal.done(TaskReport { task, outcome: 2, ..Default::default() }).unwrap();
        borders.push(fs::metadata(&path).unwrap().len());
    }
    journal.finished(Report { started_ms: 77, ..Default::default() }).unwrap();
    borders.push(fs::metadata(&path).unwrap().len());
    for record in crate::journal::read(&path).unwrap().0 {
        let JournalRecord { record: Some(record) } = record else { panic!("an empty record") };
        steps.push(record);
    }
    assert_eq!((steps.len(), borders.len()), (6, 6));

    let bytes = fs::read(&path).unwrap();
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole = borders.iter().filter(|border| **border as usize <= cut).count();
        let Status::Ended(report) = status(&made.path, BOOT).unwrap() else {
            assert_eq!(whole, 1, "cut at {cut}: only a claim alone has not started");
            continue;
        };
        let outcomes: Vec<_> = report.tasks.iter().map(|task| (task.task, task.outcome)).collect();
        let expected: &[(u32, i32)] = match whole {
            0 => &[(0, 6), (1, 6)],
            2 => &[(0, 6)],
            3 => &[(0, 2)],
            4 => &[(0, 2), (1, 6)],
            5 => &[(0, 2), (1, 2)],
            6 => &[],
            _ => panic!("cut at {cut}: {whole} records ended it"),
        };
        assert_eq!(outcomes, expected, "cut at {cut}");
        assert_eq!(report.started_ms == 77, whole == 6, "cut at {cut}");
    }
}

#[test]
fn output_is_read_on_from_where_it_was_left() {
    let made = made();
    assert_eq!(read_output(&made.path, 0).unwrap(), (Vec::new(), 0));
    let chunk =
        |text: &str| OutputChunk { stream: OutputStream::Stdout as i32, data: text.into(), ..Default::default() };
    let mut bytes = Vec::new();
    frame::push(&mut bytes, |buffer| chunk("one").encode_raw(buffer));
    let border = bytes.len();
    frame::push(&mut bytes, |buffer| chunk("two").encode_raw(buffer));

    fs::write(Folder::at(&made.path).output(), &bytes[..border + 5]).unwrap();
    let (chunks, next) = read_output(&made.path, 0).unwrap();
    assert_eq!((chunks, next), (vec![chunk("one")], border as u64));
    fs::write(Folder::at(&made.path).output(), &bytes).unwrap();
    let (chunks, next) = read_output(&made.path, next).unwrap();
    assert_eq!((chunks, next), (vec![chunk("two")], bytes.len() as u64));
}

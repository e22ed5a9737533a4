//! `file.symlink`, and the actions that edit a file which is there: what they share.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Outcome, VALIDATED_FILE};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, trace};

/// The editing actions, each with parameters that change the file `a=1`.
fn edits(path: &str) -> [(&'static str, Vec<(&'static str, Value)>); 4] {
    let path = || ("path", Value::text(path));
    [
        ("file.content", vec![path(), ("content", "a=2\n".into())]),
        ("file.line", vec![path(), ("line", "a=2".into()), ("regexp", "^a=".into())]),
        ("file.block", vec![path(), ("name", "a".into()), ("content", "a=2".into())]),
        ("file.replaced", vec![path(), ("regexp", "=1".into()), ("replacement", "=2".into())]),
    ]
}

fn perform(
    stage: &mut Stage,
    action: &str,
    given: &[(&'static str, Value)],
    more: &[(&'static str, Value)],
) -> lockstep_modules::Done {
    stage.perform_with(action, &Value::map(given.iter().chain(more).cloned()))
}

#[test]
fn an_edit_keeps_mode_owner_and_the_file_if_its_check_fails() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    for (action, given) in edits(&path) {
        fs::write(&path, "a=1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        let before = trace(&path);
        let validate = Value::list([Value::text("grep"), "-q".into(), "a=1$".into(), VALIDATED_FILE.into()]);
        if action != "file.block" {
            assert_failed(&perform(&mut stage, action, &given, &[("validate", validate)]), "ValidationFailed");
        }
        assert_eq!((trace(&path), stage.names()), (before, vec!["conf".to_owned()]), "{action}");
        assert_changed(&perform(&mut stage, action, &given, &[("backup", true.into())]));
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o640, 7, 8), "{action}");
        assert!(stage.read("conf").contains("a=2"), "{action}");
        let backup = stage.names().into_iter().find(|name| name.ends_with('~')).unwrap();
        assert_eq!(stage.read(&backup), "a=1\n", "{action}");
        fs::remove_file(stage.path(&backup)).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_edit_needs_its_file_and_a_check_hopes_for_one() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    for (action, given) in edits(&path) {
        assert_failed(&perform(&mut stage, action, &given, &[]), "FileMissing");
        stage.check = true;
        assert_eq!(perform(&mut stage, action, &given, &[]).outcome, Outcome::Unpredicted, "{action}");
        stage.check = false;
    }
    for path in [path, stage.path("no/such/dir")] {
        let given = [("path", path.as_str().into()), ("line", "a".into()), ("absent", true.into())];
        assert_ok(&stage.perform("file.line", given));
        let given = [("path", path.as_str().into()), ("name", "a".into()), ("absent", true.into())];
        assert_ok(&stage.perform("file.block", given));
    }
    assert!(stage.names().is_empty());
}

#[test]
fn what_an_edit_must_not_touch_it_names_and_leaves() {
    let mut stage = Stage::new();
    let real = stage.write("real", "a=1\n");
    symlink("real", stage.path("link")).unwrap();
    fs::create_dir(stage.path("dir")).unwrap();
    let big = fs::File::create(stage.path("big")).unwrap();
    big.set_len((16 << 20) + 1).unwrap();
    let before = trace(&real);
    for (name, reason) in [("link", "Symlink"), ("dir", "WrongKind"), ("big", "FileTooLong")] {
        for (action, given) in edits(&stage.path(name)) {
            assert_failed(&perform(&mut stage, action, &given, &[]), reason);
        }
    }
    assert_eq!(before, trace(&real));
    for (action, given) in edits(&stage.path("link")) {
        fs::write(&real, "a=1\n").unwrap();
        assert_changed(&perform(&mut stage, action, &given, &[("follow", true.into())]));
        assert!(stage.read("real").contains("a=2") && fs::symlink_metadata(stage.path("link")).unwrap().is_symlink());
    }
}

#[test]
fn a_sensitive_edit_shows_no_content() {
    let mut stage = Stage::new();
    (stage.diff, stage.sensitive) = (true, true);
    let path = stage.path("conf");
    for (action, given) in edits(&path) {
        fs::write(&path, "a=1\n").unwrap();
        let done = perform(&mut stage, action, &given, &[]);
        assert_changed(&done);
        assert!(!format!("{done:?}").contains("a=") && done.diff.unwrap().text.contains("sensitive"), "{action}");
    }
}

#[test]
fn a_link_is_made_replaced_without_a_gap_and_never_put_over_a_file() {
    let mut stage = Stage::new();
    let path = stage.path("link");
    let link = |stage: &mut Stage, target: &str| {
        stage.perform("file.symlink", [("path", path.as_str().into()), ("target", target.into())])
    };
    assert_changed(&link(&mut stage, "dangling"));
    assert_changed(&link(&mut stage, "/etc/other"));
    assert_eq!(fs::read_link(&path).unwrap().to_str(), Some("/etc/other"));
    assert_eq!(stage.names(), ["link"]);
    fs::remove_file(&path).unwrap();
    let before = trace(stage.write("link", "x"));
    assert_failed(&link(&mut stage, "y"), "WrongKind");
    assert_eq!(before, trace(&path));
    assert_failed(&link(&mut stage, ""), "InvalidParameters");
    let below = stage.path("no/link");
    let given = [("path", below.into()), ("target", "x".into())];
    assert_failed(&stage.perform("file.symlink", given), "ParentMissing");
    assert_failed(
        &stage.perform("file.symlink", [("path", "/proc/x".into()), ("target", "x".into())]),
        "SpecialFilesystem",
    );
}

//! `file.managed` and `file.directory`: what they promise when all goes well.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Outcome, VALIDATED_FILE};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, list, names, text, trace};

#[test]
fn a_file_that_is_as_wanted_is_not_touched() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    let manage = |stage: &mut Stage| {
        let parameters = [("path", path.as_str().into()), ("content", "a\n".into()), ("mode", "0640".into())];
        stage.perform("file.managed", parameters)
    };
    assert_changed(&manage(&mut stage));
    let before = (trace(stage.dir.path()), trace(&path));
    let done = manage(&mut stage);
    assert_ok(&done);
    assert_eq!(done.result.get("changed"), Some(&Value::from(false)));
    assert_eq!(before, (trace(stage.dir.path()), trace(&path)));
}

#[test]
fn a_new_file_gets_content_mode_and_owner() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    let done = stage.perform(
        "file.managed",
        [
            ("path", path.as_str().into()),
            ("template", "rendered\n".into()),
            ("mode", "4750".into()),
            ("owner", "nobody".into()),
            ("group", 12.into()),
        ],
    );
    assert_changed(&done);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o4750, 65534, 12));
    assert_eq!((stage.read("conf"), stage.names()), ("rendered\n".to_owned(), vec!["conf".to_owned()]));
    stage.unsynced.sync().unwrap();
    assert!(stage.unsynced.is_empty());
}

#[test]
fn new_content_replaces_the_file_and_keeps_what_the_book_does_not_say() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "old\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    rustix::fs::setxattr(&path, "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert_changed(&stage.manage("conf", "new\n"));
    let found = fs::metadata(&path).unwrap();
    assert_ne!(found.ino(), inode);
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o604, 7, 8));
    let mut note = [0; 8];
    assert_eq!(rustix::fs::getxattr(&path, "user.note", &mut note).unwrap(), 4);
    assert_eq!((stage.read("conf"), stage.names()), ("new\n".to_owned(), vec!["conf".to_owned()]));
}

#[test]
fn a_mode_alone_is_changed_in_place() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "same");
    let inode = fs::metadata(&path).unwrap().ino();
    let parameters = [("path", path.to_str().unwrap().into()), ("content", "same".into()), ("mode", "0600".into())];
    let done = stage.perform("file.managed", parameters);
    assert_changed(&done);
    assert_eq!(done.message, "mode 0644 → 0600");
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (inode, 0o600));
}

#[test]
fn a_former_owner_cannot_go_on_writing_into_a_file_that_was_taken() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "same");
    std::os::unix::fs::chown(&path, Some(7), None).unwrap();
    let mut held = fs::File::options().write(true).open(&path).unwrap();
    let parameters = [("path", path.to_str().unwrap().into()), ("content", "same".into()), ("owner", "root".into())];
    assert_changed(&stage.perform("file.managed", parameters));
    held.write_all(b"evil").unwrap();
    assert_eq!((stage.read("conf"), fs::metadata(&path).unwrap().uid()), ("same".to_owned(), 0));
}

#[test]
fn without_content_a_file_is_made_empty_and_its_content_left_alone() {
    let mut stage = Stage::new();
    let path = stage.path("touched");
    assert_changed(&stage.perform("file.managed", [("path", path.as_str().into())]));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    stage.write("touched", "by others");
    assert_ok(&stage.perform("file.managed", [("path", path.as_str().into())]));
    assert_changed(&stage.manage("touched", ""));
    assert_eq!(stage.read("touched"), "");
}

#[test]
fn a_check_changes_nothing_and_says_what_would() {
    let mut stage = Stage::new();
    stage.write("old", "old\n");
    fs::create_dir(stage.path("gone")).unwrap();
    let before = (stage.names(), trace(stage.dir.path()), trace(stage.path("old")), trace(stage.path("gone")));
    (stage.check, stage.diff) = (true, true);
    let done = stage.manage("old", "new\n");
    assert_changed(&done);
    let diff = done.diff.unwrap().text;
    assert!(diff.contains("-old\n+new\n"), "{diff}");
    assert_changed(&stage.manage("made", "x"));
    let (made, gone) = (stage.path("dir"), stage.path("gone"));
    assert_eq!(stage.manage("dir/inner", "x").outcome, Outcome::Unpredicted);
    assert_changed(&stage.perform("file.directory", [("path", made.into()), ("mode", "0700".into())]));
    assert_changed(&stage.manage("dir/inner", "x"));
    let deep = stage.path("a/b/c");
    assert_changed(&stage.perform("file.managed", [("path", deep.into()), ("parents", true.into())]));
    assert_changed(&stage.perform("file.absent", [("path", gone.into())]));
    assert_changed(&stage.perform("command.run", [("shell", "touch x".into()), ("creates", "/nonexistent".into())]));
    assert_eq!(stage.shell("touch /nonexistent/x").outcome, Outcome::Unpredicted);
    assert_eq!(before, (stage.names(), trace(stage.dir.path()), trace(stage.path("old")), trace(stage.path("gone"))));
    assert!(stage.unsynced.is_empty() && stage.printed.is_empty());
}

#[test]
fn a_sensitive_file_shows_no_content() {
    let mut stage = Stage::new();
    stage.write("key", "former secret\n");
    (stage.diff, stage.sensitive) = (true, true);
    let done = stage.manage("key", "latter secret\n");
    assert_changed(&done);
    assert!(!format!("{done:?}").contains("secret\\n") && done.diff.unwrap().text.contains("sensitive"));
}

#[test]
fn parents_are_made_when_asked_for() {
    let mut stage = Stage::new();
    let path = stage.path("a/b/conf");
    let done = stage.perform("file.managed", [("path", path.as_str().into()), ("content", "x".into())]);
    assert_failed(&done, "ParentMissing");
    assert!(stage.names().is_empty());
    let parameters = [("path", path.as_str().into()), ("content", "x".into()), ("parents", true.into())];
    assert_changed(&stage.perform("file.managed", parameters));
    assert_eq!(fs::metadata(stage.path("a/b")).unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_link_is_written_through_only_when_asked_for() {
    let mut stage = Stage::new();
    stage.write("real", "old");
    symlink("real", stage.path("link")).unwrap();
    assert_failed(&stage.manage("link", "new"), "Symlink");
    let path = stage.path("link");
    let parameters = [("path", path.as_str().into()), ("content", "new".into()), ("follow", true.into())];
    assert_changed(&stage.perform("file.managed", parameters));
    assert_eq!(stage.read("real"), "new");
    assert!(fs::symlink_metadata(path).unwrap().is_symlink());
}

#[test]
fn a_backup_is_the_former_file() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "old");
    let inode = fs::metadata(&path).unwrap().ino();
    let path = path.to_str().unwrap();
    let parameters = [("path", path.into()), ("content", "new".into()), ("backup", true.into())];
    assert_changed(&stage.perform("file.managed", parameters));
    let names = stage.names();
    assert!(names.len() == 2 && names[1].starts_with("conf.") && names[1].ends_with('~'), "{names:?}");
    assert_eq!((stage.read(&names[1]), stage.read("conf")), ("old".to_owned(), "new".to_owned()));
    assert_eq!(fs::metadata(stage.path(&names[1])).unwrap().ino(), inode);
}

#[test]
fn content_that_does_not_pass_its_check_is_never_placed() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "old");
    let before = trace(&path);
    let validated = |stage: &mut Stage, content: &str, at: &str| {
        let validate = Value::map([("argv", list(&["grep", "-q", "good", VALIDATED_FILE])), ("at", at.into())]);
        let parameters = [("path", path.to_str().unwrap().into()), ("content", content.into()), ("validate", validate)];
        stage.perform("file.managed", parameters)
    };
    assert_failed(&validated(&mut stage, "bad", "Before"), "ValidationFailed");
    assert_eq!((trace(&path), stage.names()), (before, vec!["conf".to_owned()]));
    assert_failed(&validated(&mut stage, "bad", "Placed"), "ValidationFailed");
    assert_eq!((stage.read("conf"), stage.names()), ("old".to_owned(), vec!["conf".to_owned()]));
    assert_eq!(trace(&path)[0], before[0], "the former file itself is back");
    assert_changed(&validated(&mut stage, "good", "Before"));
    assert_changed(&validated(&mut stage, "good too", "Placed"));
    assert_eq!(stage.names(), ["conf"]);
}

#[test]
fn a_new_file_that_does_not_pass_once_placed_is_gone_again() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    let validate = Value::map([("argv", list(&["false"])), ("at", "Placed".into())]);
    let done = stage.perform("file.managed", [("path", path.into()), ("content", "x".into()), ("validate", validate)]);
    assert_failed(&done, "ValidationFailed");
    assert!(stage.names().is_empty());
}

#[test]
fn the_checksum_is_compared_before_anything_is_written() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let with = |stage: &mut Stage, content: &str, sum: &str| {
        let parameters = [("path", path.as_str().into()), ("content", content.into()), ("checksum", sum.into())];
        stage.perform("file.managed", parameters)
    };
    assert_failed(&with(&mut stage, "hullo", sum), "ChecksumMismatch");
    assert_failed(&with(&mut stage, "hello", "md5:5d41402abc4b2a76b9719d911017c592"), "InvalidParameters");
    assert!(stage.names().is_empty());
    assert_changed(&with(&mut stage, "hello", sum));
}

#[test]
fn a_directory_is_made_once_and_then_left_alone() {
    let mut stage = Stage::new();
    let path = stage.path("dir");
    let make = |stage: &mut Stage, mode: &str| {
        let parameters = [("path", path.as_str().into()), ("mode", mode.into()), ("owner", 7.into())];
        stage.perform("file.directory", parameters)
    };
    assert_changed(&make(&mut stage, "2750"));
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o2750, 7, 0));
    let before = trace(&path);
    assert_ok(&make(&mut stage, "2750"));
    assert_eq!(before, trace(&path));
    assert_changed(&make(&mut stage, "0711"));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o711);
}

#[test]
fn links_never_lead_out_of_the_root_folder() {
    let mut stage = Stage::rooted();
    let outside = Stage::new();
    fs::create_dir(stage.dir.path().join("etc")).unwrap();
    symlink(outside.dir.path(), stage.dir.path().join("absolute")).unwrap();
    symlink("../../../../../../etc", stage.dir.path().join("dots")).unwrap();
    symlink("/etc", stage.dir.path().join("inside")).unwrap();
    let manage =
        |stage: &mut Stage, path: &str| stage.perform("file.managed", [("path", path.into()), ("content", "x".into())]);
    assert_failed(&manage(&mut stage, "/absolute/x"), "ParentMissing");
    assert_changed(&manage(&mut stage, "/dots/lockstep-test-dots"));
    assert_changed(&manage(&mut stage, "/inside/x"));
    assert_eq!(names(&stage.dir.path().join("etc")), ["lockstep-test-dots", "x"]);
    assert!(outside.names().is_empty() && !fs::exists("/etc/lockstep-test-dots").unwrap());
    let done = stage.perform("command.run", [("argv", list(&["true"])), ("creates", "/etc/x".into())]);
    assert_ok(&done);
    assert_eq!(text(&done, "stdout"), "");
}

#[test]
fn many_new_files_are_synced_with_few_descriptors() {
    let mut stage = Stage::new();
    for nth in 0..200 {
        assert_changed(&stage.manage(&format!("f{nth}"), "x"));
    }
    let open = fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 200, "{open} descriptors are open");
    stage.unsynced.sync().unwrap();
}

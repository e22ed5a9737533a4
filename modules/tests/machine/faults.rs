//! `file.managed` where something is in the way: a typed error, and nothing changed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use lockstep_apis::v1alpha::Value;
use rustix::fs::{CWD, IFlags, Mode};

use crate::stage::{Mounted, Stage, assert_changed, assert_failed, assert_ok, names, trace};

#[test]
fn a_path_that_is_none_is_refused() {
    let mut stage = Stage::new();
    for bad in
        ["", "conf", "/", "/..", "/tmp/../x", "/tmp/x/", "/tmp/a\0b", "//tmp/x", &format!("/{}", "a".repeat(256))]
    {
        let done = stage.perform("file.managed", [("path", bad.into()), ("content", "x".into())]);
        assert_failed(&done, "InvalidPath");
    }
}

/// Every action on a path, with parameters that would change something there.
fn actions_on_paths() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    vec![
        ("file.absent", vec![]),
        ("file.block", vec![("name", "a".into()), ("content", "x".into())]),
        ("file.content", vec![("content", "x".into())]),
        ("file.directory", vec![]),
        ("file.line", vec![("line", "x".into())]),
        ("file.managed", vec![("content", "x".into())]),
        ("file.replaced", vec![("regexp", "a".into())]),
        ("file.symlink", vec![("target", "x".into())]),
        ("archive.unpacked", vec![("source", "/nowhere".into())]),
    ]
}

#[test]
fn all_actions_refuse_bad_paths_and_places_alike() {
    let mut stage = Stage::new();
    let file = stage.write("file", "a");
    let before = (trace(&file), trace(stage.dir.path()));
    let (missing, below) = (stage.path("no/such/thing"), stage.path("file/thing"));
    let (long, part) = (format!("/{}", "a/".repeat(2048)), format!("/{}", "a".repeat(256)));
    let mut rows: Vec<(&str, &str)> =
        ["", "conf", "/", "/..", "/tmp/../x", "/tmp/x/", "/tmp/a\0b", "//tmp/x", &long, &part]
            .map(|p| (p, "InvalidPath"))
            .into();
    rows.extend([
        ("/proc/self/mem", "SpecialFilesystem"),
        ("/sys/kernel/new", "SpecialFilesystem"),
        (&missing, "ParentMissing"),
        (&below, "ParentNotDirectory"),
    ]);
    for (action, more) in actions_on_paths() {
        for (path, reason) in &rows {
            let given = [("path", Value::text(*path))].into_iter().chain(more.iter().cloned());
            let done = stage.perform_with(action, &Value::map(given));
            if action == "file.absent" && reason.starts_with("Parent") {
                assert_ok(&done);
                continue;
            }
            let found = done.result.get("reason").and_then(Value::as_text);
            assert_eq!(found, Some(*reason), "{action} {path:?}: {}", done.message);
        }
    }
    assert_eq!(before, (trace(&file), trace(stage.dir.path())));
}

#[test]
fn kernel_switches_and_devices_are_not_files() {
    let mut stage = Stage::new();
    let mut manage = |path: &str| stage.perform("file.managed", [("path", path.into()), ("content", "x".into())]);
    for special in ["/proc/self/mem", "/proc/sys/kernel/hostname", "/sys/kernel/uevent_seqnum"] {
        assert_failed(&manage(special), "SpecialFilesystem");
    }
    assert_failed(&manage("/dev/null"), "WrongKind");
}

#[test]
fn what_is_no_regular_file_is_named_and_left() {
    let mut stage = Stage::new();
    fs::create_dir(stage.path("dir")).unwrap();
    rustix::fs::mkfifoat(CWD, stage.path("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    let _socket = UnixListener::bind(stage.path("socket")).unwrap();
    symlink("/nowhere", stage.path("link")).unwrap();
    let before: Vec<_> = stage.names().iter().map(|name| trace(stage.path(name))).collect();
    for (name, reason, word) in [
        ("dir", "WrongKind", "a directory"),
        ("fifo", "WrongKind", "a named pipe"),
        ("socket", "WrongKind", "a socket"),
        ("link", "Symlink", "/nowhere"),
    ] {
        let done = stage.manage(name, "x");
        assert_failed(&done, reason);
        assert!(done.message.contains(word), "{}", done.message);
    }
    let after: Vec<_> = stage.names().iter().map(|name| trace(stage.path(name))).collect();
    assert_eq!(before, after);
    let (file, dir) = (stage.write("file", ""), stage.path("file"));
    assert_failed(&stage.perform("file.directory", [("path", dir.into())]), "WrongKind");
    assert_failed(&stage.manage("file/below", "x"), "ParentNotDirectory");
    assert!(file.is_file());
}

#[test]
fn an_immutable_file_is_named_as_such() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "old");
    let file = fs::File::open(&path).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    rustix::fs::ioctl_setflags(&file, flags | IFlags::IMMUTABLE).unwrap();
    let done = stage.manage("conf", "new");
    rustix::fs::ioctl_setflags(&file, flags).unwrap();
    assert_failed(&done, "Immutable");
    assert_eq!((stage.read("conf"), stage.names()), ("old".to_owned(), vec!["conf".to_owned()]));
}

#[test]
fn hard_links_are_not_cut() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "old");
    fs::hard_link(&path, stage.path("other")).unwrap();
    assert_failed(&stage.manage("conf", "new"), "HardLinked");
    assert_eq!(fs::metadata(path).unwrap().nlink(), 2);
}

#[test]
fn a_full_file_system_leaves_the_old_content_and_no_temporary_file() {
    let mut stage = Stage::new();
    let _mounted = Mounted::tmpfs(stage.dir.path(), "size=64k");
    stage.write("conf", "old");
    let done = stage.manage("conf", &"x".repeat(200_000));
    assert_failed(&done, "NoSpace");
    assert!(done.message.contains(&stage.path("conf")));
    assert_eq!((stage.read("conf"), stage.names()), ("old".to_owned(), vec!["conf".to_owned()]));
}

#[test]
fn a_file_system_without_inodes_is_full_too() {
    let mut stage = Stage::new();
    let _mounted = Mounted::tmpfs(stage.dir.path(), "nr_inodes=3");
    stage.write("one", "1");
    stage.write("two", "2");
    assert_failed(&stage.manage("three", "x"), "NoSpace");
    assert_failed(&stage.manage("one", "x"), "NoSpace");
    assert_eq!(stage.read("one"), "1");
}

#[test]
fn a_read_only_file_system_is_named_as_such() {
    let mut stage = Stage::new();
    let mounted = Mounted::tmpfs(stage.dir.path(), "");
    stage.write("conf", "old");
    mounted.make_read_only();
    assert_failed(&stage.manage("conf", "new"), "ReadOnly");
    assert_failed(&stage.manage("new", "new"), "ReadOnly");
    let path = stage.path("conf");
    let parameters = [("path", path.into()), ("mode", Value::text("0600"))];
    assert_failed(&stage.perform("file.managed", parameters), "ReadOnly");
}

#[test]
fn a_file_that_is_mounted_over_is_not_replaced() {
    let mut stage = Stage::new();
    let path = stage.write("conf", "beneath");
    let other = stage.write("other", "above");
    let _mounted = Mounted::bind(&other, &path);
    assert_failed(&stage.manage("conf", "new"), "MountPoint");
    assert_eq!((stage.read("conf"), stage.names().len()), ("above".to_owned(), 2));
}

#[test]
fn links_that_others_can_change_are_not_followed() {
    let mut stage = Stage::new();
    fs::create_dir(stage.path("shared")).unwrap();
    fs::set_permissions(stage.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(stage.path("target")).unwrap();
    symlink(stage.path("target"), stage.path("shared/link")).unwrap();
    assert_failed(&stage.manage("shared/link/x", "x"), "UntrustedSymlink");
    assert!(names(&stage.dir.path().join("target")).is_empty());
    assert_changed(&stage.manage("shared/plain", "x"));
    symlink(stage.path("target"), stage.path("ours")).unwrap();
    assert_changed(&stage.manage("ours/x", "x"));
    let (path, follow) = (stage.path("shared/link"), true);
    let done = stage.perform("file.managed", [("path", path.into()), ("follow", follow.into())]);
    assert_failed(&done, "UntrustedSymlink");
}

#[test]
fn circles_of_links_end() {
    let mut stage = Stage::new();
    symlink("b", stage.path("a")).unwrap();
    symlink("a", stage.path("b")).unwrap();
    assert_failed(&stage.manage("a/x", "x"), "TooManyLinks");
    let path = stage.path("a");
    let done = stage.perform("file.managed", [("path", path.into()), ("follow", true.into())]);
    assert_failed(&done, "TooManyLinks");
}

#[test]
fn bad_modes_and_unknown_owners_are_found_before_anything_is_written() {
    let mut stage = Stage::new();
    let path = stage.path("conf");
    for (name, value, reason) in [
        ("mode", "999", "InvalidParameters"),
        ("mode", "07777", "InvalidParameters"),
        ("mode", "u+s", "InvalidParameters"),
        ("owner", "no-such-user", "NoSuchUser"),
        ("owner", "-1", "NoSuchUser"),
        ("owner", "4294967295", "NoSuchUser"),
        ("group", "no-such-group", "NoSuchGroup"),
    ] {
        let parameters = [("path", path.as_str().into()), ("content", "x".into()), (name, value.into())];
        assert_failed(&stage.perform("file.managed", parameters), reason);
    }
    let both = [("path", path.into()), ("content", "x".into()), ("template", "y".into())];
    assert_failed(&stage.perform("file.managed", both), "InvalidParameters");
    assert!(stage.names().is_empty());
}

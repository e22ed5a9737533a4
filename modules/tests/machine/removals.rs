//! `file.absent`.

use std::fs;
use std::os::unix::fs::symlink;

use crate::stage::{Mounted, Stage, assert_changed, assert_failed, assert_ok, trace};

#[test]
fn what_is_there_is_removed_and_then_stays_away() {
    let mut stage = Stage::new();
    let kept = stage.write("kept", "x");
    symlink(&kept, stage.path("link")).unwrap();
    stage.write("file", "x");
    fs::create_dir(stage.path("empty")).unwrap();
    for name in ["link", "file", "empty"] {
        let path = stage.path(name);
        assert_changed(&stage.perform("file.absent", [("path", path.as_str().into())]));
        let before = trace(stage.dir.path());
        assert_ok(&stage.perform("file.absent", [("path", path.into())]));
        assert_eq!(before, trace(stage.dir.path()));
    }
    assert_eq!(stage.names(), ["kept"]);
    let below = stage.path("nothing/below");
    assert_ok(&stage.perform("file.absent", [("path", below.into())]));
}

#[test]
fn a_tree_is_removed_only_when_asked_for_and_links_in_it_are_not_followed() {
    let mut stage = Stage::new();
    let kept = stage.path("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(format!("{kept}/file"), "x").unwrap();
    fs::create_dir_all(stage.path("tree/a/b")).unwrap();
    stage.write("tree/a/b/file", "x");
    symlink(&kept, stage.path("tree/a/link")).unwrap();
    let path = stage.path("tree");
    assert_failed(&stage.perform("file.absent", [("path", path.as_str().into())]), "NotEmpty");
    let parameters = [("path", path.into()), ("recursive", true.into())];
    assert_changed(&stage.perform("file.absent", parameters));
    assert_eq!(stage.names(), ["kept"]);
    assert_eq!(stage.read("kept/file"), "x");
}

#[test]
fn a_mount_in_a_tree_keeps_its_files() {
    let mut stage = Stage::new();
    fs::create_dir_all(stage.path("tree/mounted")).unwrap();
    fs::create_dir(stage.path("other")).unwrap();
    stage.write("other/file", "x");
    // The same device: only the kernel's own check of mounts sees it.
    let mounted = Mounted::bind(&stage.dir.path().join("other"), &stage.dir.path().join("tree/mounted"));
    let path = stage.path("tree");
    let parameters = [("path", path.into()), ("recursive", true.into())];
    assert_failed(&stage.perform("file.absent", parameters), "MountPoint");
    assert_eq!(stage.read("other/file"), "x");
    drop(mounted);
}

#[test]
fn directories_that_the_system_needs_are_not_removed() {
    let mut stage = Stage::rooted();
    fs::create_dir_all(stage.dir.path().join("etc/x")).unwrap();
    symlink("/etc", stage.dir.path().join("alias")).unwrap();
    fs::create_dir_all(stage.dir.path().join("usr/lib")).unwrap();
    symlink("usr/lib", stage.dir.path().join("lib")).unwrap();
    let absent = |path: &str, stage: &mut Stage| {
        stage.perform("file.absent", [("path", path.into()), ("recursive", true.into())])
    };
    assert_failed(&absent("/etc", &mut stage), "Vital");
    assert_failed(&absent("/lib/../etc", &mut stage), "InvalidPath");
    assert_changed(&absent("/alias/x", &mut stage));
    assert!(stage.dir.path().join("etc").is_dir());
}

//! Directories of other users: names in them are changed as their owner, whom nothing that it swaps meanwhile helps.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_apis::v1alpha::Value;
use rustix::process::{Gid, Uid};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, names};

/// Who owns the directories here.
const USER: u32 = 65_534;

fn stage(mode: u32) -> Stage {
    let stage = Stage::new();
    fs::set_permissions(stage.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let home = stage.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, Permissions::from_mode(mode)).unwrap();
    chown(&home, Some(USER), Some(USER)).unwrap();
    stage
}

type Given = (&'static str, Value);

fn given(path: &str, more: &[Given]) -> Value {
    Value::map([&[("path", path.into())], more].concat())
}

/// The same for a file of the user's.
fn owned(path: &str, more: &[Given]) -> Value {
    let user = || Value::from(USER.to_string().as_str());
    given(path, &[&[("owner", user()), ("group", user())], more].concat())
}

#[test]
fn what_the_owner_may_not_is_not_done_though_we_are_root() {
    let mut stage = stage(0o755);
    let path = |stage: &Stage, name: &str| stage.path(&format!("home/{name}"));
    let old = owned(&path(&stage, "old"), &[("content", "x".into())]);
    assert_changed(&stage.perform_with("file.managed", &old));
    fs::set_permissions(stage.path("home"), Permissions::from_mode(0o555)).unwrap();
    stage.host.forget();
    let content = |text: &str| ("content", Value::from(text));
    let table = [
        ("file.managed", owned(&path(&stage, "new"), &[content("x")])),
        ("file.managed", given(&path(&stage, "roots"), &[content("x")])),
        ("file.managed", owned(&path(&stage, "old"), &[content("y")])),
        ("file.managed", owned(&path(&stage, "deep/er/new"), &[content("x"), ("parents", true.into())])),
        ("file.directory", owned(&path(&stage, "dir"), &[])),
        ("file.symlink", given(&path(&stage, "link"), &[("target", "old".into())])),
        ("file.absent", given(&path(&stage, "old"), &[])),
    ];
    for (action, parameters) in table {
        assert_failed(&stage.perform_with(action, &parameters), "PermissionDenied");
        assert_eq!((names(stage.path("home").as_ref()), stage.read("home/old")), (vec!["old".to_owned()], "x".into()));
    }
}

#[test]
fn what_is_made_is_the_owners_unless_the_book_says_otherwise() {
    let mut stage = stage(0o755);
    let path = |stage: &Stage, name: &str| stage.path(&format!("home/{name}"));
    let content = ("content", Value::from("x"));
    let mine = owned(&path(&stage, "made/mine"), &[content.clone(), ("parents", true.into()), ("mode", "4755".into())]);
    for (action, parameters) in [
        ("file.managed", mine),
        ("file.managed", given(&path(&stage, "roots"), &[content, ("mode", "0600".into())])),
        ("file.directory", given(&path(&stage, "dir"), &[("mode", "0700".into())])),
        ("file.symlink", given(&path(&stage, "link"), &[("target", "roots".into())])),
    ] {
        assert_changed(&stage.perform_with(action, &parameters));
        assert_ok(&stage.perform_with(action, &parameters));
    }
    let attributes = |name: &str| {
        let found = fs::symlink_metadata(path(&stage, name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(attributes("made"), (USER, USER, 0o755));
    assert_eq!(attributes("made/mine"), (USER, USER, 0o4755));
    assert_eq!(attributes("roots"), (0, 0, 0o600));
    assert_eq!(attributes("dir"), (0, 0, 0o700));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("Uid:\t0\t0\t0\t0\n"), "root again: {status}");
}

/// As the user: waits for the temporary files of others in its directory, writes into them, puts links to a file of
/// root's in their place.
fn attack(home: &str, victim: &str, over: &AtomicBool, hits: &AtomicU64) {
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let spare = format!("{home}/spare");
    while !over.load(Ordering::Relaxed) {
        let found = names(home.as_ref()).into_iter().find(|name| name.starts_with(".lockstep-"));
        let Some(temporary) = found.map(|name| format!("{home}/{name}")) else { continue };
        // Each of these may come too late.
        if let Ok(mut file) = OpenOptions::new().write(true).open(&temporary) {
            let _ = file.write_all(b"evil");
        }
        if hits.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            let _ = fs::remove_file(&spare);
            let _ = symlink(victim, &spare);
            let _ = fs::rename(&spare, &temporary);
        }
    }
}

#[test]
fn an_owner_who_gets_at_our_temporary_files_changes_nothing_but_its_own() {
    let mut stage = stage(0o755);
    let (home, victim) = (stage.path("home"), stage.path("victim"));
    stage.write("victim", "precious");
    let attributes = |path: &str| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.mode(), found.mtime(), found.mtime_nsec())
    };
    let before = attributes(&victim);
    let (over, hits) = (AtomicBool::new(false), AtomicU64::new(0));
    let conf = stage.path("home/conf");
    thread::scope(|scope| {
        scope.spawn(|| attack(&home, &victim, &over, &hits));
        let until = Instant::now() + Duration::from_secs(60);
        let mut round = 0;
        while hits.load(Ordering::Relaxed) < 300 && Instant::now() < until {
            round += 1;
            let text = round.to_string().repeat(100_000);
            let wanted = [("content", Value::from(text.as_str())), ("mode", "4644".into())];
            let is_theirs = round % 2 == 0;
            let parameters = if is_theirs { owned(&conf, &wanted) } else { given(&conf, &wanted) };
            stage.perform_with("file.managed", &parameters);
            // What root owns and others may run as root has no byte of the user's.
            if let Ok(found) = fs::symlink_metadata(&conf)
                && found.is_file()
                && found.uid() == 0
            {
                assert!(!fs::read(&conf).unwrap().starts_with(b"evil"), "round {round}");
            }
            assert_eq!((stage.read("victim"), attributes(&victim)), ("precious".to_owned(), before), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(hits.load(Ordering::Relaxed) >= 300, "too few: {hits:?}");
}

#[test]
fn a_file_of_roots_that_the_owner_linked_into_its_directory_stays_roots() {
    let mut stage = stage(0o755);
    stage.write("shadow", "precious");
    // As the user may where the kernel does not protect hard links.
    fs::hard_link(stage.path("shadow"), stage.path("home/conf")).unwrap();
    let conf = stage.path("home/conf");
    let same = owned(&conf, &[("content", "precious".into()), ("mode", "0666".into())]);
    assert_failed(&stage.perform_with("file.managed", &same), "HardLinked");
    let found = fs::metadata(stage.path("shadow")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o644));
}

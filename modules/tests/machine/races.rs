//! What holds while others read, write and swap things at the same time.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::process::{Gid, Uid};

use crate::stage::{Stage, assert_changed, names};

#[test]
fn a_reader_sees_the_old_file_or_the_new_one_whole() {
    let mut stage = Stage::new();
    let contents = ["a".repeat(50_000), "b".repeat(70_000)];
    stage.manage("conf", &contents[0]);
    let path = stage.path("conf");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !over.load(Ordering::Relaxed) || reads == 0 {
                let found = fs::read_to_string(&path).unwrap();
                assert!(contents.contains(&found), "{} bytes are neither", found.len());
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
                reads += 1;
            }
        });
        for nth in 1..300 {
            assert_changed(&stage.manage("conf", &contents[nth % 2]));
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

/// Swaps two names until told to stop, as nobody: this thread alone takes that identity.
fn swap(pairs: &[(String, String)], over: &AtomicBool, swaps: &AtomicU64) {
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    while !over.load(Ordering::Relaxed) {
        for (one, other) in pairs {
            if rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn an_owner_who_swaps_links_gets_nothing_written_elsewhere() {
    let mut stage = Stage::new();
    fs::set_permissions(stage.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (home, victim) = (stage.path("home"), stage.path("victim"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&victim).unwrap();
    stage.write("victim/secret", "precious");
    let pairs =
        [(format!("{home}/dir"), format!("{home}/dir-link")), (format!("{home}/conf"), format!("{home}/conf-link"))];
    fs::create_dir(&pairs[0].0).unwrap();
    symlink(&victim, &pairs[0].1).unwrap();
    fs::write(&pairs[1].0, "").unwrap();
    symlink(format!("{victim}/secret"), &pairs[1].1).unwrap();
    for path in [&home, &pairs[0].0, &pairs[1].0] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let before = crate::stage::trace(format!("{victim}/secret"));
    let (over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut written = 0;
    thread::scope(|scope| {
        scope.spawn(|| swap(&pairs, &over, &swaps));
        let until = Instant::now() + Duration::from_secs(30);
        while swaps.load(Ordering::Relaxed) < 100_000 && Instant::now() < until {
            stage.host.forget();
            for (name, follow) in [("home/dir/x", false), ("home/conf", false), ("home/conf", true)] {
                let (path, content) = (stage.path(name), format!("{written}"));
                let parameters = [
                    ("path", path.as_str().into()),
                    ("content", content.into()),
                    ("follow", follow.into()),
                    ("mode", "0666".into()),
                ];
                if stage.perform("file.managed", parameters).outcome == lockstep_modules::Outcome::Changed {
                    written += 1;
                }
            }
            let path = stage.path("home/dir/x");
            stage.perform("file.absent", [("path", path.into()), ("recursive", true.into())]);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed) >= 100_000, "too few swaps: {swaps:?}");
    assert!(written > 0, "nothing was ever written, so nothing was tried");
    assert_eq!((names(victim.as_ref()), stage.read("victim/secret")), (vec!["secret".to_owned()], "precious".into()));
    assert_eq!(crate::stage::trace(format!("{victim}/secret")), before);
}

#[test]
fn leftovers_of_dead_writers_are_removed_and_those_of_living_ones_kept() {
    let mut stage = Stage::new();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    stage.write(&format!(".lockstep-{}-0123", child.id()), "half");
    let living = format!(".lockstep-{}-4567", std::process::id());
    stage.write(&living, "being written");
    stage.write(".lockstep-notes", "not ours");
    assert_changed(&stage.manage("conf", "x"));
    assert_eq!(stage.names(), [living.as_str(), ".lockstep-notes", "conf"]);
}

//! What holds while others read, write and swap things at the same time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::process::{Gid, Uid};

use crate::stage::{Stage, assert_changed, names, text, trace};

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

/// Swaps the directory and the file in `home` for links to what is in `victim` and back, until told to stop. Works as
/// nobody: this thread alone takes that identity.
fn swap(home: &str, victim: &str, over: &AtomicBool, swaps: &AtomicU64) {
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    let [dir, dir_link, conf, spare] = ["dir", "dir-link", "conf", "spare"].map(|name| format!("{home}/{name}"));
    let secret = format!("{victim}/secret");
    while !over.load(Ordering::Relaxed) {
        rustix::fs::renameat_with(CWD, &dir, CWD, &dir_link, RenameFlags::EXCHANGE).unwrap();
        // A link that a write replaced is made anew.
        symlink(&secret, &spare).unwrap();
        fs::rename(&spare, &conf).unwrap();
        fs::write(&spare, "").unwrap();
        fs::rename(&spare, &conf).unwrap();
        swaps.fetch_add(3, Ordering::Relaxed);
    }
}

#[test]
fn an_owner_who_swaps_links_gets_nothing_written_elsewhere() {
    let mut stage = Stage::new();
    fs::set_permissions(stage.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (home, victim) = (stage.path("home"), stage.path("victim"));
    fs::create_dir_all(format!("{home}/dir")).unwrap();
    fs::create_dir_all(format!("{victim}/tree")).unwrap();
    stage.write("victim/secret", "precious");
    stage.write("victim/tree/leaf", "precious");
    symlink(&victim, format!("{home}/dir-link")).unwrap();
    for path in [home.clone(), format!("{home}/dir")] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    let traces = || ["", "/secret", "/tree", "/tree/leaf"].map(|name| trace(format!("{victim}{name}")));
    let before = traces();
    let (over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    thread::scope(|scope| {
        scope.spawn(|| swap(&home, &victim, &over, &swaps));
        let until = Instant::now() + Duration::from_secs(60);
        let mut round = 0;
        while (swaps.load(Ordering::Relaxed) < 100_000 || round < 1000) && Instant::now() < until {
            round += 1;
            stage.host.forget();
            for (name, follow) in [("home/dir/x", false), ("home/conf", false), ("home/conf", true)] {
                let (path, content) = (stage.path(name), round.to_string());
                let parameters = [
                    ("path", path.as_str().into()),
                    ("content", content.into()),
                    ("follow", follow.into()),
                    ("mode", "0666".into()),
                ];
                let done = stage.perform("file.managed", parameters);
                *reasons.entry(text(&done, "reason").to_owned()).or_default() += 1;
            }
            let path = stage.path("home/dir/tree");
            stage.perform("file.absent", [("path", path.into()), ("recursive", true.into())]);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!((names(victim.as_ref()), stage.read("victim/secret")), (strings(["secret", "tree"]), "precious".into()));
    assert_eq!(traces(), before);
    assert!(swaps.load(Ordering::Relaxed) >= 100_000, "too few swaps: {swaps:?}");
    for reason in ["", "Symlink", "UntrustedSymlink"] {
        assert!(reasons.get(reason).is_some_and(|count| *count > 0), "{reason:?} never happened: {reasons:?}");
    }
}

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
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

//! `package.*` by a real dnf, with packages and a repository of this test, in a folder that stands for a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Done, Outcome};
use tempfile::TempDir;

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, list};

/// A repository with `demo` 1.0 and 2.0, which needs `demo-lib`.
fn repository() -> TempDir {
    let dir = TempDir::new().unwrap();
    for version in ["1.0", "2.0"] {
        let spec = format!(
            "Name: demo\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: none\nBuildArch: noarch\nRequires: demo-lib\n\
             %description\nx\n%package -n demo-lib\nSummary: x\n%description -n demo-lib\nx\n%files\n%files -n demo-lib\n"
        );
        let path = dir.path().join("demo.spec");
        fs::write(&path, spec).unwrap();
        let top = format!("_topdir {}/top", dir.path().display());
        let rpms = format!("_rpmdir {}/repo", dir.path().display());
        run(Command::new("rpmbuild").args(["-bb", "--quiet", "--define", &top, "--define", &rpms]).arg(path));
    }
    run(Command::new("createrepo_c").arg("-q").arg(dir.path().join("repo")));
    dir
}

fn run(command: &mut Command) {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

/// A folder whose only repository is that one.
fn stage(repository: &TempDir, checked: bool) -> Stage {
    let stage = Stage::rooted();
    fs::create_dir_all(stage.path("etc/yum.repos.d")).unwrap();
    let text = format!(
        "[local]\nname=local\nbaseurl=file://{}/repo\ngpgcheck={}\n",
        repository.path().display(),
        i32::from(checked)
    );
    fs::write(stage.path("etc/yum.repos.d/local.repo"), text).unwrap();
    run(Command::new("rpm").args(["--root", &stage.path(""), "--initdb"]));
    stage
}

fn packages(stage: &mut Stage, action: &str, names: &[&str], more: &[(&'static str, Value)]) -> Done {
    let given = [("backend", Value::text("Dnf"))].into_iter().chain(more.iter().cloned());
    let names = (!names.is_empty()).then(|| ("names", list(names)));
    stage.perform_with(&format!("package.{action}"), &Value::map(given.chain(names)))
}

/// All paths but those of rpm's database, which whoever reads it touches.
fn tree(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path.clone());
            }
            if !path.to_string_lossy().contains("rpmdb") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Checks, does, and does again.
#[track_caller]
fn converges(stage: &mut Stage, action: &str, names: &[&str], more: &[(&'static str, Value)]) -> String {
    stage.diff = true;
    stage.check = true;
    let before = tree(stage.dir.path());
    let told = packages(stage, action, names, more);
    assert_eq!(before, tree(stage.dir.path()), "a check changes nothing");
    stage.check = false;
    let done = packages(stage, action, names, more);
    assert_changed(&done);
    assert_eq!((&told.message, &told.diff, &told.result), (&done.message, &done.diff, &done.result));
    for check in [true, false] {
        stage.check = check;
        assert_ok(&packages(stage, action, names, more));
    }
    done.message
}

#[test]
fn packages_converge_by_dnf() {
    let repository = repository();
    let mut stage = stage(&repository, false);
    let told = converges(&mut stage, "installed", &["demo=1.0-1"], &[]);
    assert_eq!(told, "install demo 1.0-1, install demo-lib 2.0-1");
    assert_ok(&packages(&mut stage, "installed", &["demo", "demo-lib:noarch"], &[]));
    assert_eq!(converges(&mut stage, "latest", &["demo"], &[]), "upgrade demo 2.0-1");
    assert_eq!(converges(&mut stage, "installed", &["demo=1.0-1"], &[]), "downgrade demo 1.0-1");
    assert_eq!(converges(&mut stage, "upgraded", &[], &[]), "upgrade demo 2.0-1");
    let done = packages(&mut stage, "absent", &["demo-lib"], &[]);
    assert_failed(&done, "WouldRemoveOthers");
    assert!(done.message.contains("demo") && done.message.contains("dependents"), "{}", done.message);
    // What only it needed stays: nobody asked for its removal.
    assert_eq!(converges(&mut stage, "absent", &["demo"], &[]), "remove demo 2.0-1");
    assert_eq!(converges(&mut stage, "latest", &["demo", "demo-lib"], &[]), "install demo 2.0-1");
    let told = converges(&mut stage, "absent", &["demo-lib"], &[("dependents", true.into())]);
    assert_eq!(told, "remove demo-lib 2.0-1, remove demo 2.0-1");
}

#[test]
fn what_dnf_refuses_is_named() {
    let repository = repository();
    let mut open = stage(&repository, false);
    let done = packages(&mut open, "installed", &["demo", "nope", "nope-too=1"], &[]);
    assert_failed(&done, "UnknownPackage");
    assert!(done.message.contains("nope") && done.message.contains("nope-too-1"), "{}", done.message);
    let mut checked = stage(&repository, true);
    assert_failed(&packages(&mut checked, "installed", &["demo"], &[]), "NotSigned");
    fs::remove_dir_all(repository.path().join("repo")).unwrap();
    let mut empty = stage(&repository, false);
    assert_eq!(packages(&mut empty, "installed", &["demo"], &[]).outcome, Outcome::Failed);
}

#[test]
fn dnfs_lock_is_waited_for_as_long_as_asked() {
    let repository = repository();
    let mut stage = stage(&repository, false);
    assert_changed(&packages(&mut stage, "installed", &["demo-lib"], &[]));
    // dnf's locks are files with the number of a process; ours lives as long as the test.
    for lock in ["var/cache/dnf/metadata_lock.pid", "var/lib/dnf/rpmdb_lock.pid"] {
        fs::write(stage.path(lock), std::process::id().to_string()).unwrap();
    }
    let timeout = [("lockTimeout", Value::text("1ms"))];
    assert_failed(&packages(&mut stage, "installed", &["demo"], &timeout), "PackageLockHeld");
    for lock in ["var/cache/dnf/metadata_lock.pid", "var/lib/dnf/rpmdb_lock.pid"] {
        fs::remove_file(stage.path(lock)).unwrap();
    }
    assert_changed(&packages(&mut stage, "installed", &["demo"], &timeout));
}

#[test]
fn a_repository_of_dnfs_is_a_file_and_its_key() {
    let repository = repository();
    let mut stage = stage(&repository, true);
    fs::remove_file(stage.path("etc/yum.repos.d/local.repo")).unwrap();
    let given = |more: (&'static str, Value)| {
        let uri = format!("file://{}/repo", repository.path().display());
        Value::map([("name", Value::text("shop")), ("uris", uri.into()), more])
    };
    let unsigned = given(("unsigned", true.into()));
    stage.check = true;
    assert_changed(&stage.perform_with("package.repository", &unsigned));
    assert!(crate::stage::names(&stage.dir.path().join("etc/yum.repos.d")).is_empty());
    stage.check = false;
    assert_changed(&stage.perform_with("package.repository", &unsigned));
    assert_ok(&stage.perform_with("package.repository", &unsigned));
    assert_changed(&packages(&mut stage, "installed", &["demo-lib"], &[]));
    // With a key, what nobody signed is not installed any more.
    let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nnone\n-----END PGP PUBLIC KEY BLOCK-----\n";
    let signed = given(("key", key.into()));
    assert_changed(&stage.perform_with("package.repository", &signed));
    assert_eq!(stage.read("etc/pki/rpm-gpg/shop.asc"), key);
    assert_eq!(packages(&mut stage, "installed", &["demo"], &[]).outcome, Outcome::Failed);
    let gone = [("name", Value::text("shop")), ("absent", true.into())];
    assert_changed(&stage.perform("package.repository", gone.clone()));
    assert_ok(&stage.perform("package.repository", gone));
    assert!(crate::stage::names(&stage.dir.path().join("etc/pki/rpm-gpg")).is_empty());
}

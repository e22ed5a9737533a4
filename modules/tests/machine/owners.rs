//! Directories of other users: names in them are changed as their owner, whom nothing that it swaps meanwhile helps.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use lockstep_apis::v1alpha::Value;
use lockstep_modules::VALIDATED_FILE;

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

/// What a user may try when a file of ours is complete and has not got its name yet: `$1` is that file, `$2` one of root's
/// that nobody may change, `$3` a hard link to it.
const ATTACKS: [&str; 5] = [
    "(echo evil > \"$1\") 2>/dev/null",
    "ln -s \"$2\" \"$1.x\" && mv -fT \"$1.x\" \"$1\"",
    "mv -fT \"$3\" \"$1\"",
    "rm -f \"$1\"",
    "rm -f \"$1\"; mkdir \"$1\"",
];

#[test]
fn an_owner_who_gets_at_our_temporary_files_changes_nothing_but_its_own() {
    let mut stage = stage(0o755);
    let (conf, victim, linked) = (stage.path("home/conf"), stage.path("victim"), stage.path("home/linked"));
    stage.write("victim", "precious");
    let attributes = |path: &str| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.mode(), found.mtime(), found.mtime_nsec())
    };
    let before = attributes(&victim);
    for (attack, theirs) in ATTACKS.into_iter().flat_map(|attack| [(attack, true), (attack, false)]) {
        // Where the kernel protects hard links a user cannot make this one.
        fs::hard_link(&victim, &linked).unwrap();
        let user = USER.to_string();
        let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
        let script = format!("{attack}; true");
        let as_user = ["setpriv", &uid, &gid, "--clear-groups", "sh", "-c", &script, "sh"];
        let words = as_user.into_iter().chain([VALIDATED_FILE, &victim, &linked]).map(Value::text);
        let validate = Value::map([("argv", Value::list(words))]);
        let wanted = [("content", "good".into()), ("mode", "4644".into()), ("validate", validate)];
        let parameters = if theirs { owned(&conf, &wanted) } else { given(&conf, &wanted) };
        let done = stage.perform_with("file.managed", &parameters);
        let told = format!("{attack} on a file of {}: {}", if theirs { "the user's" } else { "root's" }, done.message);
        assert_eq!((stage.read("victim"), attributes(&victim)), ("precious".to_owned(), before), "{told}");
        if attack == ATTACKS[0] && !theirs {
            // What root owns, and others may run as root, has no byte of the user's.
            assert_eq!((stage.read("home/conf"), fs::metadata(&conf).unwrap().uid()), ("good".to_owned(), 0), "{told}");
        }
        for name in names(stage.path("home").as_ref()) {
            let path = stage.path(&format!("home/{name}"));
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        }
    }
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

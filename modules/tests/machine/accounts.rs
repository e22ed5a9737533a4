//! `user.*` and `group.*`, in folders that stand for a machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lockstep_apis::v1alpha::Value;
use lockstep_modules::{Done, Outcome};

use crate::stage::{Stage, assert_changed, assert_failed, assert_ok, list};

/// A machine with the user `ann`, and the groups `web` and `ops`.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nann:x:1000:\nweb:x:50:ann\nops:x:51:\n"),
    ("/etc/shadow", "root:*:19000:0:99999:7:::\nann:$y$j9T$old$hash:19000:0:99999:7::20000:\n"),
    ("/etc/gshadow", "root:*::\nann:!::\nweb:!::ann\nops:!::\n"),
    ("/etc/login.defs", "UID_MIN 1000\nUID_MAX 60000\nGID_MIN 1000\nGID_MAX 60000\nUSERGROUPS_ENAB yes\n"),
    ("/home/ann/.profile", "x"),
    ("/etc/skel/.profile", "x"),
];

/// The folder, and the log of the programs that were run.
fn stage() -> Stage {
    let mut stage = Stage::rooted();
    for (path, content) in FILES {
        let path = stage.path(&path[1..]);
        fs::create_dir_all(std::path::Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir(stage.path("bin")).unwrap();
    for program in ["useradd", "usermod", "chpasswd", "userdel", "groupadd", "groupmod", "groupdel"] {
        let path = stage.path(&format!("bin/{program}"));
        let log = stage.path("log");
        fs::write(&path, format!("#!/bin/sh\necho {program} \"$@\" >>{log}\nexec /usr/sbin/{program} \"$@\"\n"))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    stage.environment.insert("PATH".into(), format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", stage.path("bin")));
    stage
}

fn user<const N: usize>(stage: &mut Stage, name: &str, more: [(&str, Value); N]) -> Done {
    stage.perform_with("user.present", &Value::map([("name", Value::text(name))].into_iter().chain(more)))
}

fn line(stage: &Stage, file: &str, name: &str) -> String {
    let text = stage.read(file);
    text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_default().to_owned()
}

#[test]
fn a_new_user_is_as_the_book_says() {
    let mut stage = stage();
    let done = user(
        &mut stage,
        "bob",
        [
            ("uid", 1500.into()),
            ("group", "ops".into()),
            ("groups", list(&["web"])),
            ("comment", "Bob, of -ops".into()),
            ("home", "/home/bob".into()),
            ("shell", "/bin/bash".into()),
            ("password", "$y$j9T$salt$hash".into()),
            ("expires", "2030-01-31".into()),
        ],
    );
    assert_changed(&done);
    assert_eq!(done.result.get("name"), Some(&"bob".into()));
    assert_eq!(line(&stage, "etc/passwd", "bob"), "bob:x:1500:51:Bob, of -ops:/home/bob:/bin/bash");
    assert_eq!(line(&stage, "etc/group", "web"), "web:x:50:ann,bob");
    let shadow = line(&stage, "etc/shadow", "bob");
    assert!(shadow.starts_with("bob:$y$j9T$salt$hash:") && shadow.ends_with(":21945:"), "{shadow}");
    assert!(fs::metadata(stage.path("home/bob/.profile")).is_ok());
    assert!(!stage.read("log").contains("hash"), "the hash was in an argument list:\n{}", stage.read("log"));
    assert_changed(&user(&mut stage, "daemon2", [("system", true.into())]));
    assert!(fs::metadata(stage.path("home/daemon2")).is_err());
    assert!(line(&stage, "etc/shadow", "daemon2").starts_with("daemon2:!"));
    assert_changed(&user(&mut stage, "web", [("createHome", false.into())]));
    assert!(line(&stage, "etc/passwd", "web").contains(":50:"), "the group of its name that was there is its own");
}

#[test]
fn only_what_differs_of_a_user_is_changed() {
    let mut stage = stage();
    for (parameter, value, word, file, expected) in [
        ("shell", Value::text("/bin/bash"), "shell /bin/sh → /bin/bash", "etc/passwd", ":/home/ann:/bin/bash"),
        ("comment", "Ann".into(), "comment  → Ann", "etc/passwd", ":1000:Ann:"),
        ("groups", list(&["ops"]), "groups +ops", "etc/passwd", "ann"),
        ("group", "web".into(), "gid 1000 → 50", "etc/passwd", "ann:x:1000:50:"),
        ("expires", "never".into(), "expires 2024-10-04 → never", "etc/shadow", "7:::"),
        ("locked", true.into(), "locked", "etc/shadow", "ann:!$y$j9T$old$hash:"),
        ("password", "$y$j9T$new$hash".into(), "password", "etc/shadow", "ann:!$y$j9T$new$hash:"),
        ("locked", false.into(), "unlocked", "etc/shadow", "ann:$y$j9T$new$hash:"),
        ("uid", 1001.into(), "uid 1000 → 1001", "etc/passwd", "ann:x:1001:"),
    ] {
        stage.diff = true;
        let done = user(&mut stage, "ann", [(parameter, value.clone())]);
        assert_changed(&done);
        assert_eq!(done.message, word);
        assert!(!done.diff.unwrap().text.contains('$'), "{parameter}");
        let found = line(&stage, file, "ann");
        assert!(found.contains(expected), "{parameter}: {found}");
        assert_ok(&user(&mut stage, "ann", [(parameter, value)]));
    }
    assert_eq!(line(&stage, "etc/group", "ops"), "ops:x:51:ann");
    let exact = [("groups", list(&[])), ("exactGroups", true.into())];
    assert_eq!(user(&mut stage, "ann", exact).message, "groups -ops, -web".replace(", ", " "));
    assert_eq!(line(&stage, "etc/group", "ops"), "ops:x:51:");
    assert_eq!(stage.read("log").lines().filter(|line| line.contains("chpasswd")).count(), 3);
}

#[test]
fn what_cannot_be_is_refused_before_a_program_runs() {
    let mut stage = stage();
    let before = (stage.read("etc/passwd"), stage.read("etc/shadow"), stage.read("etc/group"));
    assert_failed(&user(&mut stage, "bob", [("uid", 1000.into())]), "IdTaken");
    assert_failed(&user(&mut stage, "bob", [("groups", list(&["none"]))]), "NoSuchGroup");
    assert_failed(&user(&mut stage, "bob", [("group", "4711".into())]), "NoSuchGroup");
    for name in ["", "-R", "Bob", "4711", "a:b", "../x", "a b"] {
        assert_failed(&user(&mut stage, name, []), "InvalidParameters");
    }
    let done = user(&mut stage, "ann", [("password", "hunter2".into())]);
    assert_failed(&done, "InvalidParameters");
    assert!(!done.message.contains("hunter2"), "{}", done.message);
    assert_failed(&user(&mut stage, "ann", [("comment", "a:b".into())]), "InvalidParameters");
    assert_failed(&user(&mut stage, "ann", [("expires", "2027-02-29".into())]), "InvalidParameters");
    assert_failed(&user(&mut stage, "root", [("locked", false.into()), ("uid", 1000.into())]), "IdTaken");
    assert_failed(&stage.perform("user.absent", [("name", "root".into())]), "Vital");
    assert_failed(&stage.perform("group.absent", [("name", "ann".into())]), "GroupInUse");
    assert_failed(&stage.perform("group.present", [("name", "ops".into()), ("gid", 50.into())]), "IdTaken");
    assert_failed(&stage.perform("group.present", [("name", "new".into()), ("gid", 50.into())]), "IdTaken");
    assert_eq!(before, (stage.read("etc/passwd"), stage.read("etc/shadow"), stage.read("etc/group")));
    assert!(fs::metadata(stage.path("log")).is_err(), "a program ran");
    stage.check = true;
    assert_eq!(user(&mut stage, "bob", [("groups", list(&["none"]))]).outcome, Outcome::Unpredicted);
    let given = [("path", "/etc/x".into()), ("owner", "bob".into())];
    assert_eq!(stage.perform("file.managed", given).outcome, Outcome::Unpredicted);
}

#[test]
fn an_account_without_a_password_is_not_unlocked() {
    let mut stage = stage();
    assert_changed(&user(&mut stage, "bob", []));
    assert_failed(&user(&mut stage, "bob", [("locked", false.into())]), "NoPassword");
    assert_changed(&user(&mut stage, "bob", [("password", "$6$salt$hash".into())]));
    assert!(line(&stage, "etc/shadow", "bob").starts_with("bob:$6$salt$hash:"), "a first password is no locked one");
}

#[test]
fn a_home_goes_with_its_user_only_if_it_is_its_own() {
    let mut stage = stage();
    let absent =
        |stage: &mut Stage| stage.perform("user.absent", [("name", "ann".into()), ("removeHome", true.into())]);
    assert_failed(&absent(&mut stage), "HomeNotOwned");
    assert!(line(&stage, "etc/passwd", "ann").starts_with("ann:"));
    std::os::unix::fs::chown(stage.path("home/ann"), Some(1000), None).unwrap();
    assert_changed(&absent(&mut stage));
    assert!(line(&stage, "etc/passwd", "ann").is_empty() && fs::metadata(stage.path("home/ann")).is_err());
    assert_ok(&absent(&mut stage));
}

#[test]
fn a_program_that_fails_is_quoted() {
    let mut stage = stage();
    fs::write(stage.path("bin/groupadd"), "#!/bin/sh\necho no room >&2\nexit 10\n").unwrap();
    let done = stage.perform("group.present", [("name", "app".into())]);
    assert_failed(&done, "ProgramFailed");
    assert!(done.message.contains("groupadd ended with exit 10: no room"), "{}", done.message);
}

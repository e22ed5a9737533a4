//! What every action promises that converges: a check tells exactly what the run then does, and changes nothing; the
//! run changes; the next run is `Ok` and writes nothing. An action without a row fails.

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_apis::{params, v1alpha::Value};
use lockstep_modules::Outcome;

use crate::stage::{Stage, assert_ok, list, trace};

/// A state to bring a root folder to.
struct Row {
    action: &'static str,
    /// Files that are there before, by path.
    files: &'static [(&'static str, &'static str)],
    parameters: Value,
}

/// Actions whose convergence needs more than a root folder, and the test that has them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("archive.unpacked", "archives::an_archive_is_unpacked_once_and_what_was_changed_is_put_right"),
    ("artifact.installed", "artifacts::a_version_is_fetched_once_and_switched_to"),
    ("git.checkout", "git::a_checkout_converges_and_follows_its_branch"),
    ("mount.unmounted", "kernel::a_mount_is_made_followed_and_undone"),
    ("package.absent", PACKAGES),
    ("package.held", PACKAGES),
    ("package.installed", PACKAGES),
    ("package.latest", PACKAGES),
    ("package.repository", PACKAGES),
    ("package.upgraded", PACKAGES),
    ("service.disabled", SERVICES),
    ("service.running", SERVICES),
    ("service.stopped", SERVICES),
];

/// Where PackageKit is.
const PACKAGES: &str = "tests/tests/packages.rs";

/// Where systemd is.
const SERVICES: &str = "tests/tests/services.rs";

fn row<const N: usize>(
    action: &'static str,
    files: &'static [(&'static str, &'static str)],
    parameters: [(&str, Value); N],
) -> Row {
    Row { action, files, parameters: Value::map(parameters) }
}

const UNIT: &[(&str, &str)] =
    &[("/etc/systemd/system/web.service", "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n")];

const FSTAB: &[(&str, &str)] = &[("/etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n/dev/sdb1 /data ext4 ro 0 2\n")];

/// A machine with a user, and the groups `web`, `ops`.
const ACCOUNTS: &[(&str, &str)] = crate::accounts::FILES;

const ED25519: &str = "no-pty ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB ann";
const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAAgAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

/// Keys of the user `ann`.
const KEYS: &[(&str, &str)] = &[(
    "/home/ann/.ssh/authorized_keys",
    "# of old\nssh-rsa AAAAB3NzaC1yc2EAAAAgAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI= old\n",
)];

fn rows() -> Vec<Row> {
    let path = || ("path", Value::text("/etc/app.conf"));
    const APP: &[(&str, &str)] = &[("/etc/app.conf", "a=1\nb=2\n")];
    vec![
        row("file.absent", APP, [path()]),
        row("file.absent", &[("/etc/app/a/b", "x")], [("path", "/etc/app".into()), ("recursive", true.into())]),
        row("file.block", APP, [path(), ("name", "web".into()), ("content", "c=3".into())]),
        row(
            "file.block",
            &[("/etc/app.conf", "# BEGIN web (lockstep)\nx\n# END web (lockstep)\n")],
            [path(), ("name", "web".into()), ("absent", true.into())],
        ),
        row("file.content", APP, [path(), ("content", "other\n".into()), ("backup", true.into())]),
        row("file.directory", &[], [("path", "/srv".into()), ("mode", "0750".into()), ("owner", 7.into())]),
        row("file.directory", &[("/srv/x", "")], [("path", "/srv".into()), ("mode", "0750".into())]),
        row("file.line", APP, [path(), ("line", "a=2".into()), ("regexp", "^a=".into())]),
        row("file.line", APP, [path(), ("regexp", "^a=".into()), ("absent", true.into())]),
        row("file.managed", &[], [path(), ("content", "new".into()), ("parents", true.into())]),
        row("file.managed", APP, [path(), ("content", "new".into()), ("mode", "0600".into())]),
        row("file.managed", APP, [path(), ("validate", list(&["true"])), ("group", 12.into())]),
        row("file.replaced", APP, [path(), ("regexp", r"^(\w)=\d$".into()), ("replacement", "${1}=0".into())]),
        row("group.absent", ACCOUNTS, [("name", "web".into())]),
        row("group.present", ACCOUNTS, [("name", "app".into()), ("gid", 700.into())]),
        row("group.present", ACCOUNTS, [("name", "web".into()), ("gid", 701.into())]),
        row("hostname.set", &[("/etc/hostname", "old\n")], [("name", "web1.example".into())]),
        row("mount.absent", FSTAB, [("path", "/data".into())]),
        row("mount.mounted", FSTAB, [("path", "/data".into()), ("source", "x".into()), ("type", "tmpfs".into())]),
        row("mount.present", FSTAB, [("path", "/new".into()), ("source", "x".into()), ("type", "tmpfs".into())]),
        row("service.enabled", UNIT, [("name", "web".into())]),
        row(
            "service.masked",
            &[("/usr/lib/systemd/system/web.service", "[Service]\n"), ("/etc/systemd/system/x", "")],
            [("name", "web".into())],
        ),
        row("sysctl.set", &[("/etc/sysctl.d/a", "")], [("name", "vm.swappiness".into()), ("value", 10.into())]),
        row(
            "sysctl.set",
            &[("/etc/sysctl.conf", "vm.swappiness=60\n")],
            [("name", "vm.swappiness".into()), ("value", "10".into()), ("file", "/etc/sysctl.conf".into())],
        ),
        row(
            "cron.entry",
            &[("/etc/cron.d/x", "")],
            [("name", "backup".into()), ("schedule", "0 3 * * *".into()), ("command", "true".into())],
        ),
        row("cron.entry", &[("/etc/cron.d/x", "")], [("name", "x".into()), ("absent", true.into())]),
        row("user.authorizedKeys", ACCOUNTS, [("name", "ann".into()), ("keys", ED25519.into())]),
        row(
            "user.authorizedKeys",
            [ACCOUNTS, KEYS].concat().leak(),
            [("name", "ann".into()), ("keys", ED25519.into()), ("exact", true.into())],
        ),
        row(
            "user.authorizedKeys",
            [ACCOUNTS, KEYS].concat().leak(),
            [("name", "ann".into()), ("keys", RSA.into()), ("absent", true.into())],
        ),
        row("user.absent", ACCOUNTS, [("name", "ann".into())]),
        row(
            "user.present",
            ACCOUNTS,
            [
                ("name", "bob".into()),
                ("groups", list(&["web", "ops"])),
                ("password", "$y$j9T$salt$hash".into()),
                ("expires", "2030-01-31".into()),
            ],
        ),
        row(
            "user.present",
            ACCOUNTS,
            [
                ("name", "ann".into()),
                ("uid", 1234.into()),
                ("groups", list(&["ops"])),
                ("exactGroups", true.into()),
                ("comment", "Ann".into()),
                ("shell", "/bin/bash".into()),
                ("locked", true.into()),
                ("expires", "never".into()),
            ],
        ),
        row("file.symlink", &[], [("path", "/etc/link".into()), ("target", "x".into()), ("parents", true.into())]),
    ]
}

#[test]
fn every_action_that_converges_has_a_row() {
    let rows = rows();
    for action in params::actions().iter().filter(|action| action.converges && !action.reads_only) {
        let name = action.name;
        let found = rows.iter().any(|row| row.action == name) || ELSEWHERE.iter().any(|(known, _)| *known == name);
        assert!(found, "{name} converges, and no row here shows that it does");
    }
}

#[test]
fn a_check_tells_the_run_and_the_next_run_writes_nothing() {
    for row in rows() {
        let mut stage = Stage::rooted();
        stage.diff = true;
        for (path, content) in row.files {
            let path = stage.path(&path[1..]);
            fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let before = tree(stage.dir.path());
        stage.check = true;
        let told = stage.perform_with(row.action, &row.parameters);
        assert_eq!(told.outcome, Outcome::Changed, "the check of {}: {}", row.action, told.message);
        assert_eq!(before, tree(stage.dir.path()), "the check of {} changed something", row.action);
        stage.check = false;
        let done = stage.perform_with(row.action, &row.parameters);
        assert_eq!(done.outcome, Outcome::Changed, "{}: {}", row.action, done.message);
        assert_eq!(
            (&told.message, &told.diff, &told.result),
            (&done.message, &done.diff, &done.result),
            "{}",
            row.action
        );
        let after = tree(stage.dir.path());
        for check in [false, true] {
            stage.check = check;
            let again = stage.perform_with(row.action, &row.parameters);
            assert_ok(&again);
            assert_eq!(again.diff, None, "{}", row.action);
            assert_eq!(after, tree(stage.dir.path()), "the second run of {} wrote something", row.action);
        }
    }
}

/// All that a write would change of anything in the folder.
fn tree(root: &Path) -> Vec<(PathBuf, [i64; 7])> {
    let mut found = vec![(root.to_owned(), trace(root))];
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            found.push((entry.path(), trace(entry.path())));
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    found
}

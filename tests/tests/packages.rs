//! `package.*` on real hosts: dpkg, apt, PackageKit, and packages that are made for the test.

use anyhow::{Result, ensure};
use lockstep_tests::{
    hosts::{index_packages, make_package},
    local::LocalHost,
};

/// A host whose only packages are those of a folder.
struct Rig {
    host: LocalHost,
    folder: tempfile::TempDir,
}

/// Name, version, what it needs, what its installation runs.
type Made<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Rig {
    fn up(name: &str, subnet: &str, packages: &[Made<'_>]) -> Result<Rig> {
        let folder = tempfile::tempdir()?;
        for (name, version, depends, script) in packages {
            make_package(folder.path(), name, version, depends, script)?;
        }
        index_packages(folder.path())?;
        Ok(Rig { host: LocalHost::up(name, subnet, Some(folder.path()))?, folder })
    }

    fn publish(&self, name: &str, version: &str) -> Result<()> {
        make_package(self.folder.path(), name, version, "", "")?;
        index_packages(self.folder.path())
    }

    fn has(&self, name: &str, wanted: &str) -> Result<()> {
        let done = self.host.try_exec(&["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", name])?;
        let found = String::from_utf8_lossy(&done.stdout);
        ensure!(found == wanted, "{name} is {found:?}, not {wanted:?}");
        Ok(())
    }
}

#[test]
fn packages_come_to_the_state_that_a_book_says() -> Result<()> {
    let packages = [("demo", "1.0", "", ""), ("tool", "1.0", "", ""), ("user", "1.0", "demo", "")];
    let rig = Rig::up("packages", "10.84.0", &packages)?;
    packages_are_installed_in_one_transaction(&rig)?;
    what_is_converged_asks_nobody(&rig)?;
    all_unknown_names_are_told(&rig)?;
    versions_are_pinned_upgraded_and_held(&rig)?;
    others_go_only_if_it_is_said(&rig)?;
    a_repository_is_added_and_taken_away(&rig)?;
    apt_does_the_same(&rig)
}

fn packages_are_installed_in_one_transaction(rig: &Rig) -> Result<()> {
    let both = "package.installed: {names: [demo, tool=1.0], backend: PackageKit}";
    rig.host.exec(&["apt-get", "-q", "update"])?;
    rig.host.would_change(both, "install demo 1.0")?;
    rig.has("demo", "")?;
    let ran = rig.host.changes(both)?;
    ensure!(ran.text.contains("install tool 1.0"), "{ran:?}");
    rig.has("demo", "installed 1.0")?;
    rig.has("tool", "installed 1.0")?;
    let transactions = rig.host.exec(&["grep", "-c", "^Start-Date", "/var/log/apt/history.log"])?;
    ensure!(transactions.trim() == "1", "{transactions} transactions for one task");
    Ok(())
}

fn what_is_converged_asks_nobody(rig: &Rig) -> Result<()> {
    let database = || rig.host.exec(&["stat", "-c", "%i %y %z", "/var/lib/dpkg/status", "/var/lib/apt/lists"]);
    let before = database()?;
    // Nobody could answer.
    rig.host.exec(&["systemctl", "stop", "dbus.socket", "dbus.service", "packagekit"])?;
    rig.host.is_ok("package.installed: [demo, tool=1.0]")?;
    rig.host.is_ok("package.absent: {names: nothing}")?;
    rig.host.exec(&["systemctl", "start", "dbus.socket"])?;
    ensure!(before == database()?, "a converged task wrote");
    Ok(())
}

fn all_unknown_names_are_told(rig: &Rig) -> Result<()> {
    for backend in ["PackageKit", "Apt"] {
        let task = format!("package.installed: {{names: [demo, nope, tool=9, nada], backend: {backend}}}");
        rig.host.fails(&task, &["UnknownPackage", "nope", "tool=9", "nada"])?;
    }
    let checked = rig.host.run("package.installed: nope", &["--check"])?;
    let told = checked.text.contains("1 not predictable") && checked.text.contains("reads the package lists anew");
    ensure!(checked.code == Some(0) && told, "the run may find it in newer lists: {checked:?}");
    rig.host.fails("package.installed: {names: [demo, demo=1.0]}", &["InvalidParameters", "twice"])?;
    Ok(())
}

fn versions_are_pinned_upgraded_and_held(rig: &Rig) -> Result<()> {
    rig.publish("demo", "1.1")?;
    rig.publish("tool", "1.1")?;
    rig.host.is_ok("package.installed: demo")?;
    rig.host.changes("package.latest: {names: demo, refreshAfter: 0s}")?;
    rig.has("demo", "installed 1.1")?;
    rig.has("tool", "installed 1.0")?;
    rig.host.is_ok("package.latest: {names: [demo]}")?;
    rig.host.changes("package.installed: demo=1.0")?;
    rig.has("demo", "installed 1.0")?;
    rig.host.would_change("package.held: demo", "hold demo")?;
    rig.host.changes("package.held: demo")?;
    rig.host.is_ok("package.held: demo")?;
    rig.host.fails("package.installed: demo=1.1", &["PackageHeld", "held: false"])?;
    rig.host.would_change("package.upgraded:", "tool 1.1")?;
    rig.host.changes("package.upgraded: {refreshAfter: 1h}")?;
    rig.has("tool", "installed 1.1")?;
    rig.has("demo", "installed 1.0")?;
    rig.host.is_ok("package.upgraded:")?;
    rig.host.changes("package.held: {names: demo, held: false}")?;
    rig.host.changes("package.upgraded: {backend: Apt}")?;
    rig.has("demo", "installed 1.1")?;
    rig.host.is_ok("package.upgraded: {backend: Apt}")
}

fn others_go_only_if_it_is_said(rig: &Rig) -> Result<()> {
    rig.host.changes("package.installed: user")?;
    for backend in ["PackageKit", "Apt"] {
        let task = format!("package.absent: {{names: demo, backend: {backend}}}");
        rig.host.fails(&task, &["user"])?;
        rig.has("demo", "installed 1.1")?;
    }
    rig.host.would_change("package.absent: {names: demo, dependents: true}", "remove user")?;
    rig.host.changes("package.absent: {names: demo, dependents: true}")?;
    rig.has("user", "config-files 1.0")?;
    rig.host.is_ok("package.absent: [demo, user]")
}

fn a_repository_is_added_and_taken_away(rig: &Rig) -> Result<()> {
    rig.host.exec(&["sh", "-c", "mv /etc/apt/sources.list /root/ && apt-get -q update"])?;
    rig.host.fails("package.installed: demo", &["UnknownPackage"])?;
    let task = "package.repository: {name: lab, uris: \"file:/srv/lab-repo\", suites: ./, unsigned: true}";
    rig.host.would_change(task, "created")?;
    rig.host.changes(task)?;
    rig.host.is_ok(task)?;
    // The lists are read again by themselves: their sources are newer.
    rig.host.changes("package.installed: demo")?;
    rig.host.changes("package.repository: {name: lab, absent: true}")?;
    rig.host.is_ok("package.repository: {name: lab, absent: true}")?;
    rig.host.exec(&["mv", "/root/sources.list", "/etc/apt/sources.list"])?;
    Ok(())
}

fn apt_does_the_same(rig: &Rig) -> Result<()> {
    let service = "/usr/share/dbus-1/system-services/org.freedesktop.PackageKit.service";
    rig.host.exec(&["mv", service, "/root/"])?;
    rig.host.exec(&["systemctl", "stop", "packagekit"])?;
    rig.host.exec(&["systemctl", "reload", "dbus"])?;
    rig.host.changes("package.absent: {names: tool}")?;
    rig.host.would_change("package.installed: {names: [tool=1.0, user]}", "install tool 1.0")?;
    rig.host.changes("package.installed: {names: [tool=1.0, user]}")?;
    rig.host.is_ok("package.installed: {names: [tool=1.0, user], backend: Apt}")?;
    rig.host.fails("package.installed: {names: tool=1.1, backend: PackageKit}", &["ServiceAbsent", "PackageKit"])?;
    rig.host.exec(&["systemctl", "stop", "dbus.socket", "dbus.service"])?;
    rig.host.changes("package.latest: tool")?;
    rig.host.exec(&["systemctl", "start", "dbus.socket"])?;
    rig.has("tool", "installed 1.1")
}

#[test]
fn no_trouble_of_a_package_or_a_daemon_is_for_ever() -> Result<()> {
    let packages = [
        ("demo", "1.0", "", ""),
        ("broken", "1.0", "", "echo this never works; exit 1"),
        ("slow", "1.0", "", "touch /run/slow; until [ -e /run/killed ]; do sleep 0.05; done"),
        ("blocker", "1.0", "", "touch /run/blocked; until [ -e /run/go ]; do sleep 0.05; done"),
    ];
    let rig = Rig::up("trouble", "10.85.0", &packages)?;
    rig.host.exec(&["apt-get", "-q", "update"])?;
    a_script_that_fails_is_named_and_a_mended_package_converges(&rig)?;
    a_killed_packagekit_is_survived(&rig)?;
    a_lock_is_waited_for_and_its_holder_named(&rig)?;
    without_polkit_it_is_said_and_not_retried(&rig)
}

fn a_script_that_fails_is_named_and_a_mended_package_converges(rig: &Rig) -> Result<()> {
    rig.host.fails("package.installed: broken", &["PackagesBroken", "broken is half-configured"])?;
    rig.has("broken", "half-configured 1.0")?;
    rig.host.fails("package.installed: {names: demo, backend: PackageKit}", &["PackagesBroken", "broken"])?;
    // What is half configured does not pass for installed.
    rig.host.fails("package.installed: broken", &["PackagesBroken", "broken is half-configured"])?;
    rig.publish("broken", "1.1")?;
    rig.host.changes("package.installed: {names: broken, refreshAfter: 0s}")?;
    rig.has("broken", "installed 1.1")?;
    rig.host.is_ok("package.installed: broken")
}

fn a_killed_packagekit_is_survived(rig: &Rig) -> Result<()> {
    rig.host.prepare("slow", "package.installed: {names: slow, backend: Auto}")?;
    let script = "/opt/lockstep/lockstep run --local -f /shared/slow.yaml >/shared/slow.out 2>&1 & \
         until [ -e /run/slow ]; do sleep 0.02; done; kill -9 $(pidof packagekitd); touch /run/killed; wait $!";
    let done = rig.host.try_exec(&["timeout", "60", "sh", "-c", script])?;
    let text = rig.host.exec(&["cat", "/shared/slow.out"])?;
    ensure!(done.status.success() && text.contains("1 changed"), "{text}");
    rig.has("slow", "installed 1.0")?;
    rig.host.is_ok("package.installed: slow")?;
    rig.host.changes("package.installed: demo")?;
    Ok(())
}

fn a_lock_is_waited_for_and_its_holder_named(rig: &Rig) -> Result<()> {
    let script = "dpkg -i /srv/lab-repo/blocker_1.0_all.deb >/run/dpkg.out 2>&1 & \
         until [ -e /run/blocked ]; do sleep 0.02; done";
    rig.host.exec(&["systemd-run", "-q", "--unit", "other", "sh", "-c", &format!("{script}; wait")])?;
    rig.host.wait_until("[ -e /run/blocked ]")?;
    for backend in ["PackageKit", "Apt"] {
        let task = format!("package.absent: {{names: demo, backend: {backend}, lockTimeout: 300ms}}");
        rig.host.fails(&task, &["dpkg (process "])?;
    }
    rig.host.exec(&["systemctl", "stop", "packagekit"])?;
    rig.host.prepare("wait", "package.absent: demo")?;
    let script = "/opt/lockstep/lockstep run --local -f /shared/wait.yaml >/shared/wait.out 2>&1 & \
         touch /run/go; wait $!";
    let done = rig.host.try_exec(&["timeout", "60", "sh", "-c", script])?;
    ensure!(done.status.success(), "{}", rig.host.exec(&["cat", "/shared/wait.out"])?);
    rig.has("demo", "config-files 1.0")?;
    rig.has("blocker", "installed 1.0")
}

fn without_polkit_it_is_said_and_not_retried(rig: &Rig) -> Result<()> {
    rig.host.exec(&["systemctl", "mask", "--runtime", "--now", "polkit"])?;
    rig.host.exec(&["systemctl", "stop", "packagekit"])?;
    rig.host.fails("package.installed: {names: demo, backend: PackageKit}", &["BackendNotStarted", "polkit"])?;
    rig.host.changes("package.installed: {names: demo, backend: Apt}")?;
    Ok(())
}

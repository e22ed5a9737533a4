//! Examples of one machine, by `run --local`.

use anyhow::{Context, Result, ensure};
use lockstep_tests::{
    hosts::{fetch_packages, index_packages},
    local::LocalHost,
    rig::said,
    told::{TRACE, Told, nothing_was_written},
};

/// Folder, book, and how `run --local` is to do it.
pub(crate) const EXAMPLES: [(&str, &str, &[&str]); 8] = [
    ("02-first-file", "book.yaml", &["--root", "/srv/first"]),
    ("05-base-system", "book.yaml", &[]),
    ("03-edits", "book.yaml", &["--root", "/srv/server"]),
    ("06-sshd-hardening", "book.yaml", &["-i", "users=[root]"]),
    ("09-people", "book.yaml", &[]),
    ("11-backup", "backup.yaml", &[]),
    ("12-log-rotation", "book.yaml", &[]),
    ("11-backup", "drill.yaml", &[]),
];

#[test]
fn examples_of_one_machine_do_what_their_check_says_and_then_nothing() -> Result<()> {
    let packages = tempfile::tempdir()?;
    fetch_packages(packages.path(), &["sudo", "cron", "logrotate", "postgresql"])?;
    index_packages(packages.path())?;
    let host = LocalHost::up("examples", "10.85.0", Some(packages.path()))?;
    host.exec(&["mkdir", "-p", "/srv/first", "/srv/server"])?;
    host.exec(&["useradd", "--create-home", "mallory"])?;
    for (name, file, flags) in EXAMPLES {
        converges(&host, name, file, flags).with_context(|| format!("{name}/{file}"))?;
    }
    people_are_who_the_list_says(&host)?;
    a_drill_finds_what_is_missing(&host)
}

fn run(host: &LocalHost, flags: &[&str]) -> Result<Told> {
    let program = ["/opt/lockstep/lockstep", "run", "--local", "-f", "/shared/book.yaml"];
    let done = host.try_exec(&[&program, flags].concat())?;
    ensure!(done.status.success(), "{flags:?}: {}\n{}", done.status, said(&done));
    println!("{flags:?}\n{}", said(&done));
    Told::read(&said(&done))
}

fn converges(host: &LocalHost, name: &str, file: &str, flags: &[&str]) -> Result<()> {
    host.write("book.yaml", &super::text(name, file)?)?;
    let before = host.exec(&["sh", "-c", TRACE])?;
    let checked = run(host, &[flags, &["--check"]].concat())?;
    nothing_was_written(&before, &host.exec(&["sh", "-c", TRACE])?).context("the check")?;
    let first = run(host, flags)?;
    checked.holds_against(&first)?;
    ensure!(first.changes() || file == "drill.yaml", "nothing changed");
    let before = host.exec(&["sh", "-c", TRACE])?;
    run(host, flags)?.changes_nothing().context("the second run")?;
    if file != "drill.yaml" {
        nothing_was_written(&before, &host.exec(&["sh", "-c", TRACE])?).context("the second run")?;
    }
    Ok(())
}

fn people_are_who_the_list_says(host: &LocalHost) -> Result<()> {
    let may = |who: &str| host.exec(&["sudo", "--list", "--other-user", who]);
    ensure!(may("alice")?.contains("NOPASSWD: ALL"), "alice is an admin");
    ensure!(may("bob")?.contains("not allowed"), "bob is none");
    ensure!(host.exec(&["id", "mallory"]).is_err(), "mallory is gone");
    let keys = host.exec(&["cat", "/home/bob/.ssh/authorized_keys"])?;
    ensure!(keys.lines().count() == 2 && keys.contains("bob@home"), "{keys}");
    Ok(())
}

fn a_drill_finds_what_is_missing(host: &LocalHost) -> Result<()> {
    let sql = |sql: &str| host.exec(&["runuser", "-u", "postgres", "--", "psql", "-tAc", sql]);
    sql("CREATE TABLE later (id int)")?;
    let drill = ["/opt/lockstep/lockstep", "run", "--local", "-f", "/shared/book.yaml"];
    let failed = host.try_exec(&drill)?;
    ensure!(said(&failed).contains("the dump holds fewer tables than the database"), "{}", said(&failed));
    ensure!(
        sql("SELECT count(*) FROM pg_database WHERE datname = 'drill'")?.trim() == "0",
        "the drill left its database"
    );
    host.exec(&["runuser", "-u", "postgres", "--", "/usr/local/sbin/backup", "postgres"])?;
    run(host, &[]).map(drop)
}

//! `service.*` on a real host with a real systemd. Each step is done twice: what is as it should be is left alone.

use anyhow::{Result, ensure};
use lockstep_tests::local::LocalHost;

const WEB: &str = "[Unit]\nDescription=web\n[Service]\nExecStart=/bin/sh -c 'echo ready; exec sleep infinity'\nExecReload=/bin/sh -c 'date +%%N >/run/web-reloaded'\n[Install]\nWantedBy=multi-user.target\n";
const BROKEN: &str =
    "[Service]\nExecStart=/bin/sh -c 'echo the port is taken; exit 3'\nType=oneshot\nRemainAfterExit=true\n";
const SLOW: &str = "[Service]\nExecStartPre=/bin/sleep 600\nExecStart=/bin/sleep infinity\n";

#[test]
fn services_come_to_the_state_that_a_book_says() -> Result<()> {
    let host = LocalHost::up("services", "10.83.0", None)?;
    for (name, unit) in [("web", WEB), ("broken", BROKEN), ("slow", SLOW)] {
        host.write("unit", unit)?;
        host.exec(&["cp", "/shared/unit", &format!("/etc/systemd/system/{name}.service")])?;
    }
    a_service_is_started_and_enabled(&host)?;
    handlers_restart_and_reload(&host)?;
    what_cannot_be_is_named(&host)?;
    a_mask_is_made_and_lifted(&host)?;
    a_task_ends_in_time(&host)?;
    units_of_a_root_folder_are_enabled_there(&host)?;
    without_systemd_or_bus_it_is_said(&host)
}

fn a_service_is_started_and_enabled(host: &LocalHost) -> Result<()> {
    let running = "service.running: {name: web, enabled: true}";
    host.would_change(running, "enabled, started")?;
    ensure!(host.exec(&["systemctl", "is-active", "web"]).is_err(), "a check started it");
    let ran = host.changes(running)?;
    ensure!(ran.text.contains("web.service: enabled") && ran.text.contains("web.service: started"), "{ran:?}");
    ensure!(host.exec(&["systemctl", "is-enabled", "web"])?.trim() == "enabled");
    let started = main_pid(host)?;
    let links = host.exec(&["stat", "-c", "%i %Z", "/etc/systemd/system/multi-user.target.wants/web.service"])?;
    let jobs = jobs(host)?;
    host.is_ok(running)?;
    ensure!(main_pid(host)? == started && jobs == self::jobs(host)?, "what ran was touched");
    ensure!(links == host.exec(&["stat", "-c", "%i %Z", "/etc/systemd/system/multi-user.target.wants/web.service"])?);
    host.changes("service.running: {name: web, enabled: false}")?;
    host.is_ok("service.disabled: web")?;
    host.changes("service.stopped: web.service")?;
    host.is_ok("service.stopped: {name: web, enabled: false}")?;
    host.changes("service.enabled: {name: web}")?;
    host.is_ok("service.enabled: web")?;
    host.changes("service.running: web")?;
    Ok(())
}

fn main_pid(host: &LocalHost) -> Result<String> {
    host.exec(&["systemctl", "show", "-P", "MainPID", "web"])
}

/// The number that systemd gives its next job: it grows with each.
fn jobs(host: &LocalHost) -> Result<String> {
    host.exec(&["sh", "-c", "journalctl -q -o json --no-pager JOB_TYPE=start UNIT=web.service | wc -l"])
}

fn handlers_restart_and_reload(host: &LocalHost) -> Result<()> {
    let before = main_pid(host)?;
    host.would_change("service.restarted: web", "restarted")?;
    ensure!(main_pid(host)? == before, "a check restarted it");
    host.changes("service.restarted: web")?;
    ensure!(main_pid(host)? != before, "it was not restarted");
    host.changes("service.reloaded: web")?;
    host.exec(&["test", "-s", "/run/web-reloaded"])?;
    // A unit file that was changed counts from the next restart on, without anybody asking systemd to read it.
    host.exec(&["sed", "-i", "s/sleep infinity/sleep 99999/", "/etc/systemd/system/web.service"])?;
    host.changes("service.restarted: web")?;
    let command = format!("/proc/{}/cmdline", main_pid(host)?.trim());
    host.wait_until(&format!("grep -q 99999 {command}"))?;
    host.fails("service.reloaded: {name: dbus.socket}", &["CannotReload", "orRestart"])?;
    Ok(())
}

fn what_cannot_be_is_named(host: &LocalHost) -> Result<()> {
    host.fails("service.running: wbe", &["NoSuchUnit", "did you mean web.service"])?;
    let failed = host.fails("service.running: broken", &["UnitFailed", "exit-code, status 3"])?;
    ensure!(failed.text.contains("the port is taken"), "{failed:?}");
    host.fails("service.enabled: broken", &["NotInstallable"])?;
    let ran = host.run("service.running: wbe", &["--check"])?;
    ensure!(ran.code == Some(0) && ran.text.contains("not predictable"), "{ran:?}");
    for name in ["--now", "a/b", "a b", ""] {
        let ran = host.run(&format!("service.running: {{name: {name:?}}}"), &[])?;
        ensure!(ran.code != Some(0) && ran.text.contains("InvalidUnit"), "{name}: {ran:?}");
    }
    Ok(())
}

fn a_mask_is_made_and_lifted(host: &LocalHost) -> Result<()> {
    host.exec(&["systemctl", "stop", "web"])?;
    // A unit of /etc cannot be masked: its own file is where the link would be.
    host.exec(&["mv", "/etc/systemd/system/web.service", "/usr/lib/systemd/system/"])?;
    host.exec(&["systemctl", "daemon-reload"])?;
    host.changes("service.masked: web")?;
    host.is_ok("service.masked: web")?;
    host.fails("service.running: web", &["UnitMasked", "unmask: true"])?;
    host.changes("service.running: {name: web, enabled: true, unmask: true}")?;
    host.is_ok("service.running: {name: web, enabled: true, unmask: true}")
}

fn a_task_ends_in_time(host: &LocalHost) -> Result<()> {
    host.fails("{service.running: slow, timeout: 500ms}", &["TimedOut"])?;
    host.wait_until("! systemctl list-jobs | grep -q slow")?;
    host.exec(&["systemctl", "stop", "slow"])?;
    host.prepare("slow", "service.running: slow")?;
    let cancelled = "/opt/lockstep/lockstep run --local -f /shared/slow.yaml >/shared/slow.out 2>&1 & \
         until systemctl is-active slow | grep -q activating; do sleep 0.05; done; kill -INT $!; wait $!";
    ensure!(!host.try_exec(&["timeout", "20", "sh", "-c", cancelled])?.status.success());
    let text = host.exec(&["cat", "/shared/slow.out"])?;
    ensure!(text.contains("1 cancelled"), "{text}");
    host.exec(&["systemctl", "stop", "slow"])?;
    Ok(())
}

fn units_of_a_root_folder_are_enabled_there(host: &LocalHost) -> Result<()> {
    host.exec(&[
        "sh",
        "-c",
        "mkdir -p /image/etc/systemd/system && cp /usr/lib/systemd/system/web.service /image/etc/systemd/system/",
    ])?;
    let root = ["--root", "/image"];
    for (task, words) in [
        ("service.enabled: web", "1 changed"),
        ("service.enabled: web", "1 ok"),
        ("service.disabled: web", "1 changed"),
        ("service.running: web", "NotInRootFolder"),
        ("service.enabled: nothing", "NoSuchUnit"),
    ] {
        let ran = host.run(task, &root)?;
        ensure!(ran.text.contains(words), "{task}: {ran:?}");
    }
    Ok(())
}

fn without_systemd_or_bus_it_is_said(host: &LocalHost) -> Result<()> {
    host.exec(&["systemctl", "stop", "dbus.socket", "dbus.service"])?;
    host.fails("service.running: web", &["NoMessageBus"])?;
    host.exec(&["systemctl", "start", "dbus.socket"])?;
    host.is_ok("service.running: web")?;
    host.exec(&["mount", "-t", "tmpfs", "none", "/run/systemd"])?;
    host.fails("service.running: web", &["NoSystemd"])?;
    host.exec(&["umount", "/run/systemd"])?;
    Ok(())
}

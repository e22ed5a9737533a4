//! `sysctl.set`, `hostname.set` and `mount.*` on a kernel: each test in namespaces of its own thread.

use std::fs;
use std::path::Path;

use lockstep_apis::v1alpha::Value;
use lockstep_modules::Outcome;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::stage::{Mounted, Stage, assert_changed, assert_failed, assert_ok, trace};

/// Moves this thread to namespaces that end with it.
fn unshare(flags: UnshareFlags) {
    #[allow(deprecated, reason = "only descriptors make it unsafe, and they stay shared")]
    rustix::thread::unshare(flags | UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

#[test]
fn a_sysctl_is_set_now_and_for_the_next_start() {
    unshare(UnshareFlags::NEWNET);
    let mut stage = Stage::new();
    let file = stage.path("sysctl.conf");
    let set = |stage: &mut Stage, name: &str, value: Value| {
        stage.perform("sysctl.set", [("name", name.into()), ("value", value), ("file", file.as_str().into())])
    };
    let ranges = "/proc/sys/net/ipv4/ip_local_port_range";
    stage.check = true;
    let told = set(&mut stage, "net.ipv4.ip_local_port_range", "20000 30000".into());
    assert_changed(&told);
    assert!(stage.names().is_empty() && !fs::read_to_string(ranges).unwrap().contains("20000"));
    assert_eq!(set(&mut stage, "net.ipv4.no_such", 1.into()).outcome, Outcome::Unpredicted);
    stage.check = false;
    let done = set(&mut stage, "net.ipv4.ip_local_port_range", "20000 30000".into());
    assert_changed(&done);
    assert_eq!(done.message, told.message);
    assert_eq!(fs::read_to_string(ranges).unwrap(), "20000\t30000\n");
    assert_eq!(stage.read("sysctl.conf"), "net.ipv4.ip_local_port_range = 20000 30000\n");
    let before = trace(&file);
    assert_ok(&set(&mut stage, "net.ipv4.ip_local_port_range", "20000  30000".into()));
    assert_eq!(before, trace(&file));
    fs::write(ranges, "1024 2048").unwrap();
    assert!(set(&mut stage, "net/ipv4/ip_local_port_range", "20000 30000".into()).message.contains("→ 20000 30000"));
    for (name, value, reason) in [
        ("net.ipv4.no_such", "1", "NoSuchSysctl"),
        ("net.ipv4.ip_forward", "yes", "ValueRefused"),
        ("net.ipv4.ip_forward", "0x1", "NotTaken"),
        ("../x", "1", "InvalidParameters"),
        ("net..x", "1", "InvalidParameters"),
        ("net.ipv4.ip_forward", "1\n2", "InvalidParameters"),
    ] {
        let before = (trace(&file), fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
        assert_failed(&set(&mut stage, name, value.into()), reason);
        assert_eq!(before, (trace(&file), fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap()));
    }
}

#[test]
fn the_machine_has_its_name_now_and_after_a_restart() {
    unshare(UnshareFlags::NEWUTS);
    let _etc = Mounted::tmpfs(Path::new("/etc"), "");
    let mut stage = Stage::new();
    let set = |stage: &mut Stage, name: &str| stage.perform_with("hostname.set", &Value::text(name));
    assert_changed(&set(&mut stage, "web-4711"));
    assert_eq!(rustix::system::uname().nodename().to_bytes(), b"web-4711");
    assert_eq!(fs::read_to_string("/etc/hostname").unwrap(), "web-4711\n");
    assert_ok(&set(&mut stage, "web-4711"));
    rustix::system::sethostname(b"other").unwrap();
    assert_eq!(set(&mut stage, "web-4711").message, "other → web-4711");
    for bad in ["", "-a", "a_b", "a..b", &"a".repeat(65)] {
        assert_failed(&set(&mut stage, bad), "InvalidParameters");
    }
}

#[test]
fn a_mount_is_made_followed_and_undone() {
    unshare(UnshareFlags::empty());
    let mut stage = Stage::new();
    let (fstab, point) = (stage.path("fstab"), stage.path("data dir"));
    let given = |options: &str| {
        Value::map([
            ("path", point.as_str().into()),
            ("source", "scratch".into()),
            ("type", "tmpfs".into()),
            ("options", options.into()),
            ("fstab", fstab.as_str().into()),
        ])
    };
    assert_failed(&stage.perform_with("mount.mounted", &given("size=1m")), "NoMountPoint");
    assert!(stage.names().is_empty());
    fs::create_dir(&point).unwrap();
    assert_failed(&stage.perform_with("mount.mounted", &given("no_such_option=1")), "ProgramFailed");
    assert_eq!(stage.names(), ["data dir"], "nothing is kept of what cannot be mounted");
    let mount = |stage: &mut Stage, options: &str| stage.perform_with("mount.mounted", &given(options));
    stage.check = true;
    let told = mount(&mut stage, "size=1m");
    assert_eq!(stage.names(), ["data dir"]);
    stage.check = false;
    let done = mount(&mut stage, "size=1m");
    assert_changed(&done);
    assert_eq!(
        (done.message.as_str(), told.message),
        (format!("mounted, line in {fstab}").as_str(), done.message.clone())
    );
    fs::write(format!("{point}/kept"), "x").unwrap();
    let before = trace(&fstab);
    assert_ok(&mount(&mut stage, "size=1m"));
    assert_eq!(before, trace(&fstab));
    assert_changed(&mount(&mut stage, "size=1m,ro"));
    assert!(fs::write(format!("{point}/other"), "x").is_err(), "it is read-only now");
    assert!(stage.read("fstab").contains("data\\040dir tmpfs size=1m,ro 0 0\n"));
    let unmount = |stage: &mut Stage| stage.perform("mount.unmounted", [("path", point.as_str().into())]);
    assert_changed(&unmount(&mut stage));
    assert_ok(&unmount(&mut stage));
    assert!(stage.read("fstab").contains("tmpfs") && fs::metadata(format!("{point}/kept")).is_err());
    let _other = Mounted::bind(stage.dir.path(), Path::new(&point));
    assert_failed(&mount(&mut stage, "size=1m"), "OtherMount");
    drop(_other);
    let held = mount(&mut stage, "size=1m");
    assert_changed(&held);
    let open = fs::File::create(format!("{point}/open")).unwrap();
    let absent = |stage: &mut Stage| {
        stage.perform("mount.absent", [("path", point.as_str().into()), ("fstab", fstab.as_str().into())])
    };
    assert_failed(&absent(&mut stage), "ProgramFailed");
    assert!(stage.read("fstab").contains("tmpfs"), "the line stays as long as it is mounted");
    drop(open);
    assert_changed(&absent(&mut stage));
    assert_eq!(stage.read("fstab"), "");
    assert_ok(&absent(&mut stage));
}

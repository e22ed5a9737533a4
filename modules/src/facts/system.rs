//! Facts of hardware, kernel and operating system.

use lockstep_apis::v1alpha::Value;

use crate::host::{Cgroup, Host};

/// Whether the processes of each segment are in a control group of their own, which nothing that a task starts leaves.
pub(super) fn cgroups(_host: &Host) -> Option<Value> {
    Some(Cgroup::are_used().into())
}

/// `count`: processors that are online.
pub(super) fn cpu(host: &Host) -> Option<Value> {
    let listed = host.kernel_text("/sys/devices/system/cpu/online").and_then(|text| count_range(text.trim()));
    let count = listed.or_else(|| std::thread::available_parallelism().ok().map(usize::from))?;
    Some(Value::map([("count", Value::from(i64::try_from(count).ok()?))]))
}

/// `totalMb`, in units of 1024 × 1024 bytes.
pub(super) fn memory(host: &Host) -> Option<Value> {
    let text = host.kernel_text("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: i64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Value::map([("totalMb", Value::from(kib / 1024))]))
}

/// `release` (`6.1.0-25-amd64`) and `version`, as of uname(2).
pub(super) fn kernel(host: &Host) -> Option<Value> {
    let uname = host.uname();
    let text = |text: &std::ffi::CStr| Value::text(text.to_string_lossy());
    Some(Value::map([("release", text(uname.release())), ("version", text(uname.version()))]))
}

/// `family`, `id`, `version`, `pretty`, as of os-release(5). Below a root folder that holds no system of its own it is
/// the machine's: commands run there.
pub(super) fn os(host: &Host) -> Option<Value> {
    const PATHS: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
    let below = PATHS.iter().find_map(|path| host.text(path));
    let text = below.or_else(|| PATHS.iter().find_map(|path| host.kernel_text(path)))?;
    let field = |name: &str| field(&text, name).unwrap_or_default();
    let id = field("ID");
    let like = field("ID_LIKE");
    Some(Value::map([
        ("family", Value::text(family(&id, &like))),
        ("version", Value::text(field("VERSION_ID"))),
        ("codename", Value::text(field("VERSION_CODENAME"))),
        ("pretty", Value::text(field("PRETTY_NAME"))),
        ("id", Value::text(id)),
    ]))
}

/// `Europe/Berlin`; absent where the machine has none.
pub(super) fn timezone(host: &Host) -> Option<Value> {
    let linked = host.link("/etc/localtime");
    let linked = linked.and_then(|target| Some(target.split_once("zoneinfo/")?.1.to_owned()));
    let zone = linked.or_else(|| host.text("/etc/timezone").map(|text| text.trim().to_owned()))?;
    Some(zone).filter(|zone| !zone.is_empty()).map(Value::text)
}

/// What the machine runs in: `none`, or `docker`, `lxc`, `kvm`, `vmware`, …
pub(super) fn virtualization(host: &Host) -> Option<Value> {
    Some(Value::text(container(host).or_else(|| machine(host)).unwrap_or_else(|| "none".to_owned())))
}

fn container(host: &Host) -> Option<String> {
    let named = host.kernel_text("/run/systemd/container").map(|text| text.trim().to_owned());
    let marked = || host.kernel_path_exists("/.dockerenv").then(|| "docker".to_owned());
    let podman = || host.kernel_path_exists("/run/.containerenv").then(|| "podman".to_owned());
    named.filter(|name| !name.is_empty()).or_else(marked).or_else(podman)
}

/// What the firmware calls itself, else what the processor says.
fn machine(host: &Host) -> Option<String> {
    const VENDORS: &[(&str, &str)] = &[
        ("QEMU", "kvm"),
        ("KVM", "kvm"),
        ("Amazon EC2", "kvm"),
        ("Google", "kvm"),
        ("OpenStack", "kvm"),
        ("VMware", "vmware"),
        ("VirtualBox", "virtualbox"),
        ("innotek", "virtualbox"),
        ("Xen", "xen"),
        ("Microsoft Corporation", "hyperv"),
        ("Parallels", "parallels"),
    ];
    let firmware = ["sys_vendor", "product_name"].map(|name| host.kernel_text(&format!("/sys/class/dmi/id/{name}")));
    let firmware = firmware.into_iter().flatten().collect::<String>();
    if let Some((_, name)) = VENDORS.iter().find(|(vendor, _)| firmware.contains(vendor)) {
        return Some((*name).to_owned());
    }
    let flags = host.kernel_text("/proc/cpuinfo")?;
    let flags = flags.lines().find(|line| line.starts_with("flags"))?;
    flags.split_whitespace().any(|flag| flag == "hypervisor").then(|| "vm".to_owned())
}

/// The number of processors in `0-3,5`.
fn count_range(text: &str) -> Option<usize> {
    text.split(',').try_fold(0, |count, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(count + last.checked_sub(first)? + 1)
    })
}

/// The family whose packages and layout the system shares.
fn family(id: &str, like: &str) -> String {
    const FAMILIES: &[(&str, &[&str])] = &[
        ("debian", &["debian", "ubuntu"]),
        ("redhat", &["rhel", "fedora", "centos"]),
        ("suse", &["suse", "sles", "opensuse"]),
        ("arch", &["arch"]),
        ("alpine", &["alpine"]),
        ("gentoo", &["gentoo"]),
    ];
    let words: Vec<&str> = std::iter::once(id).chain(like.split_whitespace()).collect();
    let known = FAMILIES.iter().find(|(_, names)| names.iter().any(|name| words.contains(name)));
    known.map_or_else(|| id.to_owned(), |(family, _)| (*family).to_owned())
}

fn field(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    Some(quoted('"').or_else(|| quoted('\'')).unwrap_or(value).replace('\\', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted_from_ranges() {
        assert_eq!(count_range("0-3,5"), Some(5));
        assert_eq!(count_range("0"), Some(1));
        assert_eq!(count_range(""), None);
        assert_eq!(count_range("3-1"), None);
    }

    #[test]
    fn derivatives_belong_to_the_family_they_are_like() {
        assert_eq!(family("linuxmint", "ubuntu debian"), "debian");
        assert_eq!(family("almalinux", "rhel centos fedora"), "redhat");
        assert_eq!(family("fedora", ""), "redhat");
        assert_eq!(family("nixos", ""), "nixos");
    }
}

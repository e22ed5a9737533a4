//! Facts that tell machines apart: names and ids.

use lockstep_apis::v1alpha::Value;

use crate::host::Host;

/// The name without domain.
pub(super) fn hostname(host: &Host) -> Option<Value> {
    Some(short(&full_name(host)).into())
}

/// The name with domain, as far as the machine knows it without asking the network: its own name if that has dots, else
/// a name of `/etc/hosts` that begins with it.
pub(super) fn fqdn(host: &Host) -> Option<Value> {
    let name = full_name(host);
    if name.contains('.') {
        return Some(name.into());
    }
    let hosts = host.text("/etc/hosts").unwrap_or_default();
    Some(from_hosts(&hosts, &name).unwrap_or(name).into())
}

/// Of this boot. Of the machine that runs, whatever the root folder.
pub(super) fn boot_id(host: &Host) -> Option<Value> {
    one_line(host.kernel_text("/proc/sys/kernel/random/boot_id"))
}

/// Of the installation.
pub(super) fn machine_id(host: &Host) -> Option<Value> {
    one_line(host.text("/etc/machine-id"))
}

fn one_line(text: Option<String>) -> Option<Value> {
    let text = text?;
    Some(text.trim()).filter(|line| !line.is_empty()).map(Value::text)
}

fn full_name(host: &Host) -> String {
    let own = host.root().and_then(|_| host.text("/etc/hostname"));
    let own = own.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    own.unwrap_or_else(|| host.uname().nodename().to_string_lossy().into_owned())
}

fn short(name: &str) -> &str {
    name.split_once('.').map_or(name, |(short, _)| short)
}

fn from_hosts(hosts: &str, name: &str) -> Option<String> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
        .filter(|names| names.contains(&name))
        .flatten()
        .find(|found| found.contains('.') && short(found) == name)
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_comes_from_the_hosts_file() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 web1.example.org web1 # ours\n::1 web2.example.org\n";
        assert_eq!(from_hosts(hosts, "web1").as_deref(), Some("web1.example.org"));
        assert_eq!(from_hosts(hosts, "web2"), None);
    }
}

//! What a machine says of itself, gathered group by group and only those groups that are asked for. Knows what the
//! facts are called; reads nothing by itself but through the host.

mod custom;
mod identity;
mod network;
mod system;

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Function, Outcome};
use crate::host::Host;
use crate::parameters::Parameters;

/// The group of facts that the files of `facts.d` give.
pub const CUSTOM: &str = "custom";

/// The group that names the files of `facts.d` that give none, each with a sentence; absent if there is no such file.
pub const FAULTS: &str = "customFaults";

/// `facts.refresh`. What was gathered before is the caller's, who forgets it.
pub(crate) static REFRESH: Function = Function {
    name: "facts.refresh",
    perform: |given, _| {
        Parameters::new(given, None).finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(Done::new(Outcome::Ok, "", []))
    },
};

/// How one group of facts is gathered; `None` if this machine has no such thing.
type Gather = fn(&Host) -> Option<Value>;

/// The groups, by the first name of their facts.
const GROUPS: &[(&str, Gather)] = &[
    ("addresses", network::addresses),
    ("arch", |host| Some(host.uname().machine().to_string_lossy().into_owned().into())),
    ("bootId", identity::boot_id),
    ("cgroups", system::cgroups),
    ("cpu", system::cpu),
    ("fqdn", identity::fqdn),
    ("hostname", identity::hostname),
    ("interfaces", network::interfaces),
    ("kernel", system::kernel),
    ("machineId", identity::machine_id),
    ("memory", system::memory),
    ("os", system::os),
    ("timezone", system::timezone),
    ("virtual", system::virtualization),
];

/// The facts that `wanted` names, as a map. A name is a path such as `os.family`; its first part decides which group is
/// gathered, whole. No names at all, or an empty one, ask for every group. Unknown names are passed over.
pub fn facts(host: &Host, wanted: &[&str]) -> Value {
    let all = wanted.is_empty() || wanted.contains(&"");
    let is_wanted = |group: &str| all || wanted.iter().any(|path| path.split('.').next() == Some(group));
    let mut gathered: BTreeMap<String, Value> = GROUPS
        .iter()
        .filter(|(name, _)| is_wanted(name))
        .filter_map(|(name, gather)| Some(((*name).to_owned(), gather(host)?)))
        .collect();
    if is_wanted(CUSTOM) || is_wanted(FAULTS) {
        let named: Option<Vec<&str>> = match all || wanted.contains(&FAULTS) {
            true => None,
            false => {
                let of_custom = wanted.iter().filter(|path| path.split('.').next() == Some(CUSTOM));
                of_custom.map(|path| path.split('.').nth(1)).collect()
            }
        };
        let found = custom::gather(host, custom::FOLDER, named.as_deref());
        gathered.insert(CUSTOM.to_owned(), found.facts.into());
        if !found.faults.is_empty() {
            gathered.insert(FAULTS.to_owned(), found.faults.into());
        }
    }
    gathered.into()
}

/// The names of all groups.
pub fn fact_groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(name, _)| *name).chain([CUSTOM, FAULTS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_groups_that_are_named_are_gathered() {
        let host = Host::open(None).unwrap();
        let found = facts(&host, &["cpu.count", "kernel", "nothing.such"]);
        let names: Vec<&str> = found.as_map().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu", "kernel"]);
        assert!(found.get("cpu").unwrap().get("count").unwrap().as_integer().unwrap() >= 1);
    }

    #[test]
    fn the_facts_every_machine_has_are_there() {
        let found = facts(&Host::open(None).unwrap(), &[]);
        for name in ["addresses", "arch", "bootId", "cgroups", "cpu", "fqdn", "hostname", "kernel", "memory", "virtual"]
        {
            assert!(found.get(name).is_some(), "{name} is missing in {found:?}");
        }
        assert!(!found.get("hostname").unwrap().as_text().unwrap().contains('.'));
        assert!(found.get("memory").unwrap().get("totalMb").unwrap().as_integer().unwrap() > 0);
    }

    #[test]
    fn a_root_folder_tells_its_own_system_and_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let release = "ID=rocky\nVERSION_ID=\"9.4\"\nID_LIKE=\"rhel centos fedora\"\nPRETTY_NAME='Rocky Linux 9'\n";
        std::fs::write(dir.path().join("etc/os-release"), release).unwrap();
        std::fs::write(dir.path().join("etc/hostname"), "web1.example.org\n").unwrap();
        let found = facts(&Host::open(Some(dir.path())).unwrap(), &["os", "hostname", "fqdn"]);
        let os = found.get("os").unwrap();
        assert_eq!(os.get("family"), Some(&Value::text("redhat")));
        assert_eq!(os.get("version"), Some(&Value::text("9.4")));
        assert_eq!(os.get("pretty"), Some(&Value::text("Rocky Linux 9")));
        assert_eq!(found.get("hostname"), Some(&Value::text("web1")));
        assert_eq!(found.get("fqdn"), Some(&Value::text("web1.example.org")));
    }
}

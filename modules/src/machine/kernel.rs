//! `sysctl.set` and `hostname.set`: a value that the kernel has now, and the file that gives it after a restart.

use std::fmt::Debug;

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Scope};
use crate::file::{Edit, FileChange, FileObserved, FileState, Lines, Nothing};
use crate::host::{Host, HostError};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// Where `sysctl.set` keeps values, if the book does not say.
const SYSCTL_FILE: &str = "/etc/sysctl.d/99-lockstep.conf";

/// A value of the running kernel.
trait Knob: Debug {
    fn wanted(&self) -> &str;
    fn read(&self, host: &Host) -> Result<String, HostError>;
    fn write(&self, host: &Host, value: &str) -> Result<(), HostError>;
}

/// A value and its file.
#[derive(Debug)]
pub(super) struct Kept {
    name: String,
    file: Option<FileState>,
    /// `None`: a folder stands for the machine, and has no kernel.
    knob: Option<Box<dyn Knob>>,
}

/// Reads the parameters of `sysctl.set`.
pub(super) fn sysctl(parameters: &Value, host: &Host) -> Result<Kept, Done> {
    let mut from = Parameters::new(parameters, None);
    let (name, value) = (from.required("name"), from.required("value"));
    let path = from.text("file").unwrap_or_else(|| SYSCTL_FILE.to_owned());
    let keeps = !from.is_given("persist") || from.flag("persist");
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/:@*-".contains(&b);
    let parts = |separator| name.split(separator).any(|part: &str| part.is_empty() || part == "..");
    if !name.bytes().all(plain) || name.len() > 255 || parts('/') || (!name.contains('/') && parts('.')) {
        from.fault(format!("name {name:?} is no sysctl's, as in net.ipv4.ip_forward"));
    }
    if value.contains(['\n', '\r', '\0']) {
        from.fault("value holds a line break");
    }
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    let edit = Setting { name: name.clone(), value: value.clone() };
    let file = keeps.then(|| FileState::edited(path, edit));
    let knob = Sysctl { name: name.clone(), wanted: value };
    Ok(Kept { name, file, knob: host.root().is_none().then(|| Box::new(knob) as Box<dyn Knob>) })
}

/// Reads the parameters of `hostname.set`.
pub(super) fn hostname(parameters: &Value, host: &Host) -> Result<Kept, Done> {
    let mut from = Parameters::new(parameters, Some("name"));
    let name = from.required("name");
    let label = |label: &str| {
        let bytes = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        bytes && !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 64 || !name.split('.').all(label) {
        from.fault(format!("name {name:?} is no host's: letters, digits and `-`, at most 64"));
    }
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    let file = Some(FileState::whole("/etc/hostname".to_owned(), format!("{name}\n")));
    let knob = host.root().is_none().then(|| Box::new(Hostname(name.clone())) as Box<dyn Knob>);
    Ok(Kept { name, file, knob })
}

#[derive(Debug)]
struct Sysctl {
    name: String,
    wanted: String,
}

impl Knob for Sysctl {
    fn wanted(&self) -> &str {
        &self.wanted
    }

    fn read(&self, host: &Host) -> Result<String, HostError> {
        host.sysctl(&self.name)
    }

    fn write(&self, host: &Host, value: &str) -> Result<(), HostError> {
        host.set_sysctl(&self.name, value)
    }
}

#[derive(Debug)]
struct Hostname(String);

impl Knob for Hostname {
    fn wanted(&self) -> &str {
        &self.0
    }

    fn read(&self, host: &Host) -> Result<String, HostError> {
        Ok(host.uname().nodename().to_string_lossy().into_owned())
    }

    fn write(&self, host: &Host, value: &str) -> Result<(), HostError> {
        host.set_hostname(value)
    }
}

/// A line `name = value` of sysctl.conf(5).
#[derive(Debug)]
struct Setting {
    name: String,
    value: String,
}

impl Setting {
    /// The value, if the line sets this name.
    fn value_in<'l>(&self, line: &'l [u8]) -> Option<&'l str> {
        let line = std::str::from_utf8(line).ok()?;
        let (name, value) = line.split_once('=')?;
        let name = name.trim();
        let name = name.strip_prefix('-').unwrap_or(name);
        (dotted(name) == dotted(&self.name)).then(|| value.trim())
    }
}

/// The name with dots between its parts; one that begins with slashes keeps its dots in the parts.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

impl Edit for Setting {
    fn edit(&self, _path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let line = format!("{} = {}", self.name, self.value);
        let mut lines = Lines::of(old);
        let mut found = lines.positions(|line| self.value_in(line).is_some());
        let is_right = |line: &[u8]| {
            self.value_in(line).is_some_and(|value| value.split_whitespace().eq(self.value.split_whitespace()))
        };
        let right = lines.positions(is_right);
        match (found.first().copied(), right.first().copied()) {
            (None, _) => {
                let end = lines.len();
                lines.splice(end, end, [line.as_bytes()]);
            }
            (Some(first), right) => {
                let kept = right.unwrap_or(first);
                if right.is_none() {
                    lines.replace(kept, line.as_bytes());
                }
                found.retain(|at| *at != kept);
                lines.remove(found);
            }
        }
        Ok(lines.bytes())
    }

    fn without_file(&self) -> Nothing {
        Nothing::Empty
    }
}

/// What differs: the file, and the kernel's value, which is this now.
type Change = (Option<FileChange>, Option<String>);

impl Module for Kept {
    type Observed = (Option<FileObserved>, Option<String>);
    type Change = Change;

    fn path(&self) -> &str {
        &self.name
    }

    fn key(&self) -> &'static str {
        "name"
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        let value = self.knob.as_ref().map(|knob| knob.read(host)).transpose()?;
        Ok((self.file.as_ref().map(|file| file.observe(host)).transpose()?, value))
    }

    fn difference(&self, host: &Host, (file, value): &Self::Observed) -> Result<Option<Change>, Refusal> {
        let file = match self.file.as_ref().zip(file.as_ref()) {
            Some((state, observed)) => state.difference(host, observed)?,
            None => None,
        };
        let wanted = self.knob.as_ref().map(|knob| knob.wanted());
        let value = value.clone().filter(|value| wanted.is_some_and(|wanted| !same(wanted, value)));
        Ok((file.is_some() || value.is_some()).then_some((file, value)))
    }

    fn summary(&self, _observed: &Self::Observed, (file, value): &Change) -> String {
        let wanted = self.knob.as_ref().map_or("", |knob| knob.wanted());
        let value = value.as_ref().map(|value| format!("{value} → {wanted}"));
        let file = file.as_ref().and(self.file.as_ref()).map(|file| format!("kept in {}", file.path()));
        value.into_iter().chain(file).collect::<Vec<_>>().join(", ")
    }

    fn show(&self, host: &Host, observed: &Self::Observed, change: &Change, sensitive: bool) -> String {
        let mut text = match (&self.knob, &change.1) {
            (Some(knob), Some(value)) if !sensitive => format!("{}: {value} → {}\n", self.name, knob.wanted()),
            _ => String::new(),
        };
        if let (Some(state), Some(seen), Some(change)) = (&self.file, &observed.0, &change.0) {
            text.push_str(&state.show(host, seen, change, sensitive));
        }
        text
    }

    fn apply(&self, (seen, _): Self::Observed, (file, value): Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        if let (Some(knob), Some(former)) = (&self.knob, &value) {
            turn(&self.name, knob.as_ref(), former, scope.host)?;
        }
        let (Some(state), Some(seen), Some(change)) = (&self.file, seen, file) else { return Ok(()) };
        let written = state.apply(seen, change, scope);
        if let (Err(_), Some(knob), Some(former)) = (&written, &self.knob, &value) {
            // What failed is the file, and that is the error to report.
            let _ = knob.write(scope.host, former);
        }
        written
    }
}

/// Sets the value and looks what the kernel made of it; if that is another one, the former is set again.
fn turn(name: &str, knob: &dyn Knob, former: &str, host: &Host) -> Result<(), Done> {
    knob.write(host, knob.wanted())?;
    let found = knob.read(host)?;
    if same(knob.wanted(), &found) {
        return Ok(());
    }
    knob.write(host, former)?;
    let message = format!("the kernel made {found:?} of {:?} for {name}; write it as the kernel does", knob.wanted());
    Err(Done::failed("NotTaken", message))
}

fn same(wanted: &str, found: &str) -> bool {
    wanted.split_whitespace().eq(found.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_line_however_its_name_is_spelled() {
        let setting = Setting { name: "net.ipv4.ip_forward".into(), value: "1".into() };
        for (old, new) in [
            ("", "net.ipv4.ip_forward = 1\n"),
            ("# net.ipv4.ip_forward=0\n", "# net.ipv4.ip_forward=0\nnet.ipv4.ip_forward = 1\n"),
            ("net.ipv4.ip_forward=1\n", "net.ipv4.ip_forward=1\n"),
            ("-net/ipv4/ip_forward = 0\nx = 1\n", "net.ipv4.ip_forward = 1\nx = 1\n"),
            ("net.ipv4.ip_forward=0\nnet.ipv4.ip_forward=1\n", "net.ipv4.ip_forward=1\n"),
        ] {
            assert_eq!(setting.edit("", old.as_bytes()).unwrap(), new.as_bytes(), "{old}");
        }
        assert_eq!(dotted("net/ipv4/conf/eth0.1/mtu"), "net.ipv4.conf.eth0/1.mtu");
    }
}

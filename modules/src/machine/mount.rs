//! `mount.present`, `mount.mounted`, `mount.unmounted`, `mount.absent`: a line of fstab, and what is mounted now.

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Scope};
use crate::command;
use crate::file::{Edit, FileChange, FileObserved, FileState, Lines, Nothing};
use crate::host::{Host, HostError, Mounted, unescape};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

const FSTAB: &str = "/etc/fstab";

/// A mount as it should be.
#[derive(Debug)]
pub(super) struct Mount {
    path: String,
    /// `None`: fstab is left alone.
    table: Option<FileState>,
    /// What is to be mounted now, or nothing; `None`: that is left alone.
    live: Option<Option<Entry>>,
}

/// A line of fstab(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    source: String,
    path: String,
    kind: String,
    options: String,
    dump: i64,
    pass: i64,
}

/// Reads the parameters of `mount.present`.
pub(super) fn present(parameters: &Value) -> Result<Mount, Done> {
    let (entry, table) = read(parameters)?;
    Ok(Mount { path: entry.path.clone(), table: Some(kept(table, &entry.path, Some(&entry))), live: None })
}

/// Reads the parameters of `mount.mounted`.
pub(super) fn mounted(parameters: &Value) -> Result<Mount, Done> {
    let (entry, table) = read(parameters)?;
    let table = Some(kept(table, &entry.path, Some(&entry)));
    Ok(Mount { path: entry.path.clone(), table, live: Some(Some(entry)) })
}

/// Reads the parameters of `mount.unmounted`.
pub(super) fn unmounted(parameters: &Value) -> Result<Mount, Done> {
    let mut from = Parameters::new(parameters, Some("path"));
    let path = point(&mut from);
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    Ok(Mount { path, table: None, live: Some(None) })
}

/// Reads the parameters of `mount.absent`.
pub(super) fn absent(parameters: &Value) -> Result<Mount, Done> {
    let mut from = Parameters::new(parameters, Some("path"));
    let path = point(&mut from);
    let table = from.text("fstab").unwrap_or_else(|| FSTAB.to_owned());
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    let table = Some(kept(table, &path, None));
    Ok(Mount { path, table, live: Some(None) })
}

fn read(parameters: &Value) -> Result<(Entry, String), Done> {
    let mut from = Parameters::new(parameters, None);
    let path = point(&mut from);
    let mut text = |name: &str, fallback: Option<&str>| {
        let text = match fallback {
            None => from.required(name),
            Some(fallback) => from.text(name).filter(|text| !text.is_empty()).unwrap_or_else(|| fallback.to_owned()),
        };
        let is_option = name != "fstab" && text.starts_with('-');
        if text.contains(['\n', '\r', '\0']) || is_option || (name != "source" && text.contains([' ', '\t'])) {
            from.fault(format!("{name} {text:?} is no field of fstab"));
        }
        text
    };
    let (source, kind) = (text("source", None), text("type", None));
    let (options, table) = (text("options", Some("defaults")), text("fstab", Some(FSTAB)));
    let number = |from: &mut Parameters<'_>, name: &str| {
        let number = from.integers(name).first().copied().unwrap_or(0);
        if !(0..=9).contains(&number) {
            from.fault(format!("{name} is not from 0 to 9"));
        }
        number
    };
    let (dump, pass) = (number(&mut from, "dump"), number(&mut from, "pass"));
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    Ok((Entry { source, path, kind, options, dump, pass }, table))
}

/// The mount point, which is an absolute path: so no option of mount, either.
fn point(from: &mut Parameters<'_>) -> String {
    let path = from.required("path");
    if !path.starts_with('/') || path.contains(['\n', '\r', '\0']) {
        from.fault(format!("path {path:?} is no absolute path"));
    }
    path
}

fn kept(table: String, path: &str, entry: Option<&Entry>) -> FileState {
    FileState::edited(table, Table { path: path.to_owned(), entry: entry.cloned() })
}

/// The lines of fstab for one mount point.
#[derive(Debug)]
struct Table {
    path: String,
    /// `None`: there is none.
    entry: Option<Entry>,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Entry> {
        let line = std::str::from_utf8(line).ok()?.trim();
        if line.starts_with('#') {
            return None;
        }
        let mut fields = line.split_whitespace();
        let (source, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        let options = fields.next().unwrap_or("defaults").to_owned();
        let mut number = || fields.next().unwrap_or("0").parse().unwrap_or(-1);
        Some(Entry {
            source: unescape(source),
            path: unescape(path),
            kind: kind.to_owned(),
            options,
            dump: number(),
            pass: number(),
        })
    }

    fn line(&self) -> String {
        let Entry { kind, options, dump, pass, .. } = self;
        format!("{} {} {kind} {options} {dump} {pass}", escape(&self.source), escape(&self.path))
    }

    fn binds(&self) -> bool {
        self.options.split(',').any(|option| matches!(option, "bind" | "rbind"))
    }

    /// Whether that is what the entry mounts, as far as the kernel tells.
    fn is_of(&self, mounted: &Mounted, host: &Host) -> bool {
        if self.binds() {
            return true;
        }
        let same_kind = matches!(self.kind.as_str(), "auto" | "none") || self.kind == mounted.kind;
        // UUID=… and the like, and names of what has no device, are not in the kernel's table.
        same_kind && (!self.source.starts_with('/') || host.is_same_path(&self.source, &mounted.source))
    }
}

/// As fstab(5) wants it.
fn escape(field: &str) -> String {
    field.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('#', "\\043")
}

impl Edit for Table {
    fn edit(&self, _path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let line = self.entry.as_ref().map(Entry::line).unwrap_or_default();
        let mut lines = Lines::of(old);
        let mut found = lines.positions(|line| Entry::parse(line).is_some_and(|entry| entry.path == self.path));
        let Some(entry) = &self.entry else {
            lines.remove(found);
            return Ok(lines.bytes());
        };
        let right = lines.positions(|line| Entry::parse(line).as_ref() == Some(entry));
        match right.first().or(found.first()).copied() {
            None => {
                let end = lines.len();
                lines.splice(end, end, [line.as_bytes()]);
            }
            Some(kept) => {
                if right.is_empty() {
                    lines.replace(kept, line.as_bytes());
                }
                found.retain(|at| *at != kept);
                lines.remove(found);
            }
        }
        Ok(lines.bytes())
    }

    fn without_file(&self) -> Nothing {
        if self.entry.is_some() { Nothing::Empty } else { Nothing::Done }
    }
}

/// What has to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Mount,
    /// The line changes, and the mount is to follow it.
    Remount,
    Unmount,
}

impl Module for Mount {
    /// What fstab says; what is mounted, if that is looked after.
    type Observed = (Option<FileObserved>, Option<Mounted>);
    type Change = (Option<FileChange>, Option<Act>);

    fn path(&self) -> &str {
        &self.path
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        let table = self.table.as_ref().map(|table| table.observe(host)).transpose()?;
        // A folder that stands for the machine has a table, and nothing mounted.
        if self.live.is_none() || host.root().is_some() {
            return Ok((table, None));
        }
        let mounted = host.mounted(&self.path)?;
        if mounted.is_none() && matches!(self.live, Some(Some(_))) && !host.exists(&self.path)? {
            return Err(HostError::NoMountPoint { path: self.path.clone() }.into());
        }
        Ok((table, mounted))
    }

    fn difference(&self, host: &Host, (table, mounted): &Self::Observed) -> Result<Option<Self::Change>, Refusal> {
        let line = match self.table.as_ref().zip(table.as_ref()) {
            Some((state, observed)) => state.difference(host, observed)?,
            None => None,
        };
        let act = match (&self.live, mounted) {
            _ if host.root().is_some() => None,
            (Some(Some(_)), None) => Some(Act::Mount),
            (Some(Some(entry)), Some(mounted)) if !entry.is_of(mounted, host) => {
                let Mounted { source, kind } = mounted;
                let message = format!("{} has {source} ({kind}) mounted; unmount that first", self.path);
                return Err(Refusal::Module { reason: "OtherMount", message });
            }
            (Some(Some(_)), Some(_)) => line.is_some().then_some(Act::Remount),
            (Some(None), Some(_)) => Some(Act::Unmount),
            (Some(None), None) | (None, _) => None,
        };
        Ok((line.is_some() || act.is_some()).then_some((line, act)))
    }

    fn summary(&self, _observed: &Self::Observed, (line, act): &Self::Change) -> String {
        let act = act.map(|act| match act {
            Act::Mount => "mounted",
            Act::Remount => "remounted",
            Act::Unmount => "unmounted",
        });
        let line = line.as_ref().and(self.table.as_ref()).map(|table| format!("line in {}", table.path()));
        act.map(str::to_owned).into_iter().chain(line).collect::<Vec<_>>().join(", ")
    }

    fn show(&self, host: &Host, observed: &Self::Observed, change: &Self::Change, sensitive: bool) -> String {
        let mut text = format!("{}: {}\n", self.path, self.summary(observed, change));
        if let (Some(state), Some(seen), Some(change)) = (&self.table, &observed.0, &change.0) {
            text.push_str(&state.show(host, seen, change, sensitive));
        }
        text
    }

    fn apply(&self, (seen, _): Self::Observed, (line, act): Self::Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        let entry = self.live.as_ref().and_then(Option::as_ref);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        // First what may fail. Nothing is written to the table if it does.
        match (act, entry) {
            (Some(Act::Mount), Some(Entry { source, path, kind, options, .. })) => {
                let argv = words(&["mount", "-t", kind, "-o", options, "--", source, path]);
                command::run_tool(&argv, None, scope)?;
            }
            (Some(Act::Remount), Some(Entry { path, options, .. })) => {
                let options = format!("remount,{options}");
                command::run_tool(&words(&["mount", "-o", &options, "--", path]), None, scope)?;
            }
            (Some(Act::Unmount), _) => command::run_tool(&words(&["umount", "--", &self.path]), None, scope)?,
            _ => {}
        }
        match (&self.table, seen, line) {
            (Some(state), Some(seen), Some(line)) => state.apply(seen, line, scope),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let parameters = Value::map([
            ("path", "/mnt/a b".into()),
            ("source", "UUID=1-2".into()),
            ("type", "ext4".into()),
            ("pass", 2.into()),
        ]);
        read(&parameters).unwrap().0
    }

    #[test]
    fn a_line_of_fstab_is_changed_only_if_it_means_something_else() {
        let table = Table { path: "/mnt/a b".into(), entry: Some(entry()) };
        const LINE: &str = "UUID=1-2 /mnt/a\\040b ext4 defaults 0 2\n";
        for (old, new) in [
            ("", LINE.to_owned()),
            ("# c\n/dev/x / ext4", format!("# c\n/dev/x / ext4\n{LINE}")),
            ("UUID=1-2\t/mnt/a\\040b\text4  defaults 0 2\n", "UUID=1-2\t/mnt/a\\040b\text4  defaults 0 2\n".to_owned()),
            ("/dev/y /mnt/a\\040b xfs ro\nz /z none\n", format!("{LINE}z /z none\n")),
            ("#UUID=1-2 /mnt/a\\040b ext4\n", format!("#UUID=1-2 /mnt/a\\040b ext4\n{LINE}")),
        ] {
            let edited = table.edit("", old.as_bytes()).unwrap();
            assert_eq!(edited, new.as_bytes(), "{old:?}");
            assert_eq!(table.edit("", &edited).unwrap(), edited);
        }
        let gone = Table { path: "/mnt/a b".into(), entry: None };
        assert_eq!(gone.edit("", format!("a /a b\n{LINE}").as_bytes()).unwrap(), b"a /a b\n");
    }

    #[test]
    fn fields_that_would_be_others_are_refused() {
        for (name, value) in
            [("path", "mnt"), ("source", "-o"), ("type", "ext4 ro"), ("options", "a\nb"), ("source", "a\n/dev/x / y")]
        {
            let mut given: std::collections::BTreeMap<&str, Value> =
                [("path", "/mnt".into()), ("source", "x".into()), ("type", "tmpfs".into())].into();
            given.insert(name, value.into());
            assert!(read(&Value::map(given)).is_err(), "{name}: {value}");
        }
    }
}

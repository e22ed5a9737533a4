//! Values of the running kernel: sysctls, the name of the machine, and what is mounted where.

use std::io::ErrorKind;

use rustix::io::Errno;

use super::{Host, HostError};

/// What is mounted at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) source: String,
    pub(crate) kind: String,
}

impl Host {
    /// The kernel's value of a sysctl, without its last line break.
    pub(crate) fn sysctl(&self, name: &str) -> Result<String, HostError> {
        let read = std::fs::read_to_string(sysctl_path(name)).map_err(|error| sysctl_fault("read", name, error))?;
        Ok(read.trim_end_matches('\n').to_owned())
    }

    /// Gives it another value.
    pub(crate) fn set_sysctl(&self, name: &str, value: &str) -> Result<(), HostError> {
        // Never made if it is missing: the kernel makes these files.
        let mut options = std::fs::File::options();
        let file = options.write(true).open(sysctl_path(name));
        let write = |mut file: std::fs::File| std::io::Write::write_all(&mut file, format!("{value}\n").as_bytes());
        file.and_then(write).map_err(|error| sysctl_fault("set", name, error))
    }

    /// Gives the machine another name.
    pub(crate) fn set_hostname(&self, name: &str) -> Result<(), HostError> {
        rustix::system::sethostname(name.as_bytes())
            .map_err(|errno| HostError::from_errno("set the name of", "the machine", errno))
    }

    /// What is mounted at the path, last of all that is.
    pub(crate) fn mounted(&self, path: &str) -> Result<Option<Mounted>, HostError> {
        const TABLE: &str = "/proc/thread-self/mountinfo";
        let table = std::fs::read_to_string(TABLE).map_err(|source| HostError::Failed {
            operation: "read",
            path: TABLE.to_owned(),
            source,
        })?;
        // A link to the mount point is as good as the mount point.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let mut found = table.lines().filter_map(parse_mount).filter(|(at, _)| std::path::Path::new(at) == real);
        Ok(found.next_back().map(|(_, mounted)| mounted))
    }

    /// Whether both paths are of the same device or file.
    pub(crate) fn is_same_path(&self, one: &str, other: &str) -> bool {
        let real = |path: &str| std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        real(one) == real(other)
    }
}

/// Dots are slashes; in a name that is written with slashes, dots are dots (sysctl(8)).
fn sysctl_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => format!("/proc/sys/{name}"),
        _ => {
            let swap = |c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            };
            format!("/proc/sys/{}", name.chars().map(swap).collect::<String>())
        }
    }
}

fn sysctl_fault(operation: &'static str, name: &str, error: std::io::Error) -> HostError {
    let name = name.to_owned();
    match (error.kind(), error.raw_os_error().map(Errno::from_raw_os_error)) {
        (ErrorKind::NotFound, _) => HostError::NoSuchSysctl { name },
        (_, Some(Errno::INVAL | Errno::RANGE)) => HostError::ValueRefused { name },
        (_, Some(errno)) => HostError::from_errno(operation, &format!("the sysctl {name}"), errno),
        _ => HostError::Failed { operation, path: format!("the sysctl {name}"), source: error },
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw,errors=continue` (proc(5)): mount point, type, source.
fn parse_mount(line: &str) -> Option<(String, Mounted)> {
    let (mount, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    let (kind, source) = (rest.next()?.to_owned(), unescape(rest.next()?));
    Some((unescape(mount.split(' ').nth(4)?), Mounted { source, kind }))
}

/// Blanks and backslashes are written as `\040` in tables of mounts.
pub(crate) fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal.map(|digits| digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'))) {
            Some(value) if value < 256 => {
                bytes.push(value as u8);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sysctls_are_paths_below_proc_sys() {
        assert_eq!(sysctl_path("net.ipv4.ip_forward"), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/1.forwarding"), "/proc/sys/net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(sysctl_path("net/ipv4/conf/eth0.1/forwarding"), "/proc/sys/net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn a_mount_line_tells_where_what_and_of_which_type() {
        let line = r"36 35 98:0 / /mnt/a\040b rw shared:1 - ext4 /dev/root rw";
        let mounted = Mounted { source: "/dev/root".into(), kind: "ext4".into() };
        assert_eq!(parse_mount(line), Some(("/mnt/a b".to_owned(), mounted)));
        assert_eq!(unescape(r"a\134b\0"), r"a\b\0");
    }
}

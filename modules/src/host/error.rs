//! What can go wrong on the managed machine, each fault named for what it is. Knows no action and no report.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// What is found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character or block device.
    Device,
}

impl Kind {
    /// Reads the type bits of `st_mode`.
    pub(crate) fn of(mode: u32) -> Kind {
        use rustix::fs::FileType;
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
            _ => Kind::File,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::File => "a regular file",
            Kind::Directory => "a directory",
            Kind::Symlink => "a symbolic link",
            Kind::Fifo => "a named pipe",
            Kind::Socket => "a socket",
            Kind::Device => "a device",
        })
    }
}

/// Why the machine could not be read or changed. Where nothing else is said, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum HostError {
    #[error("{path:?} {reason}")]
    InvalidPath { path: String, reason: &'static str },
    #[error("the parent directory {parent} of {path} is missing; make it with file.directory, or set parents: true")]
    ParentMissing { path: String, parent: String },
    #[error("{parent} on the way to {path} is {found}, not a directory")]
    ParentNotDirectory { path: String, parent: String, found: Kind },
    #[error("{link} on the way to {path} is a symbolic link that others than root can change; name the real path")]
    UntrustedSymlink { path: String, link: String },
    #[error("{path} leads through too many symbolic links")]
    TooManyLinks { path: String },
    #[error("{path} does not exist; make it first, with file.managed")]
    FileMissing { path: String },
    #[error("{path} is longer than {limit} bytes; it is not edited in memory")]
    TooLong { path: String, limit: u64 },
    #[error("the way to {path} leads through a symbolic link, to {real}; nothing is unpacked through links")]
    LinkInTheWay { path: String, real: String },
    #[error("{path} is a symbolic link to {target}; set follow: true to write where it points, or name that path")]
    Symlink { path: String, target: String },
    #[error("{path} is a symbolic link to {target}; name that path instead")]
    DirectorySymlink { path: String, target: String },
    #[error("{path} is {found}, not {wanted}; remove it first if that is meant")]
    WrongKind { path: String, found: Kind, wanted: Kind },
    #[error("{path} is on {filesystem}, where files are not kept; use a command")]
    SpecialFilesystem { path: String, filesystem: &'static str },
    #[error("{path} has {links} hard links; a change would reach or cut the others; remove them first")]
    HardLinked { path: String, links: u64 },
    #[error("{path} is marked immutable or append-only; chattr -i -a lifts that")]
    Immutable { path: String },
    #[error("{path} is on a read-only file system")]
    ReadOnly { path: String },
    #[error("no space, inode or quota left to write {path}; what was there is as it was")]
    NoSpace { path: String },
    #[error("{path} is a mount point, or something is mounted in it; unmount it first")]
    MountPoint { path: String },
    #[error("the directory {path} is not empty; recursive: true removes what is in it")]
    NotEmpty { path: String },
    #[error("{path} is a directory that the system needs; it is not removed with all that is in it")]
    Vital { path: String },
    #[error("not permitted: {operation} {path}")]
    PermissionDenied { operation: &'static str, path: String },
    #[error("no user {name:?} on this node; make it first, or give a number")]
    NoSuchUser { name: String },
    #[error("this kernel has no sysctl {name}; its module may have to be loaded first")]
    NoSuchSysctl { name: String },
    #[error("the kernel refuses that value for the sysctl {name}")]
    ValueRefused { name: String },
    #[error("the mount point {path} does not exist; make it first, with file.directory")]
    NoMountPoint { path: String },
    #[error("the user {name} expired on {date}; nothing runs as it")]
    UserExpired { name: String, date: String },
    #[error("the user {name} is closed: its shell is {shell}; nothing runs as it")]
    UserClosed { name: String, shell: String },
    #[error("no group {name:?} on this node; make it first, or give a number")]
    NoSuchGroup { name: String },
    #[error("{path} kept changing while it was read; another program writes it")]
    Unsteady { path: String },
    #[error("could not {operation} {path}: {source}")]
    Failed { operation: &'static str, path: String, source: io::Error },
}

impl HostError {
    /// The class in one CamelCase word, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidPath { .. } => "InvalidPath",
            Self::ParentMissing { .. } => "ParentMissing",
            Self::ParentNotDirectory { .. } => "ParentNotDirectory",
            Self::UntrustedSymlink { .. } => "UntrustedSymlink",
            Self::TooManyLinks { .. } => "TooManyLinks",
            Self::LinkInTheWay { .. } => "LinkInTheWay",
            Self::FileMissing { .. } => "FileMissing",
            Self::TooLong { .. } => "FileTooLong",
            Self::Symlink { .. } | Self::DirectorySymlink { .. } => "Symlink",
            Self::WrongKind { .. } => "WrongKind",
            Self::SpecialFilesystem { .. } => "SpecialFilesystem",
            Self::HardLinked { .. } => "HardLinked",
            Self::Immutable { .. } => "Immutable",
            Self::ReadOnly { .. } => "ReadOnly",
            Self::NoSpace { .. } => "NoSpace",
            Self::MountPoint { .. } => "MountPoint",
            Self::NotEmpty { .. } => "NotEmpty",
            Self::Vital { .. } => "Vital",
            Self::PermissionDenied { .. } => "PermissionDenied",
            Self::NoSuchUser { .. } => "NoSuchUser",
            Self::NoSuchSysctl { .. } => "NoSuchSysctl",
            Self::ValueRefused { .. } => "ValueRefused",
            Self::NoMountPoint { .. } => "NoMountPoint",
            Self::UserExpired { .. } => "UserExpired",
            Self::UserClosed { .. } => "UserClosed",
            Self::NoSuchGroup { .. } => "NoSuchGroup",
            Self::Unsteady { .. } => "Unsteady",
            Self::Failed { .. } => "Failed",
        }
    }

    /// Whether it would not be, had something been made before.
    pub(crate) fn is_something_missing(&self) -> bool {
        matches!(
            self,
            Self::ParentMissing { .. }
                | Self::FileMissing { .. }
                | Self::NoSuchUser { .. }
                | Self::NoSuchGroup { .. }
                | Self::NoSuchSysctl { .. }
                | Self::NoMountPoint { .. }
        )
    }

    /// Names what a system call's error number means for `path`.
    pub(crate) fn from_errno(operation: &'static str, path: &str, errno: Errno) -> HostError {
        let path = path.to_owned();
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { path },
            Errno::ROFS => Self::ReadOnly { path },
            Errno::ACCESS | Errno::PERM => Self::PermissionDenied { operation, path },
            Errno::NAMETOOLONG => Self::InvalidPath { path, reason: "is longer than the file system permits" },
            Errno::BUSY | Errno::XDEV => Self::MountPoint { path },
            Errno::NOTEMPTY | Errno::EXIST => Self::NotEmpty { path },
            errno => Self::Failed { operation, path, source: errno.into() },
        }
    }
}

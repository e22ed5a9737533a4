//! What kind of file system a directory is on: whether files belong there, and when its writes reach the disk.

use std::fs;

use rustix::fd::AsFd;

/// When what was written to a file survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Never: the file system lives in memory. Nothing to sync.
    Volatile,
    /// A rename over an existing file starts its data's way to the disk and commits them together (ext4's
    /// `auto_da_alloc`, on by default): the file that replaces need not be synced before, only the directory after.
    FlushesOnRename,
    /// A file that replaces another must be synced before the rename.
    Synced,
}

const EXT: u32 = 0xEF53;
const TMPFS: u32 = 0x0102_1994;
const RAMFS: u32 = 0x8584_58f6;

/// File systems whose files are the kernel's switches, by the magic of `statfs(2)`.
const SPECIAL: &[(u32, &str)] = &[
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x0647_46e1, "configfs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x1cd1, "devpts"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x6165_676c, "pstore"),
    (0x1980_0202, "mqueue"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6573_5543, "fusectl"),
];

/// The name of the special file system that this magic belongs to, if it is one.
pub(crate) fn special(magic: u32) -> Option<&'static str> {
    SPECIAL.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name)
}

/// The magic of the file system that `fd` is on; 0 if it does not tell.
pub(crate) fn magic(fd: impl AsFd) -> u32 {
    rustix::fs::fstatfs(fd).map_or(0, |found| found.f_type as u32)
}

/// The durability rule of the device. Reads `/proc/self/mountinfo` for ext: its magic is shared by ext2, which
/// does not flush, and the flush can be switched off.
pub(crate) fn durability(magic: u32, device: u64) -> Durability {
    match magic {
        TMPFS | RAMFS => Durability::Volatile,
        EXT if ext_flushes(device) => Durability::FlushesOnRename,
        _ => Durability::Synced,
    }
}

fn ext_flushes(device: u64) -> bool {
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(parse_mount).any(|(found, kind, options)| {
        found == wanted
            && matches!(kind, "ext3" | "ext4")
            && !options.split(',').any(|option| matches!(option, "noauto_da_alloc" | "data=writeback"))
    })
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext4 /dev/root rw,errors=continue` (proc(5)): device, type, options.
fn parse_mount(line: &str) -> Option<(&str, &str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    Some((mount.split(' ').nth(2)?, kind.next()?, kind.nth(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_line_tells_device_type_and_options() {
        let line = "36 35 98:0 / /mnt2 rw,noatime shared:1 - ext4 /dev/root rw,noauto_da_alloc";
        assert_eq!(parse_mount(line), Some(("98:0", "ext4", "rw,noauto_da_alloc")));
    }

    #[test]
    fn proc_and_sysfs_are_special_and_the_temporary_folder_is_not() {
        assert_eq!(special(magic(fs::File::open("/proc").unwrap())), Some("proc"));
        assert_eq!(special(magic(fs::File::open("/sys").unwrap())), Some("sysfs"));
        assert_eq!(special(magic(fs::File::open("/tmp").unwrap())), None);
    }
}

//! The actions on the machine as a whole: what the kernel has now, and the file from which it has it after a restart.

mod cron;
mod kernel;
mod mount;

use crate::action::Function;
use crate::module::converge;

/// `cron.entry`.
pub(crate) static CRON_ENTRY: Function =
    Function { name: "cron.entry", perform: |given, scope| cron::perform(given, scope) };

/// `hostname.set`.
pub(crate) static HOSTNAME_SET: Function = Function {
    name: "hostname.set",
    perform: |given, scope| Ok(converge(&kernel::hostname(given, scope.host)?, scope)),
};

/// `mount.absent`.
pub(crate) static MOUNT_ABSENT: Function =
    Function { name: "mount.absent", perform: |given, scope| Ok(converge(&mount::absent(given)?, scope)) };

/// `mount.mounted`.
pub(crate) static MOUNT_MOUNTED: Function =
    Function { name: "mount.mounted", perform: |given, scope| Ok(converge(&mount::mounted(given)?, scope)) };

/// `mount.present`.
pub(crate) static MOUNT_PRESENT: Function =
    Function { name: "mount.present", perform: |given, scope| Ok(converge(&mount::present(given)?, scope)) };

/// `mount.unmounted`.
pub(crate) static MOUNT_UNMOUNTED: Function =
    Function { name: "mount.unmounted", perform: |given, scope| Ok(converge(&mount::unmounted(given)?, scope)) };

/// `sysctl.set`.
pub(crate) static SYSCTL_SET: Function =
    Function { name: "sysctl.set", perform: |given, scope| Ok(converge(&kernel::sysctl(given, scope.host)?, scope)) };

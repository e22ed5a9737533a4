//! What tasks do on a node: actions, each of which observes, finds the difference and applies exactly that, and facts.
//! Knows no Run, no cluster and no network; only `host.rs` and the files under it touch the machine.

mod account;
mod action;
mod archive;
mod artifact;
mod assertion;
mod checksum;
mod command;
mod diff;
mod event;
mod facts;
mod file;
mod git;
mod host;
mod http;
mod machine;
mod module;
mod package;
mod parameters;
mod print;
mod reboot;
mod service;
mod sleep;
mod tree;
mod variable;
mod wait;

use lockstep_apis::v1alpha::Value;

pub use action::{Action, Cancel, Diff, Done, MESSAGE_BYTES, Outcome, Scope, Stream};
pub use facts::{CUSTOM, FAULTS, fact_groups, facts};
pub use file::VALIDATED_FILE;
pub use host::{Cgroup, Host, HostError, Kind, NoCgroups, Side, Unsynced, rest};
pub use reboot::go_down;

/// Every action there is, by name.
static ACTIONS: &[&dyn Action] = &[
    &archive::UNPACKED,
    &artifact::INSTALLED,
    &assertion::That,
    &command::QUERY,
    &command::RUN,
    &command::SCRIPT,
    &machine::CRON_ENTRY,
    &print::PRINT,
    &event::RAISE,
    &facts::REFRESH,
    &file::ABSENT,
    &file::BLOCK,
    &file::CONTENT,
    &file::DIRECTORY,
    &file::LINE,
    &file::MANAGED,
    &file::REPLACED,
    &file::SYMLINK,
    &git::CHECKOUT,
    &account::GROUP_ABSENT,
    &account::GROUP_PRESENT,
    &machine::HOSTNAME_SET,
    &http::Ask,
    &machine::MOUNT_ABSENT,
    &machine::MOUNT_MOUNTED,
    &machine::MOUNT_PRESENT,
    &machine::MOUNT_UNMOUNTED,
    &package::Absent,
    &package::Held,
    &package::Installed,
    &package::Latest,
    &package::Repository,
    &package::Upgraded,
    &reboot::IF_REQUIRED,
    &reboot::NOW,
    &service::Disabled,
    &service::Enabled,
    &service::Masked,
    &service::Reloaded,
    &service::Restarted,
    &service::Running,
    &service::StoppedUnit,
    &machine::SYSCTL_SET,
    &sleep::Sleep,
    &account::USER_ABSENT,
    &account::AUTHORIZED_KEYS,
    &account::USER_PRESENT,
    &variable::Set,
    &wait::FOR,
];

/// The action of that name.
pub fn action(name: &str) -> Option<&'static dyn Action> {
    actions().find(|action| action.name() == name)
}

/// All actions, by name.
pub fn actions() -> impl Iterator<Item = &'static dyn Action> {
    ACTIONS.iter().copied()
}

/// Does another action's work as a part of one's own.
fn perform(name: &str, parameters: &Value, scope: &mut Scope<'_>) -> Done {
    action(name).expect("invariant: it is one of ACTIONS").perform(parameters, scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_sorted_and_found_by_name() {
        assert!(actions().map(Action::name).is_sorted());
        assert!(actions().all(|found| action(found.name()).is_some()));
        assert!(action("file.manged").is_none());
    }
}

//! The actions on users and groups. They compare `/etc/passwd`, `/etc/group` and `/etc/shadow` with what is wanted and
//! have the system's own programs (useradd, usermod, …) change exactly what differs. Knows no NSS: accounts of LDAP and
//! the like are not theirs.

mod group;
mod keys;
mod user;

use crate::action::{Done, Function, Scope};
use crate::command;
use crate::host::Host;
use crate::module::converge;
use crate::parameters::Parameters;

/// `group.absent`.
pub(crate) static GROUP_ABSENT: Function =
    Function { name: "group.absent", perform: |given, scope| Ok(converge(&group::AbsentGroup::read(given)?, scope)) };

/// `group.present`.
pub(crate) static GROUP_PRESENT: Function =
    Function { name: "group.present", perform: |given, scope| Ok(converge(&group::PresentGroup::read(given)?, scope)) };

/// `user.absent`.
pub(crate) static USER_ABSENT: Function =
    Function { name: "user.absent", perform: |given, scope| Ok(converge(&user::AbsentUser::read(given)?, scope)) };

/// `user.present`.
pub(crate) static USER_PRESENT: Function =
    Function { name: "user.present", perform: |given, scope| Ok(converge(&user::PresentUser::read(given)?, scope)) };

/// `user.authorizedKeys`.
pub(crate) static AUTHORIZED_KEYS: Function = Function { name: "user.authorizedKeys", perform: keys::perform };

/// A name that `useradd` takes and that no program reads as an option, a number or two fields.
fn name(from: &mut Parameters<'_>) -> String {
    let is_given = from.is_given("name");
    let name = from.required("name");
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let bytes = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.'));
    let is_name = begins && bytes && name.len() <= 32;
    if is_given && !is_name {
        from.fault(format!(
            "name {name:?} is no account's: a lower-case letter or `_`, then those, digits, `-`, `.`; at most 32"
        ));
    }
    name
}

/// A text that fits a field of passwd.
fn field(from: &mut Parameters<'_>, name: &str) -> Option<String> {
    let text = from.text(name)?;
    if text.contains([':', '\n', '\r', '\0']) {
        from.fault(format!("{name} holds a colon or a line break"));
    }
    Some(text)
}

/// A number that an account can have.
fn id(from: &mut Parameters<'_>, name: &str) -> Option<u32> {
    let number = from.integers(name).first().copied()?;
    let id = u32::try_from(number).ok().filter(|id| *id != u32::MAX);
    if id.is_none() {
        from.fault(format!("{name} is no number from 0 to 4294967294"));
    }
    id
}

/// Runs one of the system's programs on the accounts of the machine, or of the folder that stands for it.
fn run(program: &str, arguments: &[String], stdin: Option<&str>, scope: &mut Scope<'_>) -> Result<(), Done> {
    let mut argv = vec![program.to_owned()];
    argv.extend(root(scope.host));
    argv.extend_from_slice(arguments);
    command::run_tool(&argv, stdin, scope)
}

fn root(host: &Host) -> impl Iterator<Item = String> {
    let root = host.root().map(|root| root.display().to_string());
    root.into_iter().flat_map(|root| ["--root".to_owned(), root])
}

//! Users and groups by name, from `/etc/passwd` and `/etc/group`. No NSS: accounts of LDAP and the like are given by
//! number.

use std::collections::BTreeSet;

use super::HostError;

/// One line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The GECOS field.
    pub(crate) comment: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// What one line of shadow says, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shadow {
    pub(crate) name: String,
    /// The second field: a hash, with `!` before it if it is locked.
    pub(crate) password: String,
    /// The first day on which the account is of no use, counted from 1970-01-01.
    pub(crate) expires: Option<u64>,
}

impl Shadow {
    pub(crate) fn is_locked(&self) -> bool {
        self.password.starts_with('!')
    }
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The accounts of a machine, or of a folder that holds one.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
    shadows: Vec<Shadow>,
}

/// The number of the first user that is a person, as `UID_MIN` of login.defs is everywhere.
const FIRST_PERSON: u32 = 1000;

/// The number of `nobody`.
const NOBODY: u32 = 65_534;

/// The id that means "no change" to chown(2), so never an account's.
const NO_ID: u32 = u32::MAX;

impl Accounts {
    /// Reads the three files' text; lines that are malformed are passed over, as the C library does.
    pub(crate) fn parse(passwd: &str, group: &str, shadow: &str) -> Accounts {
        Accounts {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
            shadows: shadow.lines().filter_map(parse_shadow).collect(),
        }
    }

    /// Refuses users as whom nothing should run any more. System users have no login shell by nature: commands are
    /// what they are for. Of people, a shell that refuses says that the account is closed.
    pub(crate) fn check_open(&self, user: &User, today: u64) -> Result<(), HostError> {
        let name = || user.name.clone();
        let expires = self.shadow(&user.name).and_then(|shadow| shadow.expires);
        if let Some(day) = expires.filter(|day| today >= *day) {
            return Err(HostError::UserExpired { name: name(), date: super::date(day) });
        }
        let is_person = user.uid >= FIRST_PERSON && user.uid != NOBODY;
        if is_person && matches!(user.shell.rsplit('/').next(), Some("nologin" | "false")) {
            return Err(HostError::UserClosed { name: name(), shell: user.shell.clone() });
        }
        Ok(())
    }

    /// What shadow says of the user; `None` too if the file could not be read.
    pub(crate) fn shadow(&self, name: &str) -> Option<&Shadow> {
        self.shadows.iter().find(|shadow| shadow.name == name)
    }

    /// The user with this name or number.
    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        match number(name) {
            Some(uid) => self.users.iter().find(|user| user.uid == uid),
            None => self.users.iter().find(|user| user.name == name),
        }
    }

    /// The group's number.
    pub(crate) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    /// The name of the group with that number.
    pub(crate) fn group_name(&self, gid: u32) -> Option<&str> {
        self.groups.iter().find(|group| group.gid == gid).map(|group| group.name.as_str())
    }

    /// A user whose primary group has that number.
    pub(crate) fn user_of_group(&self, gid: u32) -> Option<&User> {
        self.users.iter().find(|user| user.gid == gid)
    }

    /// The groups that list the user.
    pub(crate) fn names_of_groups(&self, user: &User) -> BTreeSet<String> {
        let listed = self.groups.iter().filter(|group| group.members.contains(&user.name));
        listed.map(|group| group.name.clone()).collect()
    }

    /// The user's groups: its own, and all that list it.
    pub(crate) fn groups_of(&self, user: &User) -> Vec<u32> {
        let listed = self.groups.iter().filter(|group| group.members.contains(&user.name)).map(|group| group.gid);
        let mut gids: Vec<u32> = std::iter::once(user.gid).chain(listed).collect();
        gids.sort_unstable();
        gids.dedup();
        gids
    }
}

/// The number that `name` spells, if it spells one that an account can have.
pub(crate) fn number(name: &str) -> Option<u32> {
    if !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse().ok().filter(|id| *id != NO_ID)
}

/// The error for a user that is not there.
pub(crate) fn no_user(name: &str) -> HostError {
    HostError::NoSuchUser { name: name.to_owned() }
}

/// The error for a group that is not there.
pub(crate) fn no_group(name: &str) -> HostError {
    HostError::NoSuchGroup { name: name.to_owned() }
}

fn parse_user(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, comment, home, shell] = fields[..] else { return None };
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        comment: comment.to_owned(),
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
}

/// shadow(5): name, password, last change, least age, most age, warning, inactivity, expiry, reserved.
fn parse_shadow(line: &str) -> Option<Shadow> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, password, _, _, _, _, _, expires, _] = fields[..] else { return None };
    // 0 is no day, as the C library and pam_unix read it.
    let expires = expires.parse().ok().filter(|day| *day > 0);
    Some(Shadow { name: name.to_owned(), password: password.to_owned(), expires })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
    Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_memberships_are_found() {
        let accounts = Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\n+nis\nweb:x:33:34::/var/www:\n",
            "www:x:34:\nadm:x:4:syslog,web\nother:x:9:webmaster\n",
            "",
        );
        let web = accounts.user("web").unwrap();
        assert_eq!((web.uid, web.shell.as_str()), (33, "/bin/sh"));
        assert_eq!(accounts.groups_of(web), [4, 34]);
        assert_eq!(accounts.user("33"), Some(web));
        assert_eq!(accounts.gid("adm"), Some(4));
        assert!(accounts.user("nobody").is_none());
        assert_eq!(number("4294967295"), None);
        assert_eq!(number("-1"), None);
    }

    #[test]
    fn nobody_runs_as_a_user_that_expired_or_was_closed() {
        let accounts = Accounts::parse(
            "web:x:33:33::/:/usr/sbin/nologin\nann:x:1000:1000::/:/bin/bash\nbob:x:1001:1001::/:/usr/sbin/nologin\n\
             eve:x:1002:1002::/:/bin/false\nold:x:34:34::/:/bin/sh\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
            "",
            "ann:$y$x:1::::::\nold:!:1:::::100:\nweb:*:1:::::0:\nbad:!:1:\n",
        );
        let reason = |name: &str, today: u64| {
            let user = accounts.user(name).unwrap();
            accounts.check_open(user, today).map_err(|error| error.reason())
        };
        for (name, expected) in [
            ("web", Ok(())),
            ("ann", Ok(())),
            ("nobody", Ok(())),
            ("bob", Err("UserClosed")),
            ("eve", Err("UserClosed")),
        ] {
            assert_eq!(reason(name, 20_000), expected, "{name}");
        }
        assert_eq!((reason("old", 99), reason("old", 100)), (Ok(()), Err("UserExpired")));
    }
}

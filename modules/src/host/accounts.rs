//! Users and groups by name, from `/etc/passwd` and `/etc/group`. No NSS: accounts of LDAP and the like are given by
//! number.

use super::HostError;

/// One line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
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
}

/// The id that means "no change" to chown(2), so never an account's.
const NO_ID: u32 = u32::MAX;

impl Accounts {
    /// Reads the two files' text; lines that are malformed are passed over, as the C library does.
    pub(crate) fn parse(passwd: &str, group: &str) -> Accounts {
        Accounts {
            users: passwd.lines().filter_map(parse_user).collect(),
            groups: group.lines().filter_map(parse_group).collect(),
        }
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
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    let shell = if shell.is_empty() { "/bin/sh" } else { shell };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.to_owned(),
        shell: shell.to_owned(),
    })
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
}

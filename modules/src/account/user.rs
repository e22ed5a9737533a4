//! `user.present` and `user.absent`.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::Value;

use super::{field, id, name, run};
use crate::action::{Done, Scope};
use crate::host::{Accounts, Host, HostError, Shadow, User, date, days};
use crate::module::{Module, Refusal};
use crate::parameters::Parameters;

/// A user that should be there. What is `None` is left as it is.
#[derive(Debug)]
pub(super) struct PresentUser {
    name: String,
    uid: Option<u32>,
    group: Option<String>,
    groups: Option<BTreeSet<String>>,
    exact_groups: bool,
    comment: Option<String>,
    home: Option<String>,
    create_home: Option<bool>,
    shell: Option<String>,
    system: bool,
    /// A hash; never shown, and in no argument list.
    password: Option<Secret>,
    locked: Option<bool>,
    expires: Option<Expiry>,
}

/// A text that `Debug` does not show.
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// When an account ends: the first day it is no longer of use, counted from 1970-01-01. `None` is never.
type Expiry = Option<u64>;

impl PresentUser {
    pub(super) fn read(parameters: &Value) -> Result<PresentUser, Done> {
        let mut from = Parameters::new(parameters, Some("name"));
        let is_given = |from: &Parameters<'_>, name: &str| from.is_given(name);
        let (groups, create, locked) =
            (is_given(&from, "groups"), is_given(&from, "createHome"), is_given(&from, "locked"));
        let wanted = PresentUser {
            name: name(&mut from),
            uid: id(&mut from, "uid"),
            group: from.text("group").filter(|group| !group.is_empty()),
            groups: groups.then(|| from.texts("groups").into_iter().collect()),
            exact_groups: from.flag("exactGroups"),
            comment: field(&mut from, "comment"),
            home: path(&mut from, "home"),
            create_home: create.then(|| from.flag("createHome")),
            shell: path(&mut from, "shell"),
            system: from.flag("system"),
            password: password(&mut from),
            locked: locked.then(|| from.flag("locked")),
            expires: expiry(&mut from),
        };
        if wanted.exact_groups && wanted.groups.is_none() {
            from.fault("exactGroups needs groups");
        }
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(wanted)
    }
}

fn path(from: &mut Parameters<'_>, name: &str) -> Option<String> {
    let path = field(from, name).filter(|path| !path.is_empty());
    if path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        from.fault(format!("{name} is no absolute path"));
    }
    path
}

fn password(from: &mut Parameters<'_>) -> Option<Secret> {
    let hash = from.text("password")?;
    let is_hash = hash.starts_with('$') && hash.split('$').count() >= 4;
    if !is_hash || hash.contains(|c: char| c == ':' || !c.is_ascii_graphic()) {
        // Not echoed: whatever it is, it was meant to be secret.
        from.fault("password is no hash as crypt(5) has them, like $y$…; a plain password is not taken");
    }
    Some(Secret(hash))
}

fn expiry(from: &mut Parameters<'_>) -> Option<Expiry> {
    let text = from.text("expires").filter(|text| !text.is_empty())?;
    let day = days(&text);
    if day.is_none() && text != "never" {
        from.fault(format!("expires {text:?} is neither a date, as in 2027-01-31, nor never"));
    }
    Some(day)
}

/// A user and what is known of it.
pub(super) struct Observed {
    accounts: Accounts,
    user: Option<User>,
}

/// What has to be done.
#[derive(Debug, Default)]
pub(super) struct Change {
    creates: bool,
    /// What differs, for people.
    words: Vec<String>,
    arguments: Vec<String>,
    /// The new second field of shadow.
    password: Option<Secret>,
}

impl Change {
    fn set(&mut self, option: &str, value: impl Into<String>, word: String) {
        self.arguments.extend([option.to_owned(), value.into()]);
        self.words.push(word);
    }
}

impl PresentUser {
    /// The number of the primary group, and that all groups are there.
    fn check_groups(&self, accounts: &Accounts) -> Result<Option<u32>, HostError> {
        let missing = self.groups.iter().flatten().find(|group| accounts.gid(group).is_none());
        if let Some(missing) = missing {
            return Err(HostError::NoSuchGroup { name: missing.clone() });
        }
        let gid = |group: &String| {
            let number = group.parse().ok().filter(|gid| accounts.group_name(*gid).is_some());
            accounts.gid(group).or(number).ok_or_else(|| HostError::NoSuchGroup { name: group.clone() })
        };
        self.group.as_ref().map(gid).transpose()
    }

    fn creation(&self, accounts: &Accounts) -> Result<Change, Refusal> {
        let mut change = Change { creates: true, words: vec!["created".to_owned()], ..Change::default() };
        let mut add = |option: &str, value: Option<String>| {
            if let Some(value) = value {
                change.arguments.extend([option.to_owned(), value]);
            }
        };
        // A group of the user's name that is there already is its own; useradd would stop at it.
        let own = accounts.gid(&self.name).map(|gid| gid.to_string());
        add("--uid", self.uid.map(|uid| uid.to_string()));
        add("--gid", self.check_groups(accounts)?.map(|gid| gid.to_string()).or(own));
        let groups = self.groups.as_ref().filter(|groups| !groups.is_empty());
        add("--groups", groups.map(|groups| groups.iter().cloned().collect::<Vec<_>>().join(",")));
        add("--comment", self.comment.clone());
        add("--home-dir", self.home.clone());
        add("--shell", self.shell.clone());
        add("--expiredate", self.expires.flatten().map(|days| days.to_string()));
        if self.system {
            change.arguments.push("--system".to_owned());
        }
        let creates_home = self.create_home.unwrap_or(!self.system);
        change.arguments.push(if creates_home { "--create-home" } else { "--no-create-home" }.to_owned());
        let locked = if self.locked == Some(true) { "!" } else { "" };
        change.password = self.password.as_ref().map(|hash| Secret(format!("{locked}{}", hash.0)));
        Ok(change)
    }

    fn modification(&self, accounts: &Accounts, user: &User) -> Result<Change, Refusal> {
        let mut change = Change::default();
        if let Some(uid) = self.uid.filter(|uid| *uid != user.uid) {
            change.set("--uid", uid.to_string(), format!("uid {} → {uid}", user.uid));
        }
        if let Some(gid) = self.check_groups(accounts)?.filter(|gid| *gid != user.gid) {
            change.set("--gid", gid.to_string(), format!("gid {} → {gid}", user.gid));
        }
        self.compare_groups(accounts, user, &mut change);
        for (option, name, wanted, found) in [
            ("--comment", "comment", &self.comment, &user.comment),
            ("--home", "home", &self.home, &user.home),
            ("--shell", "shell", &self.shell, &user.shell),
        ] {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                change.set(option, wanted, format!("{name} {found} → {wanted}"));
            }
        }
        self.compare_shadow(accounts, user, &mut change)?;
        Ok(change)
    }

    fn compare_groups(&self, accounts: &Accounts, user: &User, change: &mut Change) {
        let Some(wanted) = &self.groups else { return };
        let found = accounts.names_of_groups(user);
        let dropped: Vec<&String> = found.difference(wanted).filter(|_| self.exact_groups).collect();
        let added: Vec<&String> = wanted.difference(&found).collect();
        if added.is_empty() && dropped.is_empty() {
            return;
        }
        let words: Vec<String> = added
            .iter()
            .map(|group| format!("+{group}"))
            .chain(dropped.iter().map(|group| format!("-{group}")))
            .collect();
        let all: BTreeSet<&String> =
            wanted.iter().chain(found.iter().filter(|group| !dropped.contains(group))).collect();
        let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        change.set("--groups", all.join(","), format!("groups {}", words.join(" ")));
    }

    fn compare_shadow(&self, accounts: &Accounts, user: &User, change: &mut Change) -> Result<(), Refusal> {
        if self.password.is_none() && self.locked.is_none() && self.expires.is_none() {
            return Ok(());
        }
        let Some(shadow) = accounts.shadow(&user.name) else {
            let message = format!("{} has no line in /etc/shadow, or it cannot be read", user.name);
            return Err(Refusal::Module { reason: "NoShadow", message });
        };
        if let Some(wanted) = self.expires.filter(|wanted| *wanted != shadow.expires) {
            let shown = |day: Expiry| day.map_or_else(|| "never".to_owned(), date);
            let days = wanted.map(|days| days.to_string()).unwrap_or_default();
            change.set("--expiredate", days, format!("expires {} → {}", shown(shadow.expires), shown(wanted)));
        }
        let field = self.password_field(shadow)?;
        if field != shadow.password {
            let (was, is) = (shadow.is_locked(), field.starts_with('!'));
            if field.trim_start_matches('!') != shadow.password.trim_start_matches('!') {
                change.words.push("password".to_owned());
            }
            if was != is {
                change.words.push(if is { "locked" } else { "unlocked" }.to_owned());
            }
            change.password = Some(Secret(field));
        }
        Ok(())
    }

    /// What the second field of shadow should be. An account that is locked stays so if the book does not say.
    fn password_field(&self, shadow: &Shadow) -> Result<String, Refusal> {
        let found = shadow.password.trim_start_matches('!');
        let hash = self.password.as_ref().map_or(found, |hash| &hash.0);
        let has_hash = hash.starts_with('$') || hash.len() >= 13;
        match self.locked {
            Some(true) if shadow.is_locked() && hash == found => Ok(shadow.password.clone()),
            Some(true) => Ok(format!("!{hash}")),
            Some(false) if !has_hash && shadow.is_locked() => {
                let message = format!("{} has no password to unlock it with; give one", self.name);
                Err(Refusal::Module { reason: "NoPassword", message })
            }
            None if self.password.is_none() || hash == found => Ok(shadow.password.clone()),
            // `!` before a hash is a lock; alone it only says that there is no password yet.
            None if shadow.is_locked() && found.len() > 1 => Ok(format!("!{hash}")),
            _ => Ok(hash.to_owned()),
        }
    }
}

impl Module for PresentUser {
    type Observed = Observed;
    type Change = Change;

    fn path(&self) -> &str {
        &self.name
    }

    fn key(&self) -> &'static str {
        "name"
    }

    fn observe(&self, host: &Host) -> Result<Observed, Refusal> {
        let accounts = host.read_accounts()?;
        let user = accounts.user(&self.name).cloned();
        Ok(Observed { accounts, user })
    }

    fn difference(&self, _host: &Host, observed: &Observed) -> Result<Option<Change>, Refusal> {
        let Observed { accounts, user } = observed;
        let other = self.uid.and_then(|uid| accounts.user(&uid.to_string())).filter(|other| other.name != self.name);
        if let Some(other) = other {
            let message = format!("the number {} is that of the user {}", other.uid, other.name);
            return Err(Refusal::Module { reason: "IdTaken", message });
        }
        let change = match user {
            None => self.creation(accounts)?,
            Some(user) => self.modification(accounts, user)?,
        };
        Ok((!change.words.is_empty()).then_some(change))
    }

    fn summary(&self, _observed: &Observed, change: &Change) -> String {
        change.words.join(", ")
    }

    fn show(&self, _host: &Host, _observed: &Observed, change: &Change, _sensitive: bool) -> String {
        change.words.iter().map(|word| format!("user {}: {word}\n", self.name)).collect()
    }

    fn apply(&self, _observed: Observed, change: Change, scope: &mut Scope<'_>) -> Result<(), Done> {
        let mut arguments = change.arguments;
        if change.creates || !arguments.is_empty() {
            arguments.push(self.name.clone());
            run(if change.creates { "useradd" } else { "usermod" }, &arguments, None, scope)?;
        }
        match change.password {
            Some(field) => {
                let line = format!("{}:{}\n", self.name, field.0);
                run("chpasswd", &["--encrypted".to_owned()], Some(&line), scope)
            }
            None => Ok(()),
        }
    }
}

/// A user that should not be there.
#[derive(Debug)]
pub(super) struct AbsentUser {
    name: String,
    remove_home: bool,
}

impl AbsentUser {
    pub(super) fn read(parameters: &Value) -> Result<AbsentUser, Done> {
        let mut from = Parameters::new(parameters, Some("name"));
        let wanted = AbsentUser { name: name(&mut from), remove_home: from.flag("removeHome") };
        from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
        Ok(wanted)
    }
}

impl Module for AbsentUser {
    type Observed = Option<User>;
    type Change = ();

    fn path(&self) -> &str {
        &self.name
    }

    fn key(&self) -> &'static str {
        "name"
    }

    fn observe(&self, host: &Host) -> Result<Self::Observed, Refusal> {
        Ok(host.read_accounts()?.user(&self.name).cloned())
    }

    fn difference(&self, host: &Host, user: &Self::Observed) -> Result<Option<()>, Refusal> {
        let Some(user) = user else { return Ok(None) };
        if user.uid == 0 {
            let message = format!("{} has the number 0; the system needs it", user.name);
            return Err(Refusal::Module { reason: "Vital", message });
        }
        if self.remove_home {
            check_home(host, user)?;
        }
        Ok(Some(()))
    }

    fn summary(&self, user: &Self::Observed, (): &()) -> String {
        match user {
            Some(user) if self.remove_home => format!("removed, with {}", user.home),
            _ => "removed".to_owned(),
        }
    }

    fn show(&self, _host: &Host, user: &Self::Observed, (): &(), _sensitive: bool) -> String {
        format!("user {}: {}\n", self.name, self.summary(user, &()))
    }

    fn apply(&self, _user: Self::Observed, (): (), scope: &mut Scope<'_>) -> Result<(), Done> {
        let mut arguments = Vec::new();
        if self.remove_home {
            arguments.push("--remove".to_owned());
        }
        arguments.push(self.name.clone());
        run("userdel", &arguments, None, scope)
    }
}

/// Refuses a home that the system needs, or that is another's: `userdel` finds that out when the user is gone already.
fn check_home(host: &Host, user: &User) -> Result<(), Refusal> {
    let place = match host.place(&user.home, false) {
        Err(HostError::ParentMissing { .. }) => return Ok(()),
        place => place?,
    };
    host.check_removable(&place)?;
    match place.look()? {
        Some(seen) if seen.uid != user.uid => {
            let message = format!("{} is not owned by {}; it is not removed with the user", user.home, user.name);
            Err(Refusal::Module { reason: "HomeNotOwned", message })
        }
        _ => Ok(()),
    }
}

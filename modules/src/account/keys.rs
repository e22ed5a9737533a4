//! `user.authorizedKeys`: the keys with which a user may log in over ssh, in `~/.ssh/authorized_keys`. A key is told by
//! its type and its base64; options before it and the comment behind it are the book's.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lockstep_apis::v1alpha::{UserAuthorizedKeys, Value};

use crate::action::{Done, Outcome, Scope};
use crate::file::{Edit, FileState, Lines, Nothing};
use crate::host::{HostError, User};
use crate::module::{Refusal, converge};
use crate::parameters::decoded;

/// Mode of `.ssh`, if it is made.
const DIRECTORY_MODE: &str = "0700";
/// Mode of the file.
const FILE_MODE: u32 = 0o600;

/// Does `user.authorizedKeys`.
pub(super) fn perform(given: &Value, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let wanted: UserAuthorizedKeys = decoded("user.authorizedKeys", given)?;
    let keys = Keys::read(&wanted).map_err(|fault| Done::failed("InvalidParameters", fault))?;
    let user = user(&wanted.name, scope)?;
    let home = user.home.trim_end_matches('/').to_owned();
    if home.is_empty() {
        let message = format!("the home of {} is {:?}; no keys are kept there", user.name, user.home);
        return Err(Done::failed("NoHome", message));
    }
    let directory = format!("{home}/.ssh");
    let made = match keys.without_file() {
        // Nobody has to make a directory for keys that should not be there.
        Nothing::Done => Done::new(Outcome::Ok, "", []),
        _ => make(&directory, &user, scope),
    };
    if !matches!(made.outcome, Outcome::Ok | Outcome::Changed) {
        return Err(made);
    }
    let path = format!("{directory}/authorized_keys");
    let file = FileState::edited(path, keys).with(Some(FILE_MODE), Some(user.uid), Some(user.gid));
    Ok(converge(&file, scope))
}

/// The user, from the passwd of the machine.
fn user(name: &str, scope: &Scope<'_>) -> Result<User, Done> {
    let missing = || HostError::NoSuchUser { name: name.to_owned() };
    let found = scope.host.read_accounts().and_then(|accounts| accounts.user(name).cloned().ok_or_else(missing));
    found.map_err(|error| if scope.check && error.is_something_missing() { error.unpredicted() } else { error.into() })
}

fn make(directory: &str, user: &User, scope: &mut Scope<'_>) -> Done {
    // One that is there keeps its mode: sshd itself says which it takes.
    match scope.host.exists(directory) {
        Ok(true) => return Done::new(Outcome::Ok, "", []),
        Ok(false) => {}
        Err(error) => return error.into(),
    }
    let parameters = Value::map([
        ("path", Value::text(directory)),
        ("mode", Value::text(DIRECTORY_MODE)),
        ("owner", i64::from(user.uid).into()),
        ("group", i64::from(user.gid).into()),
    ]);
    crate::perform("file.directory", &parameters, scope)
}

/// The lines that should be there, or should not.
#[derive(Debug)]
struct Keys {
    /// By what tells a key, in the order of the book.
    lines: Vec<(String, String)>,
    absent: bool,
    exact: bool,
}

impl Keys {
    fn read(wanted: &UserAuthorizedKeys) -> Result<Keys, String> {
        let mut known = BTreeMap::new();
        let mut lines = Vec::new();
        for (nth, line) in wanted.keys.iter().enumerate() {
            let line = line.trim();
            let Some(key) = key_of(line) else {
                return Err(format!(
                    "keys[{nth}] is no line of authorized_keys: a type, base64 and a comment, as ssh-keygen writes it"
                ));
            };
            match known.insert(key.clone(), line) {
                None => lines.push((key, line.to_owned())),
                Some(other) if other == line => {}
                Some(_) => return Err(format!("keys[{nth}] is there twice, with other options or another comment")),
            }
        }
        if wanted.absent && wanted.exact {
            return Err("absent and exact exclude each other".to_owned());
        }
        Ok(Keys { lines, absent: wanted.absent, exact: wanted.exact })
    }
}

impl Edit for Keys {
    fn edit(&self, _path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut lines = Lines::of(old);
        let mut surplus = Vec::new();
        let mut missing: Vec<&(String, String)> = if self.absent { Vec::new() } else { self.lines.iter().collect() };
        let texts: Vec<&[u8]> = lines.texts(0, lines.len()).collect();
        for (at, text) in texts.into_iter().enumerate() {
            let Some(key) = std::str::from_utf8(text).ok().and_then(key_of) else {
                // Comments stay; what sshd cannot read lets nobody in.
                continue;
            };
            let wanted = self.lines.iter().find(|(known, _)| *known == key);
            match wanted {
                Some(_) if self.absent => surplus.push(at),
                None if self.exact => surplus.push(at),
                None => {}
                Some((key, line)) => match missing.iter().position(|(known, _)| known == key) {
                    Some(nth) => {
                        missing.remove(nth);
                        if text != line.as_bytes() {
                            lines.replace(at, line.as_bytes());
                        }
                    }
                    // The same key again, perhaps with other rights.
                    None => surplus.push(at),
                },
            }
        }
        let end = lines.len();
        lines.splice(end, end, missing.iter().map(|(_, line)| line.as_bytes()));
        lines.remove(surplus);
        Ok(lines.bytes())
    }

    fn without_file(&self) -> Nothing {
        if self.absent || self.lines.is_empty() { Nothing::Done } else { Nothing::Empty }
    }
}

/// What tells the key of a line: its type and base64. `None`: there is no key in it.
fn key_of(line: &str) -> Option<String> {
    if line.starts_with('#') || line.contains(|c: char| c.is_control() && c != '\t') {
        return None;
    }
    let words: Vec<&str> = words(line)?;
    let at = words.iter().take(2).position(|word| is_type(word))?;
    let (kind, base64) = (words[at], words.get(at + 1)?);
    let blob = STANDARD.decode(base64).ok()?;
    // The blob begins with its type, after four bytes of length: what says another one is no key.
    let length = u32::try_from(kind.len()).ok()?.to_be_bytes();
    blob.strip_prefix(&length)?.strip_prefix(kind.as_bytes())?;
    Some(format!("{kind} {base64}"))
}

fn is_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|begin| word.starts_with(begin))
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.@".contains(&b))
}

/// The words of a line; blanks in quotes, as options may hold them, part none. `None`: a quote is open.
fn words(line: &str) -> Option<Vec<&str>> {
    let (mut words, mut begin, mut quoted, mut escaped) = (Vec::new(), None, false, false);
    for (at, c) in line.char_indices() {
        match c {
            ' ' | '\t' if !quoted => words.extend(begin.take().map(|begin| &line[begin..at])),
            // A comment may hold whatever it likes.
            '"' if !escaped && words.len() < 2 => quoted = !quoted,
            _ => {}
        }
        if begin.is_none() && (quoted || !matches!(c, ' ' | '\t')) {
            begin = Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    words.extend(begin.map(|begin| &line[begin..]));
    (!quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
    const BOB: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC";

    fn keys(lines: &[&str], absent: bool, exact: bool) -> Keys {
        let keys = lines.iter().map(|line| (*line).to_owned()).collect();
        Keys::read(&UserAuthorizedKeys { name: "ann".into(), keys, absent, exact }).unwrap()
    }

    fn edited(keys: &Keys, old: &str) -> String {
        let once = keys.edit("", old.as_bytes()).unwrap();
        assert_eq!(keys.edit("", &once).unwrap(), once, "a second edit changes nothing");
        String::from_utf8(once).unwrap()
    }

    #[test]
    fn a_key_is_told_by_type_and_base64() {
        for line in [
            ANN.to_owned(),
            format!("{ANN} ann@home"),
            format!("no-pty,command=\"echo \\\"a b\\\"\" {ANN} ann \"s key"),
            format!("\t{ANN}"),
        ] {
            assert_eq!(key_of(&line).as_deref(), Some(ANN), "{line}");
        }
        for line in
            ["", "# ssh", "ssh-ed25519", "ssh-ed25519 !!", "ssh-rsa AAAAC3NzaC1lZDI1NTE5", "command=\"a ssh-rsa"]
        {
            assert_eq!(key_of(line), None, "{line}");
        }
    }

    #[test]
    fn keys_are_added_replaced_and_left() {
        let wanted = format!("no-pty {ANN} ann");
        let keys = keys(&[&wanted], false, false);
        assert_eq!(edited(&keys, ""), format!("{wanted}\n"));
        assert_eq!(edited(&keys, &format!("# team\n{BOB} bob")), format!("# team\n{BOB} bob\n{wanted}\n"));
        assert_eq!(edited(&keys, &format!("{ANN} old\n{BOB}\n{ANN} again\n")), format!("{wanted}\n{BOB}\n"));
    }

    #[test]
    fn exact_and_absent_take_keys_out() {
        let old = format!("# team\n{ANN} ann\n{BOB} bob\nnonsense\n");
        assert_eq!(edited(&keys(&[ANN], false, true), &old), format!("# team\n{ANN}\nnonsense\n"));
        assert_eq!(edited(&keys(&[], false, true), &old), "# team\nnonsense\n");
        assert_eq!(edited(&keys(&[BOB], true, false), &old), format!("# team\n{ANN} ann\nnonsense\n"));
        assert_eq!(keys(&[BOB], true, false).without_file(), Nothing::Done);
    }

    #[test]
    fn what_is_no_key_is_named() {
        let read = |lines: &[&str], absent, exact| {
            let keys = lines.iter().map(|line| (*line).to_owned()).collect();
            Keys::read(&UserAuthorizedKeys { name: "ann".into(), keys, absent, exact })
        };
        assert!(read(&[ANN, "AAAA"], false, false).unwrap_err().contains("keys[1]"));
        assert!(read(&[ANN, &format!("{ANN} other")], false, false).is_err());
        assert!(read(&[ANN], true, true).is_err());
        assert!(read(&[&format!("{ANN}\n{BOB}")], false, false).is_err());
    }
}

//! `cron.entry`: a file of its own in `/etc/cron.d`, which cron reads without being told.

use lockstep_apis::v1alpha::Value;

use crate::action::{Done, Scope};
use crate::file::{AbsentPath, FileState};
use crate::module::converge;
use crate::parameters::Parameters;

/// Only its owner reads it: commands hold what is nobody's business, and cron reads as root.
const MODE: u32 = 0o600;

/// What a book asks for; `None` if it should be gone.
struct Entry {
    path: String,
    content: Option<String>,
}

/// Does `cron.entry`.
pub(super) fn perform(parameters: &Value, scope: &mut Scope<'_>) -> Result<Done, Done> {
    let (entry, user) = read(parameters)?;
    match entry.content {
        None => Ok(converge(&AbsentPath::at(entry.path), scope)),
        Some(content) => {
            // Cron passes over the entry of a user that is not there, and says so only in its log.
            let owner = scope.host.uid(&user);
            if let Err(error) = owner {
                return Err(if scope.check { error.unpredicted() } else { error.into() });
            }
            Ok(converge(&FileState::whole(entry.path, content).with(Some(MODE), Some(0), Some(0)), scope))
        }
    }
}

fn read(parameters: &Value) -> Result<(Entry, String), Done> {
    let mut from = Parameters::new(parameters, None);
    let name = from.required("name");
    let absent = from.flag("absent");
    // As run-parts and cron take them: a dot would have cron pass over it.
    if name.is_empty() || name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        from.fault(format!("name {name:?} is no file that cron reads: letters, digits, `_` and `-`"));
    }
    let (schedule, command) = (from.text("schedule"), from.text("command"));
    let user = from.text("user").filter(|user| !user.is_empty()).unwrap_or_else(|| "root".to_owned());
    let environment = environment(&mut from);
    let content = (!absent).then(|| {
        let schedule = schedule.unwrap_or_default();
        if let Err(why) = lockstep_apis::cron::check(&schedule) {
            from.fault(format!("schedule {schedule:?} {why}"));
        }
        let command = command.unwrap_or_default();
        if command.trim().is_empty() || command.contains(['\n', '\r', '\0']) {
            from.fault("command is empty or holds a line break");
        }
        if user.contains(|c: char| c.is_whitespace() || c == ':' || c.is_control()) {
            from.fault(format!("user {user:?} is no name"));
        }
        // What follows a bare `%` would be the command's input.
        let command = command.replace('%', "\\%");
        format!("# Written by lockstep: cron.entry {name}\n{environment}{schedule} {user} {command}\n")
    });
    from.finish().map_err(|faults| Done::failed("InvalidParameters", faults))?;
    Ok((Entry { path: format!("/etc/cron.d/{name}"), content }, user))
}

/// Lines `NAME="value"`, as crontab(5) has them: quotes have no escapes.
fn environment(from: &mut Parameters<'_>) -> String {
    let mut lines = String::new();
    let Some(given) = from.value("environment") else { return lines };
    let Some(map) = given.as_map() else {
        from.fault("environment is no map");
        return lines;
    };
    for (name, value) in map {
        let text = value.as_text().map(str::to_owned).or_else(|| value.as_integer().map(|number| number.to_string()));
        let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        match text.filter(|text| good && !text.contains(['\n', '\r', '\0'])) {
            Some(text) if !text.contains('"') => lines.push_str(&format!("{name}=\"{text}\"\n")),
            Some(text) if !text.contains('\'') => lines.push_str(&format!("{name}='{text}'\n")),
            _ => from.fault(format!("environment.{name} cannot be written in a crontab")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_crontab_says_and_no_more() {
        let given = Value::map([
            ("name", "backup".into()),
            ("schedule", "0 3 * * *".into()),
            ("command", "date +%F".into()),
            ("environment", Value::map([("A", Value::text("x y")), ("B", Value::text("say \"hi\""))])),
        ]);
        let (entry, user) = read(&given).unwrap();
        assert_eq!((entry.path.as_str(), user.as_str()), ("/etc/cron.d/backup", "root"));
        let expected =
            "# Written by lockstep: cron.entry backup\nA=\"x y\"\nB='say \"hi\"'\n0 3 * * * root date +\\%F\n";
        assert_eq!(entry.content.as_deref(), Some(expected));
    }

    #[test]
    fn what_would_be_another_line_or_is_passed_over_is_refused() {
        for (name, value) in [
            ("name", "a.b"),
            ("name", "../x"),
            ("schedule", "61 * * * *"),
            ("command", "a\n* * * * * root rm -rf /"),
            ("command", " "),
            ("user", "root root"),
        ] {
            let mut given: std::collections::BTreeMap<&str, Value> =
                [("name", "a".into()), ("schedule", "@daily".into()), ("command", "true".into())].into();
            given.insert(name, value.into());
            assert!(read(&Value::map(given)).is_err(), "{name}: {value}");
        }
    }
}

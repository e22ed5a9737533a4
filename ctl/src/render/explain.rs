//! A topic as text.

use super::screen::{Screen, wrap};
use lockstep_apis::explain::{Member, Topic};
use std::fmt::Write;

/// Names longer than this do not push the others to the right.
const NAME_COLUMNS: usize = 24;

/// What `lockstep explain` prints.
pub(crate) fn topic(topic: &Topic, screen: Screen) -> String {
    let mut out = String::new();
    if !topic.path.is_empty() {
        let holds = if topic.holds.is_empty() { String::new() } else { format!("  {}", topic.holds) };
        let _ = writeln!(out, "{}{holds}", screen.bold(&topic.path));
        out.push_str(&wrap(&topic.text, 2, screen.width));
        for note in &topic.notes {
            out.push_str(&wrap(note, 2, screen.width));
        }
        if !topic.example.is_empty() {
            let _ = writeln!(out, "\n{}", screen.bold("example:"));
            topic.example.lines().for_each(|line| out.extend(["  ", line, "\n"]));
        }
    }
    if topic.members.is_empty() {
        return out;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{}", screen.bold(&format!("{}:", topic.heading)));
    let longest = topic.members.iter().map(|member| member.name.chars().count()).max().unwrap_or(0);
    let column = longest.min(NAME_COLUMNS) + 4;
    for member in &topic.members {
        out.push_str(&line(member, column, screen));
    }
    out
}

/// The name, and behind it what it holds, its rules and its sentence.
fn line(member: &Member, column: usize, screen: Screen) -> String {
    let name = screen.bold(&member.name);
    let short: Vec<&str> = std::iter::once(member.holds.as_str())
        .chain(member.notes.iter().map(String::as_str))
        .filter(|part| !part.is_empty())
        .collect();
    let text = wrap(&short.join("; "), column, screen.width) + &wrap(&member.text, column, screen.width);
    let length = member.name.chars().count() + 2;
    if text.is_empty() {
        return format!("  {name}\n");
    }
    match length < column {
        // The first line of the text begins with as many spaces as the name may take.
        true => format!("  {name}{}", &text[length..]),
        false => format!("  {name}\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::explain;

    #[test]
    fn a_field_of_an_enum_type_is_told_in_a_few_lines() {
        let told = topic(&explain::topic("book.spec.runOptions.onFailure").unwrap(), Screen::plain());
        assert_eq!(
            told,
            "TaskBook.spec.runOptions.onFailure  StopNow | FinishWindow\n  \
             For books without `serialize`, too.\n\n\
             words:\n  \
             StopNow       The gate closes at the first failure that exceeds the limit.\n  \
             FinishWindow  Judged when the window is done.\n"
        );
    }

    #[test]
    fn members_stand_in_one_column_and_within_the_width() {
        let told = topic(&explain::topic("file.managed").unwrap(), Screen::plain());
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 100), "{told}");
        assert!(lines.contains(&"  path      absolute path; required"), "{told}");
        assert!(!told.contains('\x1b'));
    }
}

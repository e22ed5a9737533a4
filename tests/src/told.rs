//! What a Run said of its tasks, read from what `lockstep` prints: the same for a check and for the run behind it, so
//! that the two can be held against each other. Knows the printed forms; not how they come about.

use anyhow::{Result, ensure};

/// Words that a task's line begins with.
const WORDS: [&str; 8] = ["Ok", "Changed", "Failed", "Ignored", "Skipped", "Cancelled", "Interrupted", "Unpredicted"];

/// Each task on each node with its outcome, in order.
#[derive(Debug, PartialEq)]
pub struct Told(Vec<(String, String)>);

impl Told {
    /// Reads what `run --local` prints, or the nodes of `describe run`.
    pub fn read(text: &str) -> Result<Told> {
        let mut told = Vec::new();
        // Nodes to which the same happened are told together; three are written out.
        let mut alike = vec![String::new()];
        // In front of the nodes, `describe` has the object.
        let nodes = text.split_once("\nnodes:\n").map_or(text, |(_, nodes)| nodes);
        for line in nodes.lines() {
            let indent = line.len() - line.trim_start().len();
            let mut words = line.split_whitespace().filter(|word| *word != "≤");
            let first = words.next().unwrap_or_default();
            if indent == 2 {
                let names = line.split_whitespace().take_while(|word| !word.starts_with(char::is_uppercase));
                alike = names.map(|name| format!("{name}: ")).collect();
                ensure!(alike.iter().all(|node| !node.contains('[')), "more nodes than are written out: {line}");
            } else if WORDS.contains(&first) {
                // Behind the outcome stands how long it took, `12 ms`, and then the task.
                let task = words.skip(2).collect::<Vec<_>>().join(" ");
                let task = task.split_once(": ").map_or(task.as_str(), |(task, _)| task);
                let task = task.split_once(" (").map_or(task, |(task, _)| task);
                // A check waits at no gate.
                if task != "health gate" {
                    told.extend(alike.iter().map(|node| (format!("{node}{task}"), first.to_owned())));
                }
            }
        }
        ensure!(!told.is_empty(), "nothing is told of any task:\n{text}");
        Ok(Told(told))
    }

    /// Whether a check said what the run behind it then did. What it called Unpredicted may have gone either way.
    pub fn holds_against(&self, run: &Told) -> Result<()> {
        let (mut before, mut wrong) = (self.0.clone(), Vec::new());
        for (task, did) in &run.0 {
            match before.iter().position(|(theirs, _)| theirs == task).map(|at| before.remove(at).1) {
                Some(said) if said == *did || said == "Unpredicted" => {}
                Some(said) => wrong.push(format!("{task}: said {said}, did {did}")),
                None => wrong.push(format!("{task}: said nothing, did {did}")),
            }
        }
        wrong.extend(
            before.iter().filter(|(_, said)| said != "Unpredicted").map(|(t, said)| format!("{t}: only said {said}")),
        );
        ensure!(wrong.is_empty(), "the check is not what the run does:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Whether any task changed, or would change, something.
    pub fn changes(&self) -> bool {
        self.0.iter().any(|(_, outcome)| outcome == "Changed")
    }

    /// Whether any task changed something on this node.
    pub fn changes_on(&self, node: &str) -> bool {
        self.0.iter().any(|(task, outcome)| outcome == "Changed" && task.starts_with(&format!("{node}: ")))
    }

    /// Fails unless every task is as it was.
    pub fn changes_nothing(&self) -> Result<()> {
        let quiet = |outcome: &str| outcome == "Ok" || outcome == "Skipped";
        let loud: Vec<_> = self.0.iter().filter(|(_, outcome)| !quiet(outcome)).collect();
        ensure!(loud.is_empty(), "not as it was: {loud:?}");
        Ok(())
    }
}

/// A shell line that prints each path of a host with what any write would move: inode, mode, owner, size, times. Left out
/// is what moves by itself: logs, what daemons write as they go, and what apt and PackageKit keep when they are asked.
/// A directory's time of change is, too: on an overlay it moves when something deep below is first written.
pub const TRACE: &str = r"find / -xdev \( -path /var/log -o -path /var/lib/lockstep -o -path /var/lib/etcd \
    -o -path /var/lib/postgresql -o -path /var/lib/systemd -o -path /var/lib/PackageKit -o -path /var/cache/apt \) -prune \
    -o -type d -printf '%p %i %m %U:%G %T@\n' -o -printf '%p %i %m %U:%G %s %T@ %C@\n' | sort";

/// Fails if the two traces differ, with the paths that do.
pub fn nothing_was_written(before: &str, after: &str) -> Result<()> {
    let old: std::collections::BTreeSet<&str> = before.lines().collect();
    let moved: Vec<&str> = after.lines().filter(|line| !old.contains(line)).collect();
    ensure!(old.len() > 1000, "the trace is none: {before}");
    ensure!(moved.is_empty() && before.lines().count() == after.lines().count(), "written: {moved:#?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESCRIBED: &str = "status:\n  phase: Succeeded\nnodes:\n  h1 Changed\n    Changed        12 ms  drain on h2: drained\n    \
                             Ok            1.0 s  well (3 tries)\n    Ok            1.0 s  health gate\n  h2 h3 Ok\n    Skipped    ≤ 3 µs  drain\n";

    fn of(tasks: &[(&str, &str)]) -> Told {
        Told(tasks.iter().map(|(task, outcome)| ((*task).to_owned(), (*outcome).to_owned())).collect())
    }

    #[test]
    fn both_printed_forms_are_read() {
        let expected = of(&[
            ("h1: drain on h2", "Changed"),
            ("h1: well", "Ok"),
            ("h2: drain", "Skipped"),
            ("h3: drain", "Skipped"),
        ]);
        assert_eq!(Told::read(DESCRIBED).unwrap(), expected);
        let local = "Changed        1.2 ms  motd: created\n    +text\nOk             20 µs  it does\n2 tasks: 1 ok, 1 changed\n";
        assert_eq!(Told::read(local).unwrap(), of(&[("motd", "Changed"), ("it does", "Ok")]));
        assert!(Told::read("no such run").is_err());
    }

    #[test]
    fn a_check_that_told_otherwise_is_found() {
        let did = of(&[("a", "Changed"), ("b", "Ok")]);
        assert!(of(&[("a", "Changed"), ("b", "Unpredicted")]).holds_against(&did).is_ok());
        for said in
            [&[("a", "Ok"), ("b", "Ok")][..], &[("a", "Changed")], &[("a", "Changed"), ("b", "Ok"), ("c", "Changed")]]
        {
            assert!(of(said).holds_against(&did).is_err(), "{said:?}");
        }
        assert!(did.changes() && did.changes_nothing().is_err());
        assert!(of(&[("a", "Ok"), ("b", "Skipped")]).changes_nothing().is_ok());
    }
}

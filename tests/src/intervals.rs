//! Reads what nodes wrote with `lockstep-mark`, and judges it: who worked when, how many at once, what ran twice.

use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, fs, path::Path};

/// One line: `<monotonic ns> start|end <run> <node> <task>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// `start`, or `end`.
    pub word: String,
    /// The Run's name.
    pub run: String,
    /// The node's name.
    pub node: String,
    /// The task's id.
    pub task: String,
}

/// Every mark in the file, in order of time. A missing file has none.
pub fn read(path: &Path) -> Result<Vec<Mark>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    let mut marks = text.lines().map(parse).collect::<Result<Vec<_>>>()?;
    marks.sort_by_key(|mark| mark.at_ns);
    Ok(marks)
}

fn parse(line: &str) -> Result<Mark> {
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        [at, word, run, node, task] => Ok(Mark {
            at_ns: at.parse().with_context(|| format!("not a time: {line}"))?,
            word: (*word).into(),
            run: (*run).into(),
            node: (*node).into(),
            task: (*task).into(),
        }),
        _ => bail!("not a mark: {line}"),
    }
}

/// Fails if more than `size` nodes of the run were ever between a start and its end at once. A start without an end
/// (the task was killed) holds to the end of time unless `killed` names its node.
pub fn never_more_than(marks: &[Mark], run: &str, size: usize, killed: &[&str]) -> Result<usize> {
    let mut working: BTreeMap<&str, u64> = BTreeMap::new();
    let mut most = 0;
    for mark in marks.iter().filter(|mark| mark.run == run) {
        match mark.word.as_str() {
            "start" => {
                if let Some(since) = working.insert(&mark.node, mark.at_ns)
                    && !killed.contains(&mark.node.as_str())
                {
                    bail!("{run}: {} started at {since} and again at {} without an end", mark.node, mark.at_ns);
                }
            }
            _ => {
                working.remove(mark.node.as_str());
            }
        }
        let live = working.keys().filter(|node| !killed.contains(node)).count();
        most = most.max(live);
        if live > size {
            bail!("{run}: {live} nodes worked at {}: {:?}, allowed were {size}", mark.at_ns, working.keys());
        }
    }
    Ok(most)
}

/// Fails if a node started a task of the run more often than `times`.
pub fn started_at_most(marks: &[Mark], run: &str, times: usize) -> Result<()> {
    let mut starts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for mark in marks.iter().filter(|mark| mark.run == run && mark.word == "start") {
        *starts.entry((&mark.node, &mark.task)).or_default() += 1;
    }
    match starts.iter().find(|(_, n)| **n > times) {
        Some(((node, task), n)) => bail!("{run}: {node} started {task} {n} times"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(lines: &[&str]) -> Vec<Mark> {
        lines.iter().map(|line| parse(line).expect("a mark")).collect()
    }

    #[test]
    fn two_nodes_at_once_are_seen() {
        let log = marks(&["1 start r a t", "2 start r b t", "3 end r a t", "4 end r b t"]);
        assert!(never_more_than(&log, "r", 1, &[]).is_err());
        assert_eq!(never_more_than(&log, "r", 2, &[]).expect("two are allowed"), 2);
    }

    #[test]
    fn a_second_start_is_seen() {
        let log = marks(&["1 start r a t", "2 end r a t", "3 start r a t"]);
        assert!(started_at_most(&log, "r", 1).is_err());
        assert!(never_more_than(&log, "r", 1, &[]).is_ok());
    }

    #[test]
    fn a_start_without_an_end_holds_its_place() {
        let log = marks(&["1 start r a t", "9 start r b t"]);
        assert!(never_more_than(&log, "r", 1, &[]).is_err());
    }
}

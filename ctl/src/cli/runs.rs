//! What may be typed about Runs: start, plan, watch and steer them.

use super::Printed;
use crate::completion;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Runs {
    /// Only of this book.
    #[arg(add = ArgValueCompleter::new(completion::books))]
    pub(crate) book: Option<String>,
    /// Only Runs with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only Runs in these phases.
    #[arg(long, value_name = "PHASE,…", value_delimiter = ',')]
    pub(crate) phase: Vec<String>,
    /// Only Runs that have not ended.
    #[arg(long, conflicts_with = "phase")]
    pub(crate) active: bool,
    /// So many of those that have ended.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// All that have ended.
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Of every namespace.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) printed: Printed,
}

#[derive(Args, Debug, Default)]
pub(crate) struct RunSpecArguments {
    /// An input, name=value; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// A variable that wins over the book's, name=value; may be repeated. The value is read as YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Only these nodes, in place of the book's targets; may be repeated.
    #[arg(long = "node", value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) nodes: Vec<String>,
    /// Only nodes with these labels, in place of the book's targets.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Every node, in place of the book's targets.
    #[arg(long, conflicts_with_all = ["nodes", "selector"])]
    pub(crate) all: bool,
    /// At most so many nodes.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// Only tasks with one of these tags, or with the tag `always`; the others are skipped.
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    pub(crate) tags: Vec<String>,
    /// No tasks with one of these tags.
    #[arg(long, value_name = "TAG,…", value_delimiter = ',')]
    pub(crate) skip_tags: Vec<String>,
    /// Higher goes first, -1000 to 1000.
    #[arg(long, allow_hyphen_values = true, default_value_t = 0)]
    pub(crate) priority: i32,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The TaskBook.
    #[arg(required_unless_present_any = ["local", "task"], add = ArgValueCompleter::new(completion::books))]
    pub(crate) book: Option<String>,
    /// One action in place of a book, with its parameters; `lockstep explain ACTION` lists them. Text needs no more quotes
    /// than the shell wants; the same parameter again adds to a list.
    #[arg(long, num_args = 1.., value_names = ["ACTION", "PARAMETER=VALUE"], conflicts_with_all = ["book", "local"], add = ArgValueCompleter::new(completion::actions))]
    pub(crate) task: Vec<String>,
    #[command(flatten)]
    pub(crate) spec: RunSpecArguments,
    /// With --task: do not ask, however many nodes there are.
    #[arg(short, long, requires = "task")]
    pub(crate) yes: bool,
    /// Wait for its end and show what happens; the exit code is the Run's.
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// A name for the Run; default: the book's with a suffix.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Do the book of --filename on this machine, without a daemon or a store.
    #[arg(long, requires = "files")]
    pub(crate) local: bool,
    /// With --local: the book's file, or `-`.
    #[arg(short, long = "filename", value_name = "PATH", requires = "local")]
    pub(crate) files: Vec<PathBuf>,
    /// With --local: a folder that stands for `/`.
    #[arg(long, value_name = "FOLDER", requires = "local")]
    pub(crate) root: Option<PathBuf>,
    /// Change nothing, say what would change.
    #[arg(long)]
    pub(crate) check: bool,
    /// Show how files change; in a cluster with --wait, or afterwards with `logs --diff`.
    #[arg(long)]
    pub(crate) diff: bool,
    /// With --local: say only what changed or failed.
    #[arg(short, long, requires = "local")]
    pub(crate) quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// On this node; may be repeated.
    #[arg(long = "node", value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) nodes: Vec<String>,
    /// On nodes with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// On every node.
    #[arg(long, conflicts_with_all = ["nodes", "selector"])]
    pub(crate) all: bool,
    /// On at most so many of them.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
    /// The words are a line for `/bin/sh -c`.
    #[arg(long)]
    pub(crate) shell: bool,
    /// It only reads: it waits for no other Run, and no node counts as changed.
    #[arg(long)]
    pub(crate) reads: bool,
    /// As this user.
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Longest time that it may take on a node.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub(crate) timeout: String,
    /// On so many nodes at once, N or N%; the first failure then stops the rest.
    #[arg(long, value_name = "N|N%")]
    pub(crate) serialize: Option<String>,
    /// A name for the Run; default: `exec` with a suffix.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Do not ask, however many nodes there are.
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct RunName {
    /// The Run, `name` or `run/name`.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
}

#[derive(Args, Debug)]
pub(crate) struct Approve {
    /// The Run, `name` or `run/name`.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
    /// Why; kept in the Run and told in an event.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

#[derive(Args, Debug)]
pub(crate) struct Retry {
    /// The ended Run.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
    /// Wait for the new Run's end.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rerun {
    /// The Run.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
    /// An input in place of the old one, name=value; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// A variable in place of the old one, name=value; may be repeated. The value is read as YAML.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// A name for the new Run; default: the book's with a suffix.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Wait for the new Run's end.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Why {
    /// `run/NAME` (or its name alone) or `node/NAME`.
    #[arg(value_name = "run/NAME|node/NAME")]
    pub(crate) about: String,
}

#[derive(Args, Debug)]
pub(crate) struct Release {
    /// The Run.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
    /// The node whose place it is.
    #[arg(add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) node: String,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The Run.
    #[arg(add = ArgValueCompleter::new(completion::runs))]
    pub(crate) run: String,
    /// Only of this node.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) node: Option<String>,
    /// Only diffs: how files changed, or would in a check.
    #[arg(long)]
    pub(crate) diff: bool,
    /// Only of this task, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Each node by itself, in the order in which it printed; else task by task, nodes that printed the same together.
    #[arg(long)]
    pub(crate) by_node: bool,
    /// Go on until the Run has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// The TaskBook.
    #[arg(add = ArgValueCompleter::new(completion::books))]
    pub(crate) book: String,
    #[command(flatten)]
    pub(crate) spec: RunSpecArguments,
}

//! The command line: what may be typed. Knows nothing of servers; parsing is all it does. The commands are here, what
//! may stand behind each is in the file of its kind.

mod cluster;
mod objects;
mod runs;

use crate::completion;
use clap::{Args, Parser, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use std::path::PathBuf;

pub(crate) use cluster::*;
pub(crate) use objects::*;
pub(crate) use runs::*;

/// Documented at the end of `lockstep --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; with --wait: the Run succeeded
  1  the Run failed or was cancelled; diff: there are differences; wait: it did not come;
     doctor: there is a problem
  2  the command line or a manifest is wrong; nothing was changed
  3  conflict: somebody else wrote it meanwhile, or its state does not allow it
  4  not authenticated, or not allowed
  5  no server reached, or its answer was lost: the outcome is not known
  6  the Run succeeded, but skipped nodes that were not reached";

/// Declarative configuration management that keeps servers in lockstep.
#[derive(Parser, Debug)]
#[command(name = "lockstep", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Args, Debug, Clone)]
pub(crate) struct Global {
    /// Which cluster and who I am: a context's name or its file.
    #[arg(long, global = true, env = "LOCKSTEP_CONTEXT", value_name = "NAME|FILE", add = ArgValueCompleter::new(completion::contexts))]
    pub(crate) context: Option<String>,
    /// The namespace.
    #[arg(short, long, global = true, env = "LOCKSTEP_NAMESPACE", value_name = "NAME", add = ArgValueCompleter::new(completion::namespaces))]
    pub(crate) namespace: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a cluster: this machine becomes its first server.
    Init(Passed),
    /// One-time tokens with which nodes join.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Create or update objects from files: all of them, or none.
    Apply(Apply),
    /// Show objects.
    #[command(after_help = "\
Examples:
  lockstep get nodes -l role=web -o wide
  lockstep get run web-x4k2pd -o yaml
  lockstep get runs -o jsonpath='{range .items[*]}{.metadata.name} {.status.phase}{\"\\n\"}{end}'
  lockstep get nodes -w -o json | jq .object.status.liveness")]
    Get(Get),
    /// Nodes: state, version, system, when last seen, the Run that each works for, and facts.
    #[command(after_help = "\
Examples:
  lockstep nodes --state Unreachable,Lost
  lockstep nodes -l role=web --fact cpu.count --fact kernel.release")]
    Nodes(Nodes),
    /// Runs, the newest last: phase, book, nodes, by whom, age.
    #[command(after_help = "\
Examples:
  lockstep runs --active -w
  lockstep runs web --phase Failed,Cancelled --all")]
    Runs(Runs),
    /// Show everything about one object.
    Describe(Describe),
    /// Delete objects.
    Delete(Delete),
    /// Change an object in an editor; what was typed is never lost.
    #[command(after_help = "\
The editor is $VISUAL, else $EDITOR, else vi. If the server refuses the edit, or somebody was faster, it is kept in a
file whose name is said.

Example:
  EDITOR='code --wait' lockstep edit book web")]
    Edit(Edit),
    /// Set or remove labels.
    #[command(after_help = "\
Examples:
  lockstep label node web1 web2 role=web tier-
  lockstep label nodes -l role=web tier=front --yes")]
    Label(Label),
    /// Set or remove annotations.
    #[command(after_help = "\
Example:
  lockstep annotate book web owner=shop-team reviewed-")]
    Annotate(Label),
    /// Let new Runs skip nodes.
    #[command(after_help = "\
Example:
  lockstep cordon web1 web2
  lockstep cordon -l rack=b4 --yes")]
    Cordon(Cordon),
    /// Let new Runs use nodes again.
    Uncordon(Cordon),
    /// Show what `apply` would change; exit code 1 if it would change anything.
    #[command(after_help = "\
Example:
  lockstep diff -f book.yaml || lockstep apply -f book.yaml")]
    Diff(Files),
    /// Wait until objects are as they should be; exit code 1 if that does not come in time, or cannot come any more.
    #[command(after_help = "\
Examples:
  lockstep wait run/web-x4k2pd --for phase=Succeeded --timeout 30m
  lockstep wait node web1 --for phase=Ready
  lockstep wait namespace shop --for delete
  lockstep wait node web1 --for 'jsonpath={.status.facts.kernel.release}=6.1.0-25-amd64'")]
    Wait(Wait),
    /// Clusters that are known here, and which one is meant.
    #[command(subcommand)]
    Context(ContextCommand),
    /// Start a Run of a book, or of one task; or, with --local, do a book on this machine alone.
    #[command(after_help = "\
Examples:
  lockstep run web -i version=1.4 --wait
  lockstep run web --check --diff --wait
  lockstep run --task package.installed names=curl names=jq -l role=web --wait
  lockstep run --local -f book.yaml --root /tmp/image")]
    Run(Box<Run>),
    /// Run a command on nodes now. It is a Run like any other: recorded, and `lockstep logs` shows it again.
    #[command(after_help = "\
Nodes that printed the same are told together. It goes on if you stop looking: `lockstep cancel`
ends it. `${{ }}` in the words is an expression, as in books.

Examples:
  lockstep exec -l role=web -- systemctl is-active nginx
  lockstep exec --all --reads --shell -- 'df -h / | tail -1'
  lockstep exec --node web1 --user postgres -- psql -c 'select 1'")]
    Exec(Exec),
    /// What tasks of a Run printed: task by task, nodes that printed the same together.
    #[command(after_help = "\
Examples:
  lockstep logs web-x4k2pd
  lockstep logs web-x4k2pd --follow
  lockstep logs web-x4k2pd --node web1 --task install")]
    Logs(Logs),
    /// Stop a Run: nothing new starts, what runs gets SIGTERM.
    Cancel(RunName),
    /// Let nothing new of a Run start; what runs goes on.
    Pause(RunName),
    /// Let a Run begin whose book asks for approval.
    Approve(Approve),
    /// Let a paused Run go on.
    Resume(RunName),
    /// Start a new Run for the nodes of an ended one that did not succeed.
    Retry(Retry),
    /// Start a Run anew with the same spec, of the book as it is now; with other inputs if they are given.
    Rerun(Rerun),
    /// What a Run or a node waits for, and what that waits for.
    Why(Why),
    /// Give free the place of a node that does not report.
    Release(Release),
    /// Locks: who holds them and who waits; acquire, release and clear them.
    Locks(Locks),
    /// The cluster at a glance: store, leader, servers, nodes.
    Status,
    /// What happened.
    #[command(after_help = "\
Examples:
  lockstep events --since 1h --severity Warning
  lockstep events run/web-x4k2pd
  lockstep events -A --type 'node/*' -w")]
    Events(Events),
    /// Check files as `apply` would, without a cluster.
    Lint(Lint),
    /// Show the nodes, windows, segments and locks of a Run, without running it.
    Plan(Plan),
    /// Variables of a node, and where they come from.
    #[command(subcommand)]
    Vars(VarsCommand),
    /// What an expression is on a node, with its facts and variables. Changes nothing.
    #[command(after_help = "\
It reads `node`, `facts` (as last reported), `vars`, and with --book `inputs`. What only a Run knows
(`results`, `shared`, `run`, …) is not there.

Examples:
  lockstep eval --node web1 'facts.cpu.count * 2'
  lockstep eval --node web1 --book web -i version=1.4 'vars.port > 1024 && inputs.version != \"1.3\"'")]
    Eval(Eval),
    /// What a template or a book becomes on a node. Changes nothing.
    #[command(after_help = "\
A .yaml, .yml or .json is read as books: each task is shown with its parameters as they would be,
and whether `when` lets it be done. Anything else is a template.

Examples:
  lockstep render -f nginx.conf.hbs --node web1
  lockstep render -f book.yaml --node web1 -i version=1.4")]
    Render(Render),
    /// Look whether context, servers, clocks, store, disks, versions and nodes are as they should be.
    #[command(after_help = "\
Exit codes: 0, no problem (there may be notes); 1, a problem; 4, no context; 5, no server answers.")]
    Doctor,
    /// A whole cluster on this machine, each node with a root folder of its own.
    #[command(subcommand)]
    Dev(DevCommand),
    /// What may be written where: kinds, fields, actions and their parameters.
    #[command(after_help = "\
Examples:
  lockstep explain                          the kinds
  lockstep explain book.spec.tasks          a field, and what is in it
  lockstep explain action                   the actions
  lockstep explain file.managed.mode        a parameter")]
    Explain(Explain),
    /// JSON Schema of a kind, or of all, for editors.
    Schema {
        /// The kind.
        kind: Option<String>,
    },
    /// Write manual pages, one for each command.
    Man {
        /// Where to: `/usr/local/share/man/man1`, say.
        folder: PathBuf,
    },
    /// Completion for a shell: commands, options, kinds, actions, and the names of objects, nodes and contexts.
    #[command(after_help = "\
Source it when a shell starts, so that it is of the program that is there then:
  echo 'source <(lockstep completion bash)' >> ~/.bashrc
  echo 'source <(lockstep completion zsh)' >> ~/.zshrc
  echo 'lockstep completion fish | source' > ~/.config/fish/completions/lockstep.fish")]
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

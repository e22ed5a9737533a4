//! The command line: what may be typed. Knows nothing of servers; parsing is all it does.

use crate::render::jsonpath::JsonPath;
use clap::{Args, Parser, Subcommand, ValueEnum};
use lockstep_apis::nearest;
use std::{path::PathBuf, str::FromStr};

/// Documented at the end of `lockstep --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; with --wait: the Run succeeded
  1  the Run failed or was cancelled; diff: there are differences; wait: it did not come
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
    #[arg(long, global = true, env = "LOCKSTEP_CONTEXT", value_name = "NAME|FILE")]
    pub(crate) context: Option<String>,
    /// The namespace.
    #[arg(short, long, global = true, env = "LOCKSTEP_NAMESPACE", value_name = "NAME")]
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
    /// Start a Run of a book; or, with --local, do a book on this machine alone.
    Run(Box<Run>),
    /// What tasks of a Run printed.
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
    /// Completion for a shell.
    Completion {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Arguments that go to `lockstepd` as they are.
#[derive(Args, Debug)]
pub(crate) struct Passed {
    /// Options of `lockstepd init`; see `lockstepd init --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, once.
    Create {
        /// How long it may be used, at most 1h.
        #[arg(long, default_value = "15m", value_name = "DURATION")]
        ttl: String,
        /// Only for a node of this name.
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// A label of the node that joins, key=value; may be repeated.
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// For `lockstepd join --server`.
        #[arg(long)]
        server: bool,
    },
}

/// Where manifests are.
#[derive(Args, Debug)]
pub(crate) struct Files {
    /// A file, a folder (its .yaml, .yml and .json), or `-`; may be repeated.
    #[arg(short, long = "filename", required = true, value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// Folders with all that is below them.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How to print objects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// YAML documents.
    Yaml,
    /// JSON.
    Json,
    /// kind/name.
    Name,
    /// What a template makes of the JSON.
    JsonPath(JsonPath),
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Output, String> {
        if let Some(template) = text.strip_prefix("jsonpath=") {
            return JsonPath::parse(template).map(Output::JsonPath);
        }
        const WORDS: [&str; 6] = ["table", "wide", "yaml", "json", "name", "jsonpath"];
        match text {
            "table" => Ok(Output::Table),
            "wide" => Ok(Output::Wide),
            "yaml" => Ok(Output::Yaml),
            "json" => Ok(Output::Json),
            "name" => Ok(Output::Name),
            "jsonpath" => Err("give the template: jsonpath='{.metadata.name}'".into()),
            other => {
                let near = nearest::nearest(other, WORDS).map(|near| format!("; did you mean `{near}`?"));
                Err(format!("write table, wide, yaml, json, name or jsonpath=TEMPLATE{}", near.unwrap_or_default()))
            }
        }
    }
}

/// How to print, and whether to go on.
#[derive(Args, Debug)]
pub(crate) struct Printed {
    /// table, wide, yaml, json, name or jsonpath=TEMPLATE. A list is a JSON array; its template starts at {.items}.
    #[arg(short, long, default_value = "table", value_name = "FORM")]
    pub(crate) output: Output,
    /// Go on showing changes. JSON is then a line for each: {"type": "Added|Modified|Deleted", "object": …}.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The kind: `nodes`, `run`, `book`, …; or kind/name.
    pub(crate) kind: String,
    /// Names; none: all.
    pub(crate) names: Vec<String>,
    /// Only objects with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Of every namespace.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) printed: Printed,
}

#[derive(Args, Debug)]
pub(crate) struct Nodes {
    /// Names; none: all.
    pub(crate) names: Vec<String>,
    /// Only nodes with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only nodes in these states: Ready, Unreachable, Lost, NeverSeen, Cordoned.
    #[arg(long, value_name = "STATE,…", value_delimiter = ',')]
    pub(crate) state: Vec<String>,
    /// A fact as a further column, by its path; may be repeated.
    #[arg(long = "fact", value_name = "PATH")]
    pub(crate) facts: Vec<String>,
    #[command(flatten)]
    pub(crate) printed: Printed,
}

#[derive(Args, Debug)]
pub(crate) struct Runs {
    /// Only of this book.
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

#[derive(Args, Debug)]
pub(crate) struct Describe {
    /// The kind, or kind/name.
    pub(crate) kind: String,
    /// The name.
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Edit {
    /// The kind, or kind/name.
    pub(crate) kind: String,
    /// The name.
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Label {
    /// The kind, or kind/name.
    pub(crate) kind: String,
    /// Names, and what to change: key=value sets, key- removes.
    #[arg(value_name = "NAME|KEY=VALUE|KEY-")]
    pub(crate) arguments: Vec<String>,
    /// Objects with these labels, in place of names.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Do not ask, however many there are.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Cordon {
    /// Nodes.
    pub(crate) nodes: Vec<String>,
    /// Nodes with these labels, in place of names.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Do not ask, however many there are.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// The kind, or kind/name.
    pub(crate) kind: String,
    /// Names.
    pub(crate) names: Vec<String>,
    /// phase=PHASE (of a Run, a Namespace; a node's state), condition=TYPE[=STATUS], jsonpath={.path}=VALUE, or delete.
    #[arg(long = "for", value_name = "WHAT")]
    pub(crate) until: String,
    /// Longest wait.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub(crate) timeout: String,
}

#[derive(Subcommand, Debug, PartialEq, Eq)]
pub(crate) enum ContextCommand {
    /// All of them; `*` is the one that is meant.
    List,
    /// Choose one for the commands that name none.
    Use {
        /// Its name: that of its file.
        name: String,
    },
    /// The one that is meant: servers, namespace, and until when the certificate counts.
    Show,
    /// Get a new certificate for a new key now; past two thirds of its life every command does it by itself.
    Renew,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// The kind.
    #[arg(required_unless_present = "files")]
    pub(crate) kind: Option<String>,
    /// Names.
    pub(crate) names: Vec<String>,
    /// Everything in the namespace with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub(crate) selector: Option<String>,
    /// What these files name.
    #[arg(short, long = "filename", value_name = "PATH", conflicts_with_all = ["kind", "selector"])]
    pub(crate) files: Vec<PathBuf>,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
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
    #[arg(long = "node", value_name = "NAME")]
    pub(crate) nodes: Vec<String>,
    /// Only nodes with these labels, in place of the book's targets.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
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
    #[arg(required_unless_present = "local")]
    pub(crate) book: Option<String>,
    #[command(flatten)]
    pub(crate) spec: RunSpecArguments,
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
pub(crate) struct RunName {
    /// The Run, `name` or `run/name`.
    pub(crate) run: String,
}

#[derive(Args, Debug)]
pub(crate) struct Approve {
    /// The Run, `name` or `run/name`.
    pub(crate) run: String,
    /// Why; kept in the Run and told in an event.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) reason: String,
}

#[derive(Args, Debug)]
pub(crate) struct Retry {
    /// The ended Run.
    pub(crate) run: String,
    /// Wait for the new Run's end.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rerun {
    /// The Run.
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
    pub(crate) run: String,
    /// The node whose place it is.
    pub(crate) node: String,
}

#[derive(Args, Debug)]
pub(crate) struct Locks {
    #[command(subcommand)]
    pub(crate) command: Option<LocksCommand>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum LocksCommand {
    /// Keep Runs from a lock; waits until those that hold it are through.
    Acquire(AcquireLock),
    /// Let go of a lock.
    Release {
        /// The lock.
        name: String,
        /// Whose; default: your own.
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
    },
    /// Take the poison from a lock that a failed Run left so, once what it left is mended.
    Clear {
        /// The lock.
        name: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AcquireLock {
    /// The lock.
    pub(crate) name: String,
    /// `read` shares it with others that read, `write` and `clean` exclude all.
    #[arg(long, value_enum, ignore_case = true, default_value = "write")]
    pub(crate) mode: LockModeWord,
    /// When it is let go by itself, at most 168h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) ttl: String,
    /// What those read who wait for it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Do not wait for Runs that hold it; the exit code is then 3, and no other Run gets it.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// How a lock is held.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockModeWord {
    Read,
    Write,
    Clean,
}

#[derive(Args, Debug)]
pub(crate) struct Logs {
    /// The Run.
    pub(crate) run: String,
    /// Only of this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Only diffs: how files changed, or would in a check.
    #[arg(long)]
    pub(crate) diff: bool,
    /// Only of this task, by id.
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
    /// Go on until the Run has ended.
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    /// Only about this object: `run/web`.
    pub(crate) about: Option<String>,
    /// Only of these types; `run/*` stands for all that begin so.
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// Only this severe or worse: Info, Warning, Critical.
    #[arg(long, value_name = "SEVERITY", default_value = "Info")]
    pub(crate) severity: String,
    /// Only what happened on this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Only what happened in the last so long, 90s, 2h, 3d.
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
    /// Only events with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Of every namespace; what concerns the cluster or a node is in `system`.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) printed: Printed,
}

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A kind and fields, a type, or an action and a parameter; none: the kinds.
    #[arg(value_name = "KIND.FIELD…|ACTION.PARAMETER")]
    pub(crate) path: Option<String>,
    /// Write the whole reference into a folder: a page for each kind, one for types, one for actions.
    #[arg(long, value_name = "FOLDER", conflicts_with = "path")]
    pub(crate) markdown: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Lint {
    #[command(flatten)]
    pub(crate) files: Files,
}

#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// The TaskBook.
    pub(crate) book: String,
    #[command(flatten)]
    pub(crate) spec: RunSpecArguments,
}

#[derive(Subcommand, Debug)]
pub(crate) enum VarsCommand {
    /// What a node has, as YAML.
    Get {
        /// Only this one: `port`, or `tls.min` for a value in a map.
        name: Option<String>,
        #[command(flatten)]
        of: VarsOf,
    },
    /// Every source that has a say, strongest first, and why one won.
    Explain {
        /// `port`, or `tls.min` for a value in a map.
        name: String,
        #[command(flatten)]
        of: VarsOf,
    },
}

/// Whose variables.
#[derive(Args, Debug)]
pub(crate) struct VarsOf {
    /// The node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: String,
    /// In Runs of this book, whose own variables win over those of objects.
    #[arg(long, value_name = "NAME")]
    pub(crate) book: Option<String>,
    /// As `run --set`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DevCommand {
    /// Start it; what is there already is kept.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
        nodes: u32,
        /// Where it lives.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
        /// etcd endpoints, for as many servers as nodes, at most three; default: the embedded store and one server.
        #[arg(long, value_name = "URL,…", value_delimiter = ',')]
        etcd: Vec<String>,
        /// Folder with ca.pem, cert.pem and key.pem for etcd.
        #[arg(long, value_name = "FOLDER", requires = "etcd")]
        etcd_identity: Option<PathBuf>,
    },
    /// Stop it and delete its folder.
    Down {
        /// Where it lives.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
    /// Show its processes.
    Status {
        /// Where it lives.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
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

//! What may be typed about the cluster: contexts, tokens, locks, events, variables, and clusters for development.

use super::Printed;
use crate::completion;
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCompleter;
use std::path::PathBuf;

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

#[derive(Subcommand, Debug, PartialEq, Eq)]
pub(crate) enum ContextCommand {
    /// All of them; `*` is the one that is meant.
    List,
    /// Choose one for the commands that name none.
    Use {
        /// Its name: that of its file.
        #[arg(add = ArgValueCompleter::new(completion::contexts))]
        name: String,
    },
    /// The one that is meant: servers, namespace, and until when the certificate counts.
    Show,
    /// Get a new certificate for a new key now; past two thirds of its life every command does it by itself.
    Renew,
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
        #[arg(add = ArgValueCompleter::new(completion::locks))]
        name: String,
        /// Whose; default: your own.
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
    },
    /// Take the poison from a lock that a failed Run left so, once what it left is mended.
    Clear {
        /// The lock.
        #[arg(add = ArgValueCompleter::new(completion::locks))]
        name: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AcquireLock {
    /// The lock.
    #[arg(add = ArgValueCompleter::new(completion::locks))]
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
pub(crate) struct Events {
    /// Only about this object: `run/web`.
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) about: Option<String>,
    /// Only of these types; `run/*` stands for all that begin so.
    #[arg(long = "type", value_name = "TYPE,…", value_delimiter = ',')]
    pub(crate) types: Vec<String>,
    /// Only this severe or worse: Info, Warning, Critical.
    #[arg(long, value_name = "SEVERITY", default_value = "Info")]
    pub(crate) severity: String,
    /// Only what happened on this node.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
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
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) node: String,
    /// In Runs of this book, whose own variables win over those of objects.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::books))]
    pub(crate) book: Option<String>,
    /// As `run --set`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

/// Where something is looked at.
#[derive(Args, Debug)]
pub(crate) struct OnNode {
    /// The node.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) node: String,
    /// With the variables and inputs of this book.
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(completion::books))]
    pub(crate) book: Option<String>,
    /// An input, name=value; may be repeated.
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    pub(crate) inputs: Vec<String>,
    /// As `run --set`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Eval {
    /// CEL, as in `when`.
    #[arg(value_name = "CEL")]
    pub(crate) expression: String,
    #[command(flatten)]
    pub(crate) of: OnNode,
}

#[derive(Args, Debug)]
pub(crate) struct Render {
    /// A template, or books; `-` is a template.
    #[arg(short, long = "filename", value_name = "PATH")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) of: OnNode,
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

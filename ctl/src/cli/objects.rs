//! What may be typed about objects: apply, get, change, wait for and explain them.

use crate::completion;
use crate::render::jsonpath::JsonPath;
use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use lockstep_apis::nearest;
use std::{path::PathBuf, str::FromStr};

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
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: String,
    /// Names; none: all.
    #[arg(add = ArgValueCompleter::new(completion::names))]
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
    #[arg(add = ArgValueCompleter::new(completion::nodes))]
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
pub(crate) struct Describe {
    /// The kind, or kind/name.
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: String,
    /// The name.
    #[arg(add = ArgValueCompleter::new(completion::names))]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Edit {
    /// The kind, or kind/name.
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: String,
    /// The name.
    #[arg(add = ArgValueCompleter::new(completion::names))]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Label {
    /// The kind, or kind/name.
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: String,
    /// Names, and what to change: key=value sets, key- removes.
    #[arg(value_name = "NAME|KEY=VALUE|KEY-", add = ArgValueCompleter::new(completion::names))]
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
    #[arg(add = ArgValueCompleter::new(completion::nodes))]
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
    #[arg(add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: String,
    /// Names.
    #[arg(add = ArgValueCompleter::new(completion::names))]
    pub(crate) names: Vec<String>,
    /// phase=PHASE (of a Run, a Namespace; a node's state), condition=TYPE[=STATUS], jsonpath={.path}=VALUE, or delete.
    #[arg(long = "for", value_name = "WHAT")]
    pub(crate) until: String,
    /// Longest wait.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub(crate) timeout: String,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// The kind.
    #[arg(required_unless_present = "files", add = ArgValueCompleter::new(completion::kinds))]
    pub(crate) kind: Option<String>,
    /// Names.
    #[arg(add = ArgValueCompleter::new(completion::names))]
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

#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// A kind and fields, a type, or an action and a parameter; none: the kinds.
    #[arg(value_name = "KIND.FIELD…|ACTION.PARAMETER", add = ArgValueCompleter::new(completion::topics))]
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

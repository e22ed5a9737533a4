//! What expressions and templates read: paths such as `shared.token` and `vars.port`.
//! Knows names only, never values.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// The first names that expressions and templates know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// The node: name, labels, addresses.
    Node,
    /// What the node says of itself.
    Facts,
    /// Variables.
    Vars,
    /// The Run's inputs.
    Inputs,
    /// Results of this node's tasks, by id.
    Results,
    /// Results of tasks with a single producer, by id.
    Shared,
    /// Results of tasks over all nodes, by id and node.
    All,
    /// The Run's nodes: names and labels.
    Nodes,
    /// The Run: name, namespace, uid.
    Run,
    /// The result that `success` and `changed` judge.
    Result,
    /// The path of the file that `validate` checks.
    File,
    /// Results of a health gate's checks, by id.
    Checks,
    /// The node that does a task for another: name, labels, addresses.
    Delegate,
    /// The failure that `rescue` and `always` follow: id, name and message of the task.
    Failure,
    /// What a looped task is done for.
    Item,
    /// Which one that is, from 0.
    Index,
}

impl Root {
    /// All of them.
    pub const ALL: [Root; 16] = [
        Root::Node,
        Root::Facts,
        Root::Vars,
        Root::Inputs,
        Root::Results,
        Root::Shared,
        Root::All,
        Root::Nodes,
        Root::Run,
        Root::Result,
        Root::File,
        Root::Checks,
        Root::Delegate,
        Root::Failure,
        Root::Item,
        Root::Index,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Root::Node => "node",
            Root::Facts => "facts",
            Root::Vars => "vars",
            Root::Inputs => "inputs",
            Root::Results => "results",
            Root::Shared => "shared",
            Root::All => "all",
            Root::Nodes => "nodes",
            Root::Run => "run",
            Root::Result => "result",
            Root::File => "file",
            Root::Checks => "checks",
            Root::Delegate => "delegate",
            Root::Failure => "failure",
            Root::Item => "item",
            Root::Index => "index",
        }
    }

    /// The root that is written so.
    pub fn find(name: &str) -> Option<Root> {
        // Templates ask for hundreds: by length first.
        Root::ALL.into_iter().find(|root| root.name().len() == name.len() && root.name() == name)
    }
}

/// One thing that is read: a root and the fixed names after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The first name.
    pub root: Root,
    /// The names after it, as far as they are fixed.
    pub path: Vec<String>,
    /// A calculated index follows: what exactly is read is not known before the evaluation.
    pub open: bool,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.root.name())?;
        self.path.iter().try_for_each(|name| write!(f, ".{name}"))
    }
}

/// All that one text, or many, read. Cloning is cheap: hundreds of tasks may share one template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// `None` if there are none.
    all: Option<Arc<BTreeSet<Arc<Reference>>>>,
}

impl References {
    /// Adds one.
    pub fn add(&mut self, reference: Reference) {
        self.add_shared(Arc::new(reference));
    }

    /// Adds one that others hold, too.
    pub(crate) fn add_shared(&mut self, reference: Arc<Reference>) {
        Arc::make_mut(self.all.get_or_insert_default()).insert(reference);
    }

    /// Adds all of another's.
    pub fn extend(&mut self, other: &References) {
        match (&mut self.all, &other.all) {
            (_, None) => {}
            (none @ None, Some(others)) => *none = Some(Arc::clone(others)),
            (Some(own), Some(others)) if Arc::ptr_eq(own, others) || others.is_subset(own) => {}
            (Some(own), Some(others)) => Arc::make_mut(own).extend(others.iter().cloned()),
        }
    }

    /// Adds those of another's that are wanted.
    pub fn extend_if(&mut self, other: &References, wanted: impl Fn(&Reference) -> bool) {
        let others = other.shared_ones().filter(|reference| wanted(reference));
        others.for_each(|reference| self.add_shared(Arc::clone(reference)));
    }

    /// All, in order, to hold on to.
    pub(crate) fn shared_ones(&self) -> impl Iterator<Item = &Arc<Reference>> {
        self.all.iter().flat_map(|all| all.iter())
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Reference> {
        self.shared_ones().map(|reference| &**reference)
    }

    /// Whether anything under the root is read.
    pub fn uses(&self, root: Root) -> bool {
        self.iter().any(|reference| reference.root == root)
    }

    /// The ids that are read as `results.ID`.
    pub fn results(&self) -> impl Iterator<Item = &str> {
        self.ids(Root::Results)
    }

    /// The ids that are read as `shared.ID`.
    pub fn shared(&self) -> impl Iterator<Item = &str> {
        self.ids(Root::Shared)
    }

    /// The ids that are read under a root that knows tasks by their ids.
    pub fn ids(&self, root: Root) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.iter().filter(move |reference| reference.root == root).filter_map(|r| r.path.first()).filter_map(
            move |id| {
                let repeated = last == Some(id);
                last = Some(id);
                (!repeated).then_some(id.as_str())
            },
        )
    }
}

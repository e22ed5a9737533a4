//! What expressions and templates see: one value for each first name, shared between the tasks of a segment.
//! Knows no language; who may read which name is checked when a book is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use lockstep_apis::v1alpha::{InputScope, Value, ValueMap, value::Kind};

use crate::expression::{EvaluationError, EvaluationErrorKind};
use crate::references::Root;
use crate::variables::merged;

/// The names and their values. Cloning is cheap: clones share everything but what is set on them afterwards.
#[derive(Clone, Debug, Default)]
pub struct Context {
    fixed: Arc<Fixed>,
    results: Option<Arc<Value>>,
    all: Option<Arc<Value>>,
    result: Option<Arc<Value>>,
    file: Option<Arc<Value>>,
    checks: Option<Arc<Value>>,
    failure: Option<Arc<Value>>,
    item: Option<Arc<(Value, Value)>>,
    unknown: Arc<BTreeSet<String>>,
    withheld: Arc<BTreeSet<String>>,
    /// Whose inputs are read: 0 for the Run's, else the place in the scopes, from 1.
    scope: u32,
    /// The only node there is: its results are those of all.
    alone: Option<Arc<str>>,
}

/// Name, labels and facts of a node.
pub type KnownNode<'n> = (&'n str, &'n BTreeMap<String, String>, Option<&'n Value>);

/// What does not change in a segment.
#[derive(Clone, Debug, Default)]
struct Fixed {
    node: Option<Value>,
    delegate: Option<Value>,
    facts: Option<Facts>,
    vars: Option<Value>,
    inputs: Option<Value>,
    /// Inputs of included books.
    scopes: Vec<Value>,
    shared: Option<Value>,
    nodes: Option<Value>,
    run: Option<Value>,
}

/// Facts, gathered when they are first read.
#[derive(Clone)]
struct Facts {
    gathered: OnceLock<Value>,
    gather: Arc<dyn Fn() -> Value + Send + Sync>,
}

impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts").field("gathered", &self.gathered).finish_non_exhaustive()
    }
}

/// A map as a value.
pub(crate) fn map_value(entries: &BTreeMap<String, Value>) -> Value {
    Kind::Map(ValueMap { entries: entries.clone() }).into()
}

fn labels_value(labels: &BTreeMap<String, String>) -> Value {
    Value::map(labels.iter().map(|(key, value)| (key.as_str(), Value::text(value.as_str()))))
}

fn node_value(name: &str, labels: &BTreeMap<String, String>, addresses: &[String]) -> Value {
    Value::map([
        ("name", Value::text(name)),
        ("labels", labels_value(labels)),
        ("addresses", Value::list(addresses.iter().map(|address| Value::text(address.as_str())))),
    ])
}

impl Context {
    /// Knows no name yet: each must be given. A name that was not given is an error that says so.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, set: impl FnOnce(&mut Fixed)) -> Self {
        set(Arc::make_mut(&mut self.fixed));
        self
    }

    /// `node`.
    pub fn with_node(self, name: &str, labels: &BTreeMap<String, String>, addresses: &[String]) -> Self {
        let node = node_value(name, labels, addresses);
        self.with(|fixed| fixed.node = Some(node))
    }

    /// `delegate`: who does it, where that is not `node`.
    pub fn with_delegate(self, name: &str, labels: &BTreeMap<String, String>, addresses: &[String]) -> Self {
        let node = node_value(name, labels, addresses);
        self.with(|fixed| fixed.delegate = Some(node))
    }

    /// `facts`, known already.
    pub fn with_facts(self, facts: Value) -> Self {
        self.with_lazy_facts(move || facts.clone())
    }

    /// `facts`, gathered when something first reads them.
    pub fn with_lazy_facts(self, gather: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        let facts = Facts { gathered: OnceLock::new(), gather: Arc::new(gather) };
        self.with(|fixed| fixed.facts = Some(facts))
    }

    /// What was gathered of `facts` may be out of date: they are gathered anew when something reads them.
    pub fn refresh_facts(&mut self) {
        if let Some(facts) = &mut Arc::make_mut(&mut self.fixed).facts {
            facts.gathered = OnceLock::new();
        }
    }

    /// `vars`.
    pub fn with_variables(self, variables: &BTreeMap<String, Value>) -> Self {
        self.with(|fixed| fixed.vars = Some(map_value(variables)))
    }

    /// `vars`, without a copy.
    pub fn with_own_variables(self, variables: BTreeMap<String, Value>) -> Self {
        self.with(|fixed| fixed.vars = Some(Kind::Map(ValueMap { entries: variables }).into()))
    }

    /// Merges into `vars`.
    pub fn add_variables(&mut self, values: &BTreeMap<String, Value>) {
        let vars = &mut Arc::make_mut(&mut self.fixed).vars;
        let weak = vars.take().and_then(|vars| vars.as_map().cloned()).unwrap_or_default();
        *vars = Some(Kind::Map(ValueMap { entries: merged(weak, values) }).into());
    }

    /// `inputs`.
    pub fn with_inputs(self, inputs: &BTreeMap<String, Value>) -> Self {
        self.with(|fixed| fixed.inputs = Some(map_value(inputs)))
    }

    /// `inputs` of included books, in order of their scopes.
    pub fn with_scopes(self, scopes: &[InputScope]) -> Self {
        self.with(|fixed| fixed.scopes = scopes.iter().map(|scope| map_value(&scope.inputs)).collect())
    }

    /// From now on `inputs` are those of this scope.
    pub fn set_scope(&mut self, scope: u32) {
        self.scope = scope;
    }

    /// Evaluates where `inputs` are those of this scope.
    pub(crate) fn in_scope<T>(&self, scope: u32, evaluate: impl FnOnce(&Self) -> T) -> T {
        if self.scope == scope {
            return evaluate(self);
        }
        let mut other = self.clone();
        other.scope = scope;
        evaluate(&other)
    }

    /// `shared`, by task id.
    pub fn with_shared(self, shared: &BTreeMap<String, Value>) -> Self {
        self.with(|fixed| fixed.shared = Some(map_value(shared)))
    }

    /// Adds to `shared`: where the producer is this node, its result comes while the segment runs.
    pub fn add_shared(&mut self, id: &str, result: Value) {
        let shared = &mut Arc::make_mut(&mut self.fixed).shared;
        insert(shared.get_or_insert_with(|| Value::map::<String>([])), id, result);
    }

    /// `nodes`: name and labels of each.
    pub fn with_nodes<'n>(self, nodes: impl IntoIterator<Item = (&'n str, &'n BTreeMap<String, String>)>) -> Self {
        self.with_known_nodes(nodes.into_iter().map(|(name, labels)| (name, labels, None)))
    }

    /// `nodes`, with the facts of each that are read.
    pub fn with_known_nodes<'n>(self, nodes: impl IntoIterator<Item = KnownNode<'n>>) -> Self {
        let node = |(name, labels, facts): KnownNode<'n>| {
            let facts = facts.cloned().unwrap_or_else(|| Value::map::<String>([]));
            Value::map([("name", Value::text(name)), ("labels", labels_value(labels)), ("facts", facts)])
        };
        let nodes = Value::list(nodes.into_iter().map(node));
        self.with(|fixed| fixed.nodes = Some(nodes))
    }

    /// `run`.
    pub fn with_run(self, name: &str, namespace: &str, uid: &str) -> Self {
        let run = [("name", name), ("namespace", namespace), ("uid", uid)];
        self.with(|fixed| fixed.run = Some(Value::map(run.map(|(key, text)| (key, Value::text(text))))))
    }

    /// `results`, by task id: those of earlier segments.
    pub fn with_results(mut self, results: &BTreeMap<String, Value>) -> Self {
        self.results = Some(Arc::new(map_value(results)));
        self
    }

    /// `all`: by task id, then by node name. What is withheld is too long to be handed on.
    pub fn with_all(mut self, all: &BTreeMap<String, Value>, withheld: impl IntoIterator<Item = String>) -> Self {
        self.all = Some(Arc::new(map_value(all)));
        self.withheld = Arc::new(withheld.into_iter().collect());
        self
    }

    /// There is no other node: what is added to `results` is in `all`, too, under this name.
    pub fn alone(mut self, name: &str) -> Self {
        self.alone = Some(name.into());
        self
    }

    /// Adds a task's result to `results`, in place of an older one.
    pub fn add_result(&mut self, id: &str, result: Value) {
        if let Some(name) = &self.alone {
            let all = self.all.get_or_insert_with(|| Arc::new(Value::map::<String>([])));
            insert(Arc::make_mut(all), id, Value::map([(name.to_string(), result.clone())]));
        }
        let results = self.results.get_or_insert_with(|| Arc::new(Value::map::<String>([])));
        insert(Arc::make_mut(results), id, result);
    }

    /// `result`, which `success` and `changed` judge.
    pub fn with_result(&self, result: Value) -> Self {
        Self { result: Some(Arc::new(result)), ..self.clone() }
    }

    /// `file`, the path that `validate` checks.
    pub fn with_file(&self, path: &str) -> Self {
        Self { file: Some(Arc::new(Value::text(path))), ..self.clone() }
    }

    /// Adds a result to `checks`, in place of an older one.
    pub fn add_check(&mut self, id: &str, result: Value) {
        let checks = self.checks.get_or_insert_with(|| Arc::new(Value::map::<String>([])));
        insert(Arc::make_mut(checks), id, result);
    }

    /// `failure`, which `rescue` and `always` follow: its task's id, name and message; all "" if there was none. It
    /// replaces what was set before.
    pub fn set_failure(&mut self, task: &str, name: &str, message: &str) {
        let failure = [("task", task), ("name", name), ("message", message)];
        self.failure = Some(Arc::new(Value::map(failure.map(|(key, text)| (key, Value::text(text))))));
    }

    /// `item` and `index`, until they are set again.
    pub fn set_item(&mut self, item: Value, index: usize) {
        self.item = Some(Arc::new((item, Value::from(index as i64))));
    }

    /// There is no `item` any more.
    pub fn clear_item(&mut self) {
        self.item = None;
    }

    /// From now on what reads this task's result, own or shared, is unknown: in a check, for what did not run.
    pub fn mark_unknown(&mut self, id: &str) {
        Arc::make_mut(&mut self.unknown).insert(id.to_owned());
    }

    /// Refuses a task whose result is unknown, or whose results are too long to be here.
    pub(crate) fn known(&self, root: Root, id: &str) -> Result<(), EvaluationError> {
        if root == Root::All && self.withheld.contains(id) {
            let message = format!(
                "`all.{id}` is longer than what is handed on (1 MiB over all nodes): let the task `{id}` print less"
            );
            return Err(EvaluationError::wrong(message));
        }
        if self.unknown.contains(id) {
            let message = format!("depends on the task `{id}`, which does not run in a check");
            return Err(EvaluationError { message, kind: EvaluationErrorKind::Unknown });
        }
        Ok(())
    }

    /// From now on what reads this variable is unknown: in a check, for one that a task sets that did not run.
    pub fn mark_variable_unknown(&mut self, name: &str) {
        self.mark_unknown(&unknown_variable(name));
    }

    /// Refuses a variable that is unknown.
    pub(crate) fn known_variable(&self, name: &str) -> Result<(), EvaluationError> {
        if !self.unknown.is_empty() && self.unknown.contains(&unknown_variable(name)) {
            let message = format!("depends on the variable `{name}`, whose task does not run in a check");
            return Err(EvaluationError { message, kind: EvaluationErrorKind::Unknown });
        }
        Ok(())
    }

    /// The value of a first name.
    pub(crate) fn root(&self, root: Root) -> Result<&Value, EvaluationError> {
        let fixed = &self.fixed;
        let value = match root {
            Root::Node => fixed.node.as_ref(),
            Root::Delegate => fixed.delegate.as_ref(),
            Root::Facts => fixed.facts.as_ref().map(|facts| facts.gathered.get_or_init(|| (facts.gather)())),
            Root::Vars => fixed.vars.as_ref(),
            Root::Inputs if self.scope > 0 => fixed.scopes.get(self.scope as usize - 1),
            Root::Inputs => fixed.inputs.as_ref(),
            Root::Results => self.results.as_deref(),
            Root::Shared => fixed.shared.as_ref(),
            Root::All => self.all.as_deref(),
            Root::Nodes => fixed.nodes.as_ref(),
            Root::Run => fixed.run.as_ref(),
            Root::Result => self.result.as_deref(),
            Root::File => self.file.as_deref(),
            Root::Checks => self.checks.as_deref(),
            Root::Failure => self.failure.as_deref(),
            Root::Item => self.item.as_deref().map(|(item, _)| item),
            Root::Index => self.item.as_deref().map(|(_, index)| index),
        };
        value.ok_or_else(|| EvaluationError::wrong(format!("`{}` is not known here", root.name())))
    }
}

/// How a variable stands among the ids of tasks, none of which has a dot.
pub(crate) fn unknown_variable(name: &str) -> String {
    format!("vars.{name}")
}

fn insert(map: &mut Value, id: &str, value: Value) {
    if let Some(Kind::Map(map)) = &mut map.kind {
        map.entries.insert(id.to_owned(), value);
    }
}

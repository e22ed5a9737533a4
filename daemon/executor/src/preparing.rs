//! Tasks made ready to run: every expression and template parsed once, and what an action is given, rendered.
//! Which parameters are expressions, templates or plain is the core's to know.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_apis::v1alpha::{CompiledTask, Value, value::Kind};
use lockstep_core::{
    context::Context,
    expression::EvaluationError,
    parameters::{BookTexts, TaskTexts, WrongText},
    references::{References, Root},
    template::TemplateCache,
};

use crate::gate::Gate;

/// One task and its texts, parsed.
#[derive(Debug)]
pub(crate) struct Prepared<'w> {
    pub task: &'w CompiledTask,
    /// The error names the fields; checked books have none.
    pub texts: Result<Arc<TaskTexts>, String>,
    /// It is a health gate, parsed.
    pub gate: Option<Result<Gate<'w>, String>>,
}

/// The tasks of a segment, parsed, and what they read.
#[derive(Debug)]
pub(crate) struct Preparation<'w> {
    pub tasks: Vec<Prepared<'w>>,
    /// What is read of facts, node and delegate; of the rest it matters to nobody.
    references: References,
}

/// What an action is given.
#[derive(Debug)]
pub(crate) struct Given {
    pub parameters: Value,
    pub environment: BTreeMap<String, String>,
    pub user: String,
    pub working_directory: String,
}

impl<'w> Preparation<'w> {
    /// Parses the tasks; templates that are written twice are parsed once.
    pub(crate) fn of(tasks: impl IntoIterator<Item = &'w CompiledTask>) -> Self {
        let mut cache = TemplateCache::new();
        Self::with(tasks, |task| TaskTexts::of_compiled(task, &mut cache).map(Arc::new).map_err(|wrong| said(&wrong)))
    }

    /// The tasks of a book whose texts are parsed already.
    pub(crate) fn of_parsed(tasks: impl IntoIterator<Item = &'w CompiledTask>, texts: &BookTexts) -> Self {
        Self::with(tasks, |task| match texts.of(task.index as usize) {
            Some(texts) => texts.cloned().map_err(said),
            None => Err("is not in the book".to_owned()),
        })
    }

    fn with(
        tasks: impl IntoIterator<Item = &'w CompiledTask>,
        mut texts_of: impl FnMut(&CompiledTask) -> Result<Arc<TaskTexts>, String>,
    ) -> Self {
        let mut references = References::default();
        let mut note = |read: &References| {
            references.extend_if(read, |reference| matches!(reference.root, Root::Facts | Root::Node | Root::Delegate));
        };
        let prepare = |task: &'w CompiledTask| {
            let gate = task.gate.as_ref().map(|gate| Gate::of(gate, &mut TemplateCache::new()));
            let texts = match &gate {
                Some(_) => Ok(Arc::default()),
                None => texts_of(task),
            };
            texts.iter().for_each(|texts| note(&texts.references()));
            gate.iter().flatten().for_each(|gate| note(&gate.references()));
            Prepared { task, texts, gate }
        };
        Self { tasks: tasks.into_iter().map(prepare).collect(), references }
    }

    /// Whether the name under this root is read, or the root as a whole.
    pub(crate) fn reads(&self, root: Root, name: &str) -> bool {
        self.references.iter().any(|r| r.root == root && r.path.first().is_none_or(|first| first == name))
    }

    /// The paths of facts that are read, like `os.family`; an empty path is all of them.
    pub(crate) fn facts(&self) -> Vec<String> {
        self.references.iter().filter(|r| r.root == Root::Facts).map(|r| r.path.join(".")).collect()
    }
}

pub(crate) fn said(wrong: &[WrongText]) -> String {
    wrong.iter().map(|wrong| format!("{}: {}", wrong.field, wrong.error)).collect::<Vec<_>>().join("; ")
}

impl Given {
    /// Renders all that the task's action is given.
    pub(crate) fn render(task: &CompiledTask, texts: &TaskTexts, context: &Context) -> Result<Self, EvaluationError> {
        Ok(Self {
            parameters: parameters(task, texts, context)?,
            environment: texts.environment(context)?,
            user: texts.user(context)?,
            working_directory: texts.working_directory(context)?,
        })
    }
}

fn parameters(task: &CompiledTask, texts: &TaskTexts, context: &Context) -> Result<Value, EvaluationError> {
    let mut rendered = texts.parameters.render(context)?;
    let Some(Kind::Map(map)) = &mut rendered.kind else { return Ok(rendered) };
    if map.entries.contains_key("validate") {
        // Only the action knows the file; until then its path is a mark.
        let context = context.with_file(lockstep_modules::VALIDATED_FILE);
        if let Some(validate) = texts.parameters.render_validate(&context) {
            map.entries.insert("validate".to_owned(), validate?);
        }
    }
    if task.action == "assert.that" {
        // Actions evaluate nothing: they are told how each condition came out, and how it was written.
        let conditions = texts.parameters.expressions("conditions");
        let truths = conditions.iter().map(|condition| Ok(Value::from(condition.evaluate_bool(context)?)));
        let truths = truths.collect::<Result<Vec<_>, EvaluationError>>()?;
        map.entries.insert("conditions".to_owned(), Value::list(truths));
        let sources = conditions.iter().map(|condition| Value::text(condition.source()));
        map.entries.insert("texts".to_owned(), Value::list(sources));
    }
    Ok(rendered)
}

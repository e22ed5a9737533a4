//! The texts of one task, parsed once: which of them are expressions, which are templates, and which hold `${{ }}`.
//! Knows the fields of a task and of its action's parameters; renders, never acts.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_apis::params;
use lockstep_apis::v1alpha::{CompiledTask, Format, Task, Value, ValueMap, value::Kind};

use crate::context::Context;
use crate::expression::{EvaluationError, Expression, Interpolated, SyntaxError, Text, operators};
use crate::references::{References, Root};
use crate::template::{Template, TemplateCache};

mod book;

pub use book::BookTexts;

/// A text of a task that is none of its language: the path of its field, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongText {
    /// Below the task: `when`, `parameters.argv[2]`.
    pub field: String,
    /// What is wrong and where within the text.
    pub error: SyntaxError,
}

/// All texts of a task, parsed.
#[derive(Debug, Default)]
pub struct TaskTexts {
    /// Done only if true.
    pub when: Option<Expression>,
    /// What its blocks say, outermost first: done only if they are true, too.
    block_when: Vec<BlockWhen>,
    /// What the task is done for.
    looped: Option<Interpolated>,
    /// Judges `result` in place of the action.
    pub success: Option<Expression>,
    /// Likewise.
    pub changed: Option<Expression>,
    /// Over `result`: whether it need not be tried again.
    pub until: Option<Expression>,
    /// The action's parameters.
    pub parameters: Parameters,
    environment: Vec<(String, Text)>,
    user: Option<Text>,
    working_directory: Option<Text>,
}

/// The condition of a block, and whose inputs it reads.
#[derive(Clone, Debug)]
pub(crate) struct BlockWhen {
    pub(crate) scope: u32,
    pub(crate) when: Arc<Expression>,
}

/// An action's parameters, parsed. Each is of the language that the action's proto says.
#[derive(Debug, Default)]
pub struct Parameters {
    entries: Vec<(String, Parameter)>,
}

#[derive(Debug)]
enum Parameter {
    /// Rendered by expressions inside.
    Interpolated(Interpolated),
    /// A template, rendered to text.
    Template(Arc<Template>),
    /// Expressions that the action itself evaluates; kept as they are.
    Expressions { value: Value, parsed: Vec<Expression> },
    /// Kept as they are until the action knows `file`.
    Later { value: Value, parsed: Interpolated },
}

/// The name of the parameter that is rendered when the action knows the file that it is about.
const VALIDATE: &str = "validate";

/// What one task's fields are, whether it comes from a book or from a snapshot.
struct Fields<'t> {
    when: &'t str,
    success: &'t str,
    changed: &'t str,
    until: &'t str,
    looped: Option<&'t Value>,
    action: &'t str,
    parameters: Option<&'t Value>,
    environment: &'t BTreeMap<String, String>,
    user: &'t str,
    working_directory: &'t str,
}

impl TaskTexts {
    /// Parses the texts of a book's task; all that is wrong at once.
    pub fn of_task(task: &Task, cache: &mut TemplateCache) -> Result<TaskTexts, Vec<WrongText>> {
        Self::in_blocks(task, Vec::new(), cache)
    }

    /// [`TaskTexts::of_task`] for one in blocks with these conditions, outermost first.
    pub(crate) fn in_blocks(
        task: &Task,
        block_when: Vec<BlockWhen>,
        cache: &mut TemplateCache,
    ) -> Result<TaskTexts, Vec<WrongText>> {
        let parsed = parse(
            &Fields {
                when: &task.when,
                success: &task.success,
                changed: &task.changed,
                until: task.retries.as_ref().map_or("", |retries| &retries.until),
                looped: task.r#loop.as_ref(),
                action: &task.action,
                parameters: task.parameters.as_ref(),
                environment: &task.environment,
                user: &task.user,
                working_directory: &task.working_directory,
            },
            cache,
        );
        parsed.map(|texts| TaskTexts { block_when, ..texts })
    }

    /// Parses the texts of a compiled task.
    pub fn of_compiled(task: &CompiledTask, cache: &mut TemplateCache) -> Result<TaskTexts, Vec<WrongText>> {
        let scopes = task.block_scopes.iter().copied().chain(std::iter::repeat(0));
        let block_when = task
            .block_when
            .iter()
            .zip(scopes)
            .map(|(source, scope)| Expression::parse(source).map(|when| BlockWhen { scope, when: Arc::new(when) }));
        let block_when: Result<Vec<_>, SyntaxError> = block_when.collect();
        let block_when = block_when.map_err(|error| vec![WrongText { field: "when".to_owned(), error }])?;
        let parsed = parse(
            &Fields {
                when: &task.when,
                success: &task.success,
                changed: &task.changed,
                until: task.retries.as_ref().map_or("", |retries| &retries.until),
                looped: task.r#loop.as_ref(),
                action: &task.action,
                parameters: task.parameters.as_ref(),
                environment: &task.environment,
                user: &task.user,
                working_directory: &task.working_directory,
            },
            cache,
        );
        parsed.map(|texts| TaskTexts { block_when, ..texts })
    }

    /// Whether the task is to be done: `when` of its blocks, then its own. What comes after one that is false is not
    /// looked at.
    pub fn is_wanted(&self, context: &Context) -> Result<bool, EvaluationError> {
        for BlockWhen { scope, when } in &self.block_when {
            if !context.in_scope(*scope, |context| when.evaluate_bool(context))? {
                return Ok(false);
            }
        }
        self.when.as_ref().map_or(Ok(true), |when| when.evaluate_bool(context))
    }

    /// Whether the task is to be done at all, if that can be told before its items are known: `when` that reads neither
    /// `item` nor `index` is judged once.
    pub fn is_wanted_at_all(&self, context: &Context) -> Result<bool, EvaluationError> {
        let reads = |when: &Expression| when.references().uses(Root::Item) || when.references().uses(Root::Index);
        for BlockWhen { scope, when } in self.block_when.iter().filter(|own| !reads(&own.when)) {
            if !context.in_scope(*scope, |context| when.evaluate_bool(context))? {
                return Ok(false);
            }
        }
        self.when.as_ref().filter(|when| !reads(when)).map_or(Ok(true), |when| when.evaluate_bool(context))
    }

    /// What the task is done for, in order: the items of a list; of a map `key` and `value` of each entry, in order of
    /// key. `None`: it has no `loop`.
    pub fn items(&self, context: &Context) -> Option<Result<Vec<Value>, EvaluationError>> {
        let rendered = self.looped.as_ref()?.render(context);
        Some(rendered.and_then(|value| match value.kind {
            Some(Kind::List(list)) => Ok(list.items),
            Some(Kind::Map(map)) => {
                let entry = |(key, value): (String, Value)| Value::map([("key", Value::text(key)), ("value", value)]);
                Ok(map.entries.into_iter().map(entry).collect())
            }
            _ => {
                let found = operators::described(&value);
                Err(EvaluationError::wrong(format!("is {found}, and must be a list or a map")))
            }
        }))
    }

    /// What `loop` itself reads.
    pub(crate) fn loop_references(&self) -> References {
        let mut references = References::default();
        self.looped.iter().for_each(|items| items.collect(&mut references));
        references
    }

    /// All that is read anywhere in the task, and in the conditions of its blocks.
    pub fn references(&self) -> References {
        let mut references = self.own_references();
        // What the conditions of an include read as `inputs` is not this task's.
        let inputs = |reference: &crate::references::Reference| reference.root != Root::Inputs;
        self.block_when.iter().for_each(|own| references.extend_if(own.when.references(), inputs));
        references
    }

    /// All that is read anywhere in the task itself.
    pub(crate) fn own_references(&self) -> References {
        let mut references = References::default();
        for expression in [&self.when, &self.success, &self.changed, &self.until].into_iter().flatten() {
            references.extend(expression.references());
        }
        self.parameters.collect(&mut references);
        references.extend(&self.loop_references());
        let texts = self.environment.iter().map(|(_, text)| text).chain(&self.user).chain(&self.working_directory);
        texts.for_each(|text| references.extend(text.references()));
        references
    }

    /// What the values of the environment read.
    pub fn environment_references(&self) -> References {
        let mut references = References::default();
        self.environment.iter().for_each(|(_, text)| references.extend(text.references()));
        references
    }

    /// What the parameters read.
    pub(crate) fn parameters_references(&self) -> References {
        let mut references = References::default();
        self.parameters.collect(&mut references);
        references
    }

    /// What is read by all that is rendered before the action starts: everything but the judging expressions and
    /// `validate`.
    pub(crate) fn rendered_references(&self) -> References {
        let mut references = self.environment_references();
        let early = self.parameters.entries.iter().filter(|(_, own)| !matches!(own, Parameter::Later { .. }));
        early.for_each(|(_, parameter)| parameter.collect(&mut references));
        let texts = self.user.iter().chain(&self.working_directory);
        texts.for_each(|text| references.extend(text.references()));
        references
    }

    /// The environment, rendered.
    pub fn environment(&self, context: &Context) -> Result<BTreeMap<String, String>, EvaluationError> {
        let rendered = self.environment.iter().map(|(name, text)| {
            let value = rendered_text(text, context).map_err(|error| error.within(&format!("environment.{name}")))?;
            Ok((name.clone(), value))
        });
        rendered.collect()
    }

    /// Whom a command runs as, rendered; "" if nobody is named.
    pub fn user(&self, context: &Context) -> Result<String, EvaluationError> {
        self.user.as_ref().map_or(Ok(String::new()), |text| rendered_text(text, context))
    }

    /// Where a command runs, rendered; "" if nothing is said.
    pub fn working_directory(&self, context: &Context) -> Result<String, EvaluationError> {
        self.working_directory.as_ref().map_or(Ok(String::new()), |text| rendered_text(text, context))
    }
}

fn rendered_text(text: &Text, context: &Context) -> Result<String, EvaluationError> {
    let value = text.render(context)?;
    let text = operators::scalar(&value).filter(|_| !value.is_null()).map(std::borrow::Cow::into_owned);
    text.ok_or_else(|| EvaluationError::wrong(format!("is {}, and must be a text", operators::described(&value))))
}

fn parse(fields: &Fields<'_>, cache: &mut TemplateCache) -> Result<TaskTexts, Vec<WrongText>> {
    let mut wrong = Vec::new();
    let mut expression = |field: &str, source: &str| {
        let parsed = (!source.is_empty()).then(|| Expression::parse(source))?;
        parsed.map_err(|error| wrong.push(WrongText { field: field.to_owned(), error })).ok()
    };
    let when = expression("when", fields.when);
    let success = expression("success", fields.success);
    let changed = expression("changed", fields.changed);
    let until = expression("retries.until", fields.until);
    let looped = fields.looped.and_then(|value| {
        let parsed = Interpolated::parse(value);
        let at = |(path, error): (String, SyntaxError)| WrongText { field: format!("loop{path}"), error };
        parsed.map_err(|errors| wrong.extend(errors.into_iter().map(at))).ok()
    });
    let mut text =
        |field: String, source: &str| Text::parse(source).map_err(|error| wrong.push(WrongText { field, error })).ok();
    let environment = fields.environment.iter();
    let environment = environment
        .filter_map(|(name, source)| Some((name.clone(), text(format!("environment.{name}"), source)?)))
        .collect();
    let mut given = |field: &str, source: &str| (!source.is_empty()).then(|| text(field.to_owned(), source)).flatten();
    let user = given("user", fields.user);
    let working_directory = given("workingDirectory", fields.working_directory);
    let parameters = match Parameters::parse(fields.action, fields.parameters, cache) {
        Ok(parameters) => parameters,
        Err(more) => {
            wrong.extend(more.into_iter().map(|WrongText { field, error }| {
                let field = format!("parameters{field}");
                WrongText { field, error }
            }));
            Parameters { entries: Vec::new() }
        }
    };
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(TaskTexts {
        when,
        block_when: Vec::new(),
        looped,
        success,
        changed,
        until,
        parameters,
        environment,
        user,
        working_directory,
    })
}

impl Parameters {
    /// Parses an action's parameters; fields in errors start with a dot: `.argv[2]`. Unknown actions and parameters are
    /// taken as interpolated: refusing them is validation's.
    pub fn parse(action: &str, value: Option<&Value>, cache: &mut TemplateCache) -> Result<Parameters, Vec<WrongText>> {
        let known = params::action(action);
        let Some(value) = value else { return Ok(Parameters { entries: Vec::new() }) };
        // A scalar or list in place of the map stands for one parameter.
        let shorthand;
        let entries = match (value.as_map(), known.and_then(|action| action.shorthand())) {
            (Some(entries), _) => entries,
            (None, Some(name)) => {
                shorthand = BTreeMap::from([(name.to_owned(), value.clone())]);
                &shorthand
            }
            (None, None) => return Ok(Parameters { entries: Vec::new() }),
        };
        let mut wrong = Vec::new();
        let mut parsed = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let format = known.and_then(|action| action.format(name)).unwrap_or(Format::Unspecified);
            match parse_parameter(name, value, format, cache) {
                Ok(parameter) => parsed.push((name.clone(), parameter)),
                Err(errors) => wrong.extend(
                    errors.into_iter().map(|(path, error)| WrongText { field: format!(".{name}{path}"), error }),
                ),
            }
        }
        if wrong.is_empty() { Ok(Parameters { entries: parsed }) } else { Err(wrong) }
    }

    /// The parameters' values: `${{ }}` and templates rendered, expressions of the action's own left as they are, and
    /// `validate` too, which [`Parameters::render_validate`] renders once `file` is known.
    pub fn render(&self, context: &Context) -> Result<Value, EvaluationError> {
        let rendered = self.entries.iter().map(|(name, parameter)| {
            let value = match parameter {
                Parameter::Interpolated(tree) => tree.render(context).map_err(|error| error.within(name))?,
                Parameter::Template(template) => template.render(context)?.into(),
                Parameter::Expressions { value, .. } | Parameter::Later { value, .. } => value.clone(),
            };
            Ok((name.clone(), value))
        });
        Ok(Kind::Map(ValueMap { entries: rendered.collect::<Result<_, EvaluationError>>()? }).into())
    }

    /// The value of `validate`, if it is given, with `file` in the context.
    pub fn render_validate(&self, context: &Context) -> Option<Result<Value, EvaluationError>> {
        self.entries.iter().find_map(|(name, parameter)| match parameter {
            Parameter::Later { parsed, .. } => Some(parsed.render(context).map_err(|error| error.within(name))),
            _ => None,
        })
    }

    /// The expressions that the action itself evaluates, such as the conditions of `assert.that`.
    pub fn expressions(&self, name: &str) -> &[Expression] {
        let found = self.entries.iter().find(|(own, _)| own == name);
        match found {
            Some((_, Parameter::Expressions { parsed, .. })) => parsed,
            _ => &[],
        }
    }

    /// What one parameter reads; nothing if it is not given.
    pub fn references_of(&self, name: &str) -> References {
        let mut references = References::default();
        let own = self.entries.iter().filter(|(own, _)| own == name);
        own.for_each(|(_, parameter)| parameter.collect(&mut references));
        references
    }

    fn collect(&self, references: &mut References) {
        self.entries.iter().for_each(|(_, parameter)| parameter.collect(references));
    }
}

impl Parameter {
    fn collect(&self, references: &mut References) {
        match self {
            Parameter::Interpolated(tree) | Parameter::Later { parsed: tree, .. } => tree.collect(references),
            Parameter::Template(template) => references.extend(template.references()),
            Parameter::Expressions { parsed, .. } => {
                parsed.iter().for_each(|expression| references.extend(expression.references()));
            }
        }
    }
}

fn parse_parameter(
    name: &str,
    value: &Value,
    format: Format,
    cache: &mut TemplateCache,
) -> Result<Parameter, Vec<(String, SyntaxError)>> {
    match (format, &value.kind) {
        (Format::Template, Some(Kind::Text(source))) => {
            cache.get(source).map(Parameter::Template).map_err(|error| vec![(String::new(), error)])
        }
        (Format::Expression, _) => {
            let (parsed, wrong) = parse_expressions(value);
            if wrong.is_empty() { Ok(Parameter::Expressions { value: value.clone(), parsed }) } else { Err(wrong) }
        }
        _ => {
            let parsed = Interpolated::parse(value)?;
            if name == VALIDATE {
                return Ok(Parameter::Later { value: value.clone(), parsed });
            }
            Ok(Parameter::Interpolated(parsed))
        }
    }
}

/// One expression, or a list of them. `true` and numbers are read as their text.
fn parse_expressions(value: &Value) -> (Vec<Expression>, Vec<(String, SyntaxError)>) {
    let (mut parsed, mut wrong) = (Vec::new(), Vec::new());
    let mut one = |path: String, value: &Value| {
        let source = operators::scalar(value).unwrap_or_default();
        match Expression::parse(&source) {
            Ok(expression) => parsed.push(expression),
            Err(error) => wrong.push((path, error)),
        }
    };
    match value.as_list() {
        Some(items) => items.iter().enumerate().for_each(|(index, item)| one(format!("[{index}]"), item)),
        None => one(String::new(), value),
    }
    (parsed, wrong)
}

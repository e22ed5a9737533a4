//! From the parser's tree to ours: names resolved, functions known, patterns compiled, what is read collected.
//! Knows syntax, never a value of the Run.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op};
use cel::parser::PrattParser;
use lockstep_apis::{nearest::nearest, v1alpha::Value};

use super::evaluate::{Loop, Node, Operator};
use super::functions::{self, Function};
use super::{MAX_DEPTH, MAX_OPERATORS, MAX_SOURCE_BYTES, SyntaxError};
use crate::references::{Reference, References, Root};

/// The parser's own recursion; above what [`MAX_DEPTH`] lets through only where one level of ours is several of its.
const PARSER_RECURSION: u16 = 96;

/// Parses, resolves and collects.
pub(super) fn parse(source: &str) -> Result<(Node, References), SyntaxError> {
    check_size(source)?;
    let tree = PrattParser::new()
        .max_recursion_depth(PARSER_RECURSION)
        .enable_ident_escape_syntax(true)
        .parse(source)
        .map_err(|errors| from_parser(&errors))?;
    let node = Lowering { source, variables: Vec::new() }.node(&tree, 0)?;
    let mut references = References::default();
    collect(&node, &mut references);
    if references.uses(Root::Nodes) {
        collect_facts(&node, &mut references);
    }
    Ok((node, references))
}

/// What the parser must never see: its tree is as deep as the source has operators, and it is slow on many macros.
fn check_size(source: &str) -> Result<(), SyntaxError> {
    let first = |message: String| Err(SyntaxError { message, line: 1, column: 1 });
    if source.trim().is_empty() {
        return first("is empty: write an expression such as `vars.port > 1024`".to_owned());
    }
    if source.len() > MAX_SOURCE_BYTES {
        return first(format!("has {} bytes: an expression has at most {MAX_SOURCE_BYTES}", source.len()));
    }
    // Inside quotes they are counted too: what the parser takes for a string is its secret.
    let operators = source.bytes().filter(|b| b"+-*/%<>=!&|?.[({".contains(b)).count();
    if operators > MAX_OPERATORS {
        return first(format!("has {operators} operators, dots and brackets: at most {MAX_OPERATORS} are allowed"));
    }
    Ok(())
}

fn from_parser(errors: &cel::ParseErrors) -> SyntaxError {
    let Some(error) = errors.errors.first() else {
        return SyntaxError { message: "is no expression".to_owned(), line: 1, column: 1 };
    };
    let message = error.msg.lines().next().unwrap_or_default().trim_start_matches("Syntax error: ");
    SyntaxError {
        message: format!("is no expression: {message}"),
        line: u32::try_from(error.pos.0).unwrap_or(1).max(1),
        column: u32::try_from(error.pos.1).unwrap_or(1).max(1),
    }
}

struct Lowering<'s> {
    source: &'s str,
    /// Of the loops around, outermost first.
    variables: Vec<String>,
}

impl Lowering<'_> {
    fn error(&self, near: &str, message: String) -> SyntaxError {
        let offset = self.source.find(near).unwrap_or(0);
        let before = &self.source[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        SyntaxError { message, line: line as u32, column: column as u32 }
    }

    fn node(&mut self, tree: &IdedExpr, depth: usize) -> Result<Node, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.error("", format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        let inner = depth + 1;
        match &tree.expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                let operand = Box::new(self.node(&select.operand, inner)?);
                if select.test {
                    return Ok(Node::Has { operand, field: select.field.clone() });
                }
                Ok(Node::Select { labels: is_labels(&operand), operand, field: select.field.clone() })
            }
            Expr::List(list) => Ok(Node::List(self.nodes(&list.elements, inner)?)),
            Expr::Map(map) => {
                let entries = map.entries.iter().map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => Ok((self.node(&entry.key, inner)?, self.node(&entry.value, inner)?)),
                    EntryExpr::StructField(field) => Err(self.error(&field.field, "is no map entry".to_owned())),
                });
                Ok(Node::Map(entries.collect::<Result<_, _>>()?))
            }
            Expr::Call(call) => self.call(call, inner),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, inner),
            Expr::Struct(made) => {
                Err(self.error(&made.type_name, format!("`{}{{}}`: there are no message types here", made.type_name)))
            }
            Expr::Unspecified => Err(self.error("", "is no expression".to_owned())),
        }
    }

    fn nodes(&mut self, trees: &[IdedExpr], depth: usize) -> Result<Vec<Node>, SyntaxError> {
        trees.iter().map(|tree| self.node(tree, depth)).collect()
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Node, SyntaxError> {
        Ok(Node::Literal(match literal {
            LiteralValue::Boolean(truth) => (*truth.inner()).into(),
            LiteralValue::Int(integer) => (*integer.inner()).into(),
            LiteralValue::Double(number) => (*number.inner()).into(),
            LiteralValue::String(text) => text.inner().into(),
            LiteralValue::Null => Value::null(),
            LiteralValue::UInt(_) => {
                return Err(self.error("", "there are no unsigned integers here: leave the `u` away".to_owned()));
            }
            LiteralValue::Bytes(_) => {
                return Err(self.error("", "there are no bytes here: leave the `b` before the quote away".to_owned()));
            }
        }))
    }

    fn name(&self, name: &str) -> Result<Node, SyntaxError> {
        if let Some(position) = self.variables.iter().rposition(|variable| variable == name) {
            return Ok(Node::Variable(self.variables.len() - 1 - position));
        }
        if let Some(root) = Root::find(name) {
            return Ok(Node::Root(root));
        }
        let variables = self.variables.iter().map(String::as_str);
        let known: Vec<&str> = Root::ALL.into_iter().map(|root| root.name()).chain(variables).collect();
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", Root::ALL.map(Root::name).join(", ")),
        };
        Err(self.error(name, format!("unknown name `{name}`: {hint}")))
    }

    fn call(&mut self, call: &CallExpr, depth: usize) -> Result<Node, SyntaxError> {
        // Before its arguments: those of a misspelt macro hold names that nothing declares.
        if call.func_name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.known_function(&call.func_name)?;
        }
        let mut arguments = Vec::new();
        if let Some(target) = &call.target {
            arguments.push(self.node(target, depth)?);
        }
        arguments.extend(self.nodes(&call.args, depth)?);
        let name = call.func_name.as_str();
        if let Some(operator) = Operator::find(name) {
            return self.operator(operator, name, arguments);
        }
        match (name, arguments.len()) {
            (op::LOGICAL_NOT, 1) => Ok(Node::Not(Box::new(arguments.remove(0)))),
            (op::NEGATE, 1) => Ok(Node::Negate(Box::new(arguments.remove(0)))),
            (op::CONDITIONAL, 3) => {
                let [condition, yes, no] = self.exactly(name, arguments)?;
                Ok(Node::If(Box::new([condition, yes, no])))
            }
            (op::LOGICAL_AND | op::LOGICAL_OR, 2) => {
                let pair = Box::new(self.exactly::<2>(name, arguments)?);
                Ok(Node::Logic { and: name == op::LOGICAL_AND, pair })
            }
            (op::INDEX, 2) => {
                let [operand, index] = self.exactly(name, arguments)?;
                Ok(Node::Index { labels: is_labels(&operand), pair: Box::new([operand, index]) })
            }
            _ => self.function(name, arguments),
        }
    }

    fn operator(&self, operator: Operator, name: &str, arguments: Vec<Node>) -> Result<Node, SyntaxError> {
        let pair = Box::new(self.exactly::<2>(name, arguments)?);
        Ok(Node::Binary { operator, pair })
    }

    fn exactly<const N: usize>(&self, name: &str, arguments: Vec<Node>) -> Result<[Node; N], SyntaxError> {
        let count = arguments.len();
        arguments.try_into().map_err(|_| self.error(name, format!("`{name}` takes {N} operands, not {count}")))
    }

    fn known_function(&self, name: &str) -> Result<Function, SyntaxError> {
        Function::find(name).ok_or_else(|| {
            let hint = match nearest(name, Function::names()) {
                Some(near) if near == name => "check how many arguments it takes".to_owned(),
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", Function::names().collect::<Vec<_>>().join(", ")),
            };
            self.error(name, format!("unknown function `{name}`: {hint}"))
        })
    }

    fn function(&self, name: &str, arguments: Vec<Node>) -> Result<Node, SyntaxError> {
        let function = self.known_function(name)?;
        let takes = function.takes();
        if !takes.contains(&arguments.len()) {
            let message = format!(
                "`{name}` takes {} arguments, counting what stands before its dot, not {}",
                if takes.start() == takes.end() {
                    takes.start().to_string()
                } else {
                    format!("{} or {}", takes.start(), takes.end())
                },
                arguments.len()
            );
            return Err(self.error(name, message));
        }
        // A pattern that is written out is compiled here, and wrong ones are told before anything runs.
        let written = arguments.get(1).filter(|_| function == Function::Matches).and_then(Node::literal_text);
        let pattern = written.map(functions::pattern).transpose().map_err(|message| self.error("matches", message))?;
        Ok(Node::Call { function, arguments, pattern })
    }

    /// A loop, as the parser's macros write it. Users cannot write `@result`, so the forms are these and no others.
    fn comprehension(&mut self, made: &ComprehensionExpr, depth: usize) -> Result<Node, SyntaxError> {
        let range = self.node(&made.iter_range, depth)?;
        self.variables.push(made.iter_var.clone());
        let parts = self.loop_parts(made, depth);
        self.variables.pop();
        let (kind, condition, body) = parts?;
        Ok(Node::Loop { kind, range: Box::new(range), condition: condition.map(Box::new), body: body.map(Box::new) })
    }

    fn loop_parts(
        &mut self,
        made: &ComprehensionExpr,
        depth: usize,
    ) -> Result<(Loop, Option<Node>, Option<Node>), SyntaxError> {
        let odd = || SyntaxError { message: "has a loop of an unknown form".to_owned(), line: 1, column: 1 };
        let Expr::Call(step) = &made.loop_step.expr else { return Err(odd()) };
        let argument = |index: usize| step.args.get(index).ok_or_else(odd);
        match &made.accu_init.expr {
            Expr::Literal(LiteralValue::Boolean(start)) => {
                let kind = if *start.inner() { Loop::All } else { Loop::Exists };
                Ok((kind, Some(self.node(argument(1)?, depth)?), None))
            }
            Expr::Literal(LiteralValue::Int(_)) => Ok((Loop::ExistsOne, Some(self.node(argument(0)?, depth)?), None)),
            Expr::List(_) => {
                let conditional = step.func_name == op::CONDITIONAL;
                let condition = if conditional { Some(self.node(argument(0)?, depth)?) } else { None };
                let add = if conditional {
                    match &argument(1)?.expr {
                        Expr::Call(add) => add,
                        _ => return Err(odd()),
                    }
                } else {
                    step
                };
                let Some(Expr::List(made)) = add.args.get(1).map(|made| &made.expr) else { return Err(odd()) };
                let body = self.node(made.elements.first().ok_or_else(odd)?, depth)?;
                Ok((Loop::Map, condition, Some(body)))
            }
            _ => Err(odd()),
        }
    }
}

/// Whether this is the labels of a node, where what is missing is "".
fn is_labels(node: &Node) -> bool {
    let Node::Select { operand, field, .. } = node else { return false };
    field == "labels"
        && match operand.as_ref() {
            Node::Root(root) => matches!(root, Root::Node | Root::Delegate),
            Node::Variable(_) => true,
            Node::Index { pair, .. } => matches!(pair[0], Node::Root(Root::Nodes)),
            _ => false,
        }
}

/// The fixed path of a chain of names, if it starts at a root; and what calculates its rest.
fn path(node: &Node) -> Option<(Reference, Vec<&Node>)> {
    match node {
        Node::Root(root) => Some((Reference { root: *root, path: Vec::new(), open: false }, Vec::new())),
        Node::Select { operand, field, .. } | Node::Has { operand, field } => {
            let (mut reference, rest) = path(operand)?;
            if !reference.open {
                reference.path.push(field.clone());
            }
            Some((reference, rest))
        }
        Node::Index { pair, .. } => {
            let (mut reference, mut rest) = path(&pair[0])?;
            match pair[1].literal_text() {
                Some(text) if !reference.open => reference.path.push(text.to_owned()),
                _ => {
                    reference.open = true;
                    rest.push(&pair[1]);
                }
            }
            Some((reference, rest))
        }
        _ => None,
    }
}

/// What is read below `facts` of one of `nodes`, as paths of `nodes`: so much must be known of each.
fn collect_facts(node: &Node, references: &mut References) {
    match below_element(node) {
        Some(names) if names.first().is_some_and(|first| first == "facts") => {
            references.add(Reference { root: Root::Nodes, path: names, open: false });
        }
        // What calculates an index, or makes the list, may read some, too.
        _ => node.children().into_iter().for_each(|child| collect_facts(child, references)),
    }
}

/// The fixed path below the item of a loop, or of a list.
fn below_element(node: &Node) -> Option<Vec<String>> {
    let (operand, name) = match node {
        Node::Variable(_) => return Some(Vec::new()),
        Node::Select { operand, field, .. } | Node::Has { operand, field } => (&**operand, Some(field.as_str())),
        Node::Index { pair, .. } => match pair[1].literal_text() {
            Some(text) => (&pair[0], Some(text)),
            // Which item is calculated, and of what below it is read all may be.
            None => match below_element(&pair[0]) {
                Some(names) => return Some(names),
                None => return Some(Vec::new()),
            },
        },
        _ => return None,
    };
    let mut names = below_element(operand)?;
    names.extend(name.map(str::to_owned));
    Some(names)
}

fn collect(node: &Node, references: &mut References) {
    if let Some((reference, rest)) = path(node) {
        references.add(reference);
        rest.into_iter().for_each(|node| collect(node, references));
        return;
    }
    node.children().into_iter().for_each(|child| collect(child, references));
}

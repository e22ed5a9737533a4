//! From the Handlebars parser's tree to ours: names resolved, helpers known, expressions parsed, what is read
//! collected. Knows syntax, never a value of the Run.

use std::sync::Arc;

use handlebars::template::{BlockParam, HelperTemplate, Parameter, Template as Tree, TemplateElement};
use handlebars::{Path, PathSeg, TemplateErrorReason};
use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::Value;

use super::helpers::Helper;
use super::render::{Base, Operand, Part};
use crate::expression::{Expression, SyntaxError};
use crate::references::{Reference, References, Root};

pub(super) fn parse(source: &str) -> Result<(Vec<Part>, References), SyntaxError> {
    let tree = Tree::compile(source).map_err(|error| {
        let (line, column) = error.pos().unwrap_or((1, 1));
        SyntaxError { message: sentence(error.reason()), line: line as u32, column: column as u32 }
    })?;
    let mut lowering = Lowering { scopes: Vec::new(), at: (1, 1), references: References::default() };
    let body = lowering.body(&tree)?;
    Ok((body, lowering.references))
}

fn sentence(reason: &TemplateErrorReason) -> String {
    let text = reason.to_string();
    let useful = text.lines().map(str::trim).rfind(|line| line.starts_with("= ")).map(|line| &line[2..]);
    format!("is no template: {}", useful.unwrap_or_else(|| text.lines().next().unwrap_or_default()))
}

/// The names that a block gives to what it goes through.
#[derive(Default)]
struct Scope {
    value: Option<String>,
    second: Option<String>,
}

struct Lowering {
    scopes: Vec<Scope>,
    at: (u32, u32),
    references: References,
}

impl Lowering {
    fn error(&self, message: String) -> SyntaxError {
        SyntaxError { message, line: self.at.0, column: self.at.1 }
    }

    fn body(&mut self, tree: &Tree) -> Result<Vec<Part>, SyntaxError> {
        let mut parts = Vec::with_capacity(tree.elements.len());
        for (index, element) in tree.elements.iter().enumerate() {
            if let Some(mapping) = tree.mapping.get(index) {
                self.at = (mapping.0 as u32, mapping.1 as u32);
            }
            match element {
                TemplateElement::RawString(text) => parts.push(Part::Text(text.as_str().into())),
                TemplateElement::Expression(tag) | TemplateElement::HtmlExpression(tag) => {
                    let line = self.at.0;
                    parts.push(Part::Value { value: self.tag(tag)?, line });
                }
                TemplateElement::HelperBlock(tag) => self.block(tag, &mut parts)?,
                TemplateElement::Comment(_) => {}
                _ => return Err(self.error("partials and decorators are not part of the language".to_owned())),
            }
        }
        Ok(parts)
    }

    fn inner(&mut self, tree: Option<&Tree>) -> Result<Box<[Part]>, SyntaxError> {
        tree.map_or_else(|| Ok(Box::default()), |tree| self.body(tree).map(Vec::into_boxed_slice))
    }

    fn block(&mut self, tag: &HelperTemplate, parts: &mut Vec<Part>) -> Result<(), SyntaxError> {
        let name = tag.name.as_name().unwrap_or_default();
        let line = self.at.0;
        if name == "raw" {
            parts.extend(self.inner(tag.template.as_ref())?);
            return Ok(());
        }
        if !["if", "unless", "each", "with"].contains(&name) {
            let hint = nearest(name, ["if", "unless", "each", "with", "raw"]).unwrap_or("if");
            return Err(self.error(format!("unknown block `{name}`: did you mean `{hint}`?")));
        }
        let [subject] = tag.params.as_slice() else {
            return Err(self.error(format!("`{name}` takes one argument, not {}", tag.params.len())));
        };
        if let Some(option) = tag.hash.keys().min() {
            return Err(self.error(format!("`{name}` has no option `{option}`")));
        }
        let subject = Box::new(self.parameter(subject)?);
        if matches!(name, "if" | "unless") {
            let (then, otherwise) = (self.inner(tag.template.as_ref())?, self.inner(tag.inverse.as_ref())?);
            let negate = name == "unless";
            parts.push(Part::If { subject, negate, then, otherwise, line });
            return Ok(());
        }
        self.scopes.push(scope(tag.block_param.as_ref()));
        let then = self.inner(tag.template.as_ref());
        self.scopes.pop();
        let (then, otherwise) = (then?, self.inner(tag.inverse.as_ref())?);
        parts.push(if name == "each" {
            Part::Each { subject, then, otherwise, line }
        } else {
            Part::With { subject, then, otherwise, line }
        });
        Ok(())
    }

    /// A tag that is no block: a name, or a helper with arguments.
    fn tag(&mut self, tag: &HelperTemplate) -> Result<Operand, SyntaxError> {
        if tag.params.is_empty() && tag.hash.is_empty() {
            return self.parameter(&tag.name);
        }
        let name = tag.name.as_name().unwrap_or_default();
        let Some(helper) = Helper::find(name) else {
            let hint = match nearest(name, Helper::names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", Helper::names().collect::<Vec<_>>().join(", ")),
            };
            return Err(self.error(format!("unknown helper `{name}`: {hint}")));
        };
        if helper == Helper::Expression {
            return self.expression(tag);
        }
        if !helper.takes().contains(&tag.params.len()) {
            return Err(self.error(format!("`{name}` is written {}", helper.usage())));
        }
        let arguments = tag.params.iter().map(|parameter| self.parameter(parameter)).collect::<Result<Vec<_>, _>>()?;
        if let Some(option) = tag.hash.keys().min() {
            return Err(self.error(format!("`{name}` has no option `{option}`: it is written {}", helper.usage())));
        }
        Ok(Operand::Call { helper, arguments })
    }

    fn expression(&mut self, tag: &HelperTemplate) -> Result<Operand, SyntaxError> {
        let [Parameter::Literal(serde_json::Value::String(source))] = tag.params.as_slice() else {
            return Err(self.error(format!("`expr` is written {}", Helper::Expression.usage())));
        };
        let expression = Expression::parse(source)
            .map_err(|error| self.error(format!("in `expr`, at {}:{}: {}", error.line, error.column, error.message)))?;
        self.references.extend(expression.references());
        Ok(Operand::Expression(Box::new(expression)))
    }

    fn parameter(&mut self, parameter: &Parameter) -> Result<Operand, SyntaxError> {
        match parameter {
            Parameter::Literal(literal) => Ok(Operand::Literal(Box::new(Value::from(literal.clone())))),
            Parameter::Path(Path::Local((level, name, _))) => self.local(*level, name),
            Parameter::Path(Path::Relative((segments, raw))) => {
                let named = segments.iter().filter_map(|segment| match segment {
                    PathSeg::Named(name) => Some(name.clone()),
                    _ => None,
                });
                self.path(named.collect(), raw)
            }
            Parameter::Name(name) => self.path(vec![name.clone()], name),
            Parameter::Subexpression(inner) => match inner.as_element() {
                TemplateElement::Expression(tag) => self.tag(tag),
                _ => Err(self.error("has brackets around what is no helper".to_owned())),
            },
            _ => Err(self.error("has a parameter of an unknown form".to_owned())),
        }
    }

    /// `@index` and its kin.
    fn local(&self, level: usize, name: &str) -> Result<Operand, SyntaxError> {
        if level >= self.scopes.len() {
            return Err(self.error(format!("`@{name}` is only known inside `each`")));
        }
        let base = match name {
            "index" => Base::Index(level),
            "key" => Base::Key(level),
            "first" => Base::First(level),
            "last" => Base::Last(level),
            _ => return Err(self.error(format!("unknown `@{name}`: there are @index, @key, @first, @last and @root"))),
        };
        Ok(Operand::Path { base, path: Box::default(), written: format!("@{name}").into() })
    }

    fn path(&mut self, mut names: Vec<String>, raw: &str) -> Result<Operand, SyntaxError> {
        let mut up = 0;
        let mut rest = raw;
        while let Some(after) = rest.strip_prefix("../") {
            (up, rest) = (up + 1, after);
        }
        let written = rest.trim_start_matches("@root.").trim_start_matches("@root/").into();
        // A block's own names are found from the innermost outwards, as `../` does not change them.
        let own = names.first().filter(|_| up == 0 && !raw.starts_with(['@', '.']) && !raw.starts_with("this"));
        if let Some(base) = own.and_then(|first| self.block_name(first)) {
            names.remove(0);
            return Ok(Operand::Path { base, path: names.into(), written });
        }
        if up < self.scopes.len() && !raw.starts_with("@root") {
            let base = Base::Item(up);
            return Ok(Operand::Path { base, path: names.into(), written });
        }
        if names.is_empty() {
            return Err(self.error("`this` is only known inside `each` and `with`".to_owned()));
        }
        let first = names.remove(0);
        let Some(root) = Root::find(&first) else {
            let hint = match nearest(&first, Root::ALL.into_iter().map(|root| root.name())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", Root::ALL.map(Root::name).join(", ")),
            };
            return Err(self.error(format!("unknown name `{first}`: {hint}")));
        };
        let reference = Arc::new(Reference { root, path: names, open: false });
        self.references.add_shared(Arc::clone(&reference));
        Ok(Operand::Name(reference))
    }

    fn block_name(&self, name: &str) -> Option<Base> {
        self.scopes.iter().rev().enumerate().find_map(|(level, scope)| {
            if scope.value.as_deref() == Some(name) {
                Some(Base::Item(level))
            } else if scope.second.as_deref() == Some(name) {
                Some(Base::Second(level))
            } else {
                None
            }
        })
    }
}

fn scope(parameter: Option<&BlockParam>) -> Scope {
    let name = |parameter: &Parameter| parameter.as_name().map(str::to_owned);
    match parameter {
        Some(BlockParam::Single(value)) => Scope { value: name(value), second: None },
        Some(BlockParam::Pair((value, second))) => Scope { value: name(value), second: name(second) },
        _ => Scope::default(),
    }
}

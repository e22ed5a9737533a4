//! The actions and their parameters: checked before they are rendered, typed after.

use std::{collections::HashMap, sync::OnceLock};

use prost::Message;

use crate::{
    descriptor::{self, Shape, Type},
    manifest, nearest,
    tree::Node,
    v1alpha::{Format, Value, Violation},
    violation::{self, Path, Violations, shown},
    walk::{Mode, Walk},
};

/// One action, as its message's options say.
pub struct Action {
    /// `file.managed`
    pub name: &'static str,
    /// Done again, it changes nothing.
    pub converges: bool,
    /// May be cut off and started again: the default of `onInterrupt` is Rerun.
    pub repeatable: bool,
    /// Never changes anything.
    pub reads_only: bool,
    pub(crate) message: &'static descriptor::Message,
}

impl Action {
    /// Whether it changes nothing with these parameters, as the book writes them: what only `${{ }}` tells may change.
    pub fn only_reads(&self, parameters: Option<&Value>) -> bool {
        let Some((field, values)) = self.message.rules.reads_only_with.split_once('=') else { return self.reads_only };
        match parameters.and_then(|parameters| parameters.get(field)) {
            None => true,
            Some(value) => value.as_text().is_some_and(|text| text.is_empty() || values.split(',').any(|v| v == text)),
        }
    }

    /// What a parameter's text must be; `None`: there is no such parameter.
    /// `Expression` and `Template` are languages of their own, so no `${{ }}` is rendered in them.
    pub fn format(&self, parameter: &str) -> Option<Format> {
        self.message.field(parameter).map(|field| field.rules.format())
    }

    /// The names of the parameters, in the order of the proto.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.message.fields.iter().map(|field| field.json.as_str())
    }

    /// A parameter's value as it is typed on a command line, where nobody quotes: where text is wanted it is the text as
    /// it stands, in a list of texts the only item. All else, a list in brackets too, is read as YAML. Errors: text that
    /// is no YAML.
    pub fn typed(&self, parameter: &str, text: &str) -> Result<Value, Vec<Violation>> {
        let field = self.message.field(parameter).filter(|field| field.ty == Type::Text);
        match field.map(|field| field.shape) {
            Some(Shape::One | Shape::Optional) => Ok(Value::text(text)),
            Some(Shape::List) if !text.trim_start().starts_with('[') => Ok(Value::list([Value::text(text)])),
            _ => manifest::decode_value(parameter, text.as_bytes()),
        }
    }

    /// The parameter that a scalar or list in place of the map stands for: `time.sleep: 5s`.
    pub fn shorthand(&self) -> Option<&'static str> {
        self.message.field(&self.message.rules.shorthand).map(|field| field.json.as_str())
    }
}

/// All actions, in the order of `actions.proto`.
pub fn actions() -> &'static [Action] {
    static ACTIONS: OnceLock<Vec<Action>> = OnceLock::new();
    ACTIONS.get_or_init(|| {
        let messages = descriptor::table().messages.iter();
        messages
            .filter(|message| !message.rules.action.is_empty())
            .map(|message| Action {
                name: &message.rules.action,
                converges: message.rules.converges,
                repeatable: message.rules.converges || message.rules.repeatable,
                reads_only: message.rules.reads_only,
                message,
            })
            .collect()
    })
}

/// The action of that name.
pub fn action(name: &str) -> Option<&'static Action> {
    static BY_NAME: OnceLock<HashMap<&'static str, &'static Action>> = OnceLock::new();
    BY_NAME.get_or_init(|| actions().iter().map(|action| (action.name, action)).collect()).get(name).copied()
}

/// The action's name that is nearest to one that is none.
pub fn nearest(name: &str) -> Option<&'static str> {
    nearest::nearest(name, actions().iter().map(|action| action.name))
}

/// The tail of a message about a wrong action: its nearest, else its family, else all.
pub(crate) fn hint(name: &str) -> String {
    if let Some(near) = nearest(name) {
        return format!("; did you mean `{near}`?");
    }
    let family = name.split('.').next().unwrap_or_default();
    let of_family: Vec<_> = actions().iter().map(|a| a.name).filter(|n| n.split('.').next() == Some(family)).collect();
    let names = if of_family.is_empty() { actions().iter().map(|action| action.name).collect() } else { of_family };
    format!("; there is {}", names.join(", "))
}

/// Checks parameters in which `${{ }}` may still stand for any scalar.
pub fn check(action: &str, parameters: &Value) -> Vec<Violation> {
    let mut violations = Violations::new("");
    walk(action, parameters, Mode { expressions: true, ..Mode::default() }, &mut violations);
    violations.list
}

/// Decodes rendered parameters into the action's message. Numbers and booleans are taken as text where text is wanted,
/// since an expression may have kept its type.
pub fn decode<M: Message + Default>(action: &str, parameters: &Value) -> Result<M, Vec<Violation>> {
    let mut violations = Violations::new("");
    let bytes = walk(action, parameters, Mode { rendered: true, ..Mode::default() }, &mut violations);
    if !violations.list.is_empty() {
        return Err(violations.list);
    }
    M::decode(bytes.as_slice()).map_err(|error| {
        vec![violation::of_field("TypeMismatch", action, format!("the parameters are of another action: {error}"))]
    })
}

fn walk(name: &str, parameters: &Value, mode: Mode<'_>, violations: &mut Violations<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(action) = action(name) else {
        let message = format!("no action is called {}{}", shown(name), hint(name));
        violations.push(Default::default(), &Path::Root, "UnknownAction", message);
        return out;
    };
    // `command.run:` without parameters, as the text form allows.
    let node = if parameters.is_null() { Node::map(Vec::new()) } else { Node::from(parameters) };
    Walk { violations, mode }.message(action.message, &node, &Path::Root, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1alpha::{AssertThat, CommandRun, FileManaged, TimeSleep};

    fn value(json: serde_json::Value) -> Value {
        json.into()
    }

    #[test]
    fn rendered_parameters_become_the_actions_message() {
        let given =
            value(serde_json::json!({"path": "/etc/motd", "content": 8080, "parents": true, "validate": ["true"]}));
        let managed: FileManaged = decode("file.managed", &given).unwrap();
        assert_eq!(
            (managed.path.as_str(), managed.content.as_deref(), managed.parents),
            ("/etc/motd", Some("8080"), true)
        );
        assert_eq!(managed.validate.unwrap().argv, ["true"]);
        let empty: FileManaged =
            decode("file.managed", &value(serde_json::json!({"path": "/a", "content": ""}))).unwrap();
        assert_eq!((empty.content, empty.template), (Some(String::new()), None));
    }

    #[test]
    fn what_is_typed_needs_no_quotes() {
        let json = |action: &str, parameter: &str, text: &str| {
            serde_json::Value::from(&super::action(action).unwrap().typed(parameter, text).unwrap())
        };
        assert_eq!(json("file.managed", "mode", "0644"), "0644");
        assert_eq!(json("file.managed", "content", "on: {"), "on: {");
        assert_eq!(json("file.managed", "parents", "true"), true);
        assert_eq!(json("package.installed", "names", "nginx"), serde_json::json!(["nginx"]));
        assert_eq!(json("package.installed", "names", "[nginx, curl]"), serde_json::json!(["nginx", "curl"]));
        assert_eq!(json("file.managed", "nope", "1"), 1);
        assert!(super::action("file.managed").unwrap().typed("parents", "{").is_err());
    }

    #[test]
    fn shorthands_stand_for_their_parameter() {
        let sleep: TimeSleep = decode("time.sleep", &value("1m".into())).unwrap();
        assert_eq!(sleep.duration.unwrap().seconds, 60);
        let assert: AssertThat = decode("assert.that", &value(serde_json::json!(["a == 1", true]))).unwrap();
        assert_eq!(assert.conditions, ["a == 1", "true"]);
    }

    #[test]
    fn expressions_stand_for_anything_before_they_are_rendered_and_for_nothing_after() {
        let given = value(serde_json::json!({
            "path": "${{ vars.dir }}/motd", "parents": "${{ vars.deep }}", "mode": "${{ vars.mode }}", "validate": "${{ vars.check }}"
        }));
        assert_eq!(check("file.managed", &given), []);
        assert!(decode::<FileManaged>("file.managed", &given).is_err());
        let wrong = check("file.managed", &value(serde_json::json!({"path": "etc", "parents": "x", "nope": 1})));
        let reasons: Vec<_> = wrong.iter().map(|violation| violation.reason.as_str()).collect();
        assert_eq!(reasons, ["UnknownField", "TypeMismatch", "InvalidPath"]);
    }

    #[test]
    fn a_command_needs_exactly_one_of_argv_and_shell() {
        for json in
            [serde_json::json!({}), serde_json::json!({"argv": ["a"], "shell": "a"}), serde_json::json!({"argv": []})]
        {
            assert!(decode::<CommandRun>("command.run", &value(json)).is_err());
        }
        assert_eq!(nearest("comand.run"), Some("command.run"));
        assert!(hint("no.such").contains("file.managed"));
        assert!(action("command.query").unwrap().only_reads(None));
        assert!(!action("command.run").unwrap().only_reads(None));
        let method = |method: &str| value(serde_json::json!({"url": "http://a/", "method": method}));
        let ask = action("http.request").unwrap();
        assert!(ask.only_reads(None) && ask.only_reads(Some(&method("HEAD"))));
        assert!(!ask.only_reads(Some(&method("POST"))) && !ask.only_reads(Some(&method("${{ vars.method }}"))));
        assert_eq!(action("assert.that").unwrap().format("conditions"), Some(Format::Expression));
    }
}

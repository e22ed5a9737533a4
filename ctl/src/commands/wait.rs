//! `lockstep wait`: until objects are as they should be.

use super::{
    get::{bare, fetch, kind_and_name, namespace_of},
    watch::Watch,
};
use crate::{
    cli::Wait,
    context::Session,
    error::{Error, Result},
    render::{jsonpath::JsonPath, phase_word},
};
use lockstep_apis::{
    duration,
    kinds::Kind,
    manifest,
    v1alpha::{Condition, Object, RunPhase, WatchRequest, object::Kind as Message},
};
use std::time::Duration;
use tonic::Code;

/// A watch cannot tell of what was gone before it began: so often is looked again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn wait(session: &Session, arguments: &Wait) -> Result<()> {
    let wanted = Wanted::parse(&arguments.until)?;
    let limit = duration::parse(&arguments.timeout)
        .map_err(|e| Error::Usage(format!("--timeout {}: {e}", arguments.timeout)))?;
    let (kind, first) = kind_and_name(&arguments.kind)?;
    let names: Vec<&str> = first.into_iter().chain(arguments.names.iter().map(|name| bare(kind, name))).collect();
    if names.is_empty() {
        return Err(Error::Usage(format!("wait for which of the {}? Give names", kind.plural)));
    }
    let all = async {
        for name in &names {
            one(session, kind, name, &wanted).await?;
            println!("{}/{name} {}", kind.name.to_lowercase(), wanted.met());
        }
        Ok(())
    };
    match tokio::time::timeout(Duration::from_millis(limit), all).await {
        Ok(ended) => ended,
        Err(_) => Err(Error::TimedOut(format!("{} did not come within {}", arguments.until, arguments.timeout))),
    }
}

/// What is waited for.
enum Wanted {
    Phase(String),
    Condition(String, String),
    Path(JsonPath, String),
    Delete,
}

impl Wanted {
    fn parse(text: &str) -> Result<Wanted> {
        let pair = |text: &str, what: &str| {
            text.rsplit_once('=')
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
                .ok_or_else(|| Error::Usage(format!("--for {what}: write {what}")))
        };
        if text == "delete" {
            return Ok(Wanted::Delete);
        }
        if let Some(phase) = text.strip_prefix("phase=").filter(|phase| !phase.is_empty()) {
            return Ok(Wanted::Phase(phase.to_owned()));
        }
        if let Some(condition) = text.strip_prefix("condition=").filter(|condition| !condition.is_empty()) {
            let (name, status) = condition.split_once('=').unwrap_or((condition, "True"));
            return Ok(Wanted::Condition(name.to_owned(), status.to_owned()));
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            let (path, value) = pair(path, "jsonpath={.path}=VALUE")?;
            let path = JsonPath::parse(&path).map_err(|e| Error::Usage(format!("--for {text}: {e}")))?;
            return Ok(Wanted::Path(path, value));
        }
        Err(Error::Usage(format!(
            "--for {text}: write phase=PHASE, condition=TYPE, condition=TYPE=STATUS, jsonpath={{.path}}=VALUE or delete"
        )))
    }

    fn met(&self) -> String {
        match self {
            Wanted::Phase(phase) => format!("is {phase}"),
            Wanted::Condition(name, status) => format!("has {name}={status}"),
            Wanted::Path(_, value) => format!("has {value}"),
            Wanted::Delete => "is deleted".into(),
        }
    }

    /// Whether the object, or that there is none, is what is waited for. Errors: it can no longer become so.
    fn is_met_by(&self, object: Option<&Object>) -> Result<bool> {
        let Some(object) = object else { return Ok(matches!(self, Wanted::Delete)) };
        match self {
            Wanted::Delete => Ok(false),
            Wanted::Condition(name, status) => {
                let found = conditions(object).iter().find(|condition| condition.r#type.eq_ignore_ascii_case(name));
                Ok(found.is_some_and(|condition| condition.status.eq_ignore_ascii_case(status)))
            }
            Wanted::Path(path, value) => Ok(path.render(&manifest::to_json(object)).trim_end() == value),
            Wanted::Phase(wanted) => {
                let (phase, is_final) = phase(object);
                match phase.eq_ignore_ascii_case(wanted) {
                    true => Ok(true),
                    false if is_final => {
                        let name = crate::render::path(object);
                        eprintln!("lockstep: {name} is {phase}; it will not be {wanted} any more");
                        Err(Error::RunFailed)
                    }
                    false => Ok(false),
                }
            }
        }
    }
}

async fn one(session: &Session, kind: &'static Kind, name: &str, wanted: &Wanted) -> Result<()> {
    loop {
        let found = match fetch(session, kind, name).await {
            Ok(object) => Some(object),
            Err(Error::Status(status)) if status.code() == Code::NotFound => None,
            Err(error) => return Err(error),
        };
        if wanted.is_met_by(found.as_ref())? {
            return Ok(());
        }
        let request = WatchRequest {
            kind: kind.name.to_owned(),
            namespace: namespace_of(session, kind.name),
            name: name.to_owned(),
            resource_version: found.map(|object| object.metadata().resource_version.clone()).unwrap_or_default(),
            ..WatchRequest::default()
        };
        let mut watch = Watch::new(session, request);
        // Any change, or a while: then it is read again, and judged as it is.
        if let Ok(ended) = tokio::time::timeout(LOOK_AGAIN, watch.next()).await {
            ended?;
        }
    }
}

fn conditions(object: &Object) -> &[Condition] {
    match &object.kind {
        Some(Message::Node(node)) => node.status.as_ref().map_or(&[], |status| &status.conditions),
        Some(Message::Run(run)) => run.status.as_ref().map_or(&[], |status| &status.conditions),
        _ => &[],
    }
}

/// The phase's word, and whether it is the last.
fn phase(object: &Object) -> (String, bool) {
    match &object.kind {
        Some(Message::Run(run)) => {
            let phase = run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase());
            (phase_word(phase).to_owned(), super::listing::has_ended(object))
        }
        Some(Message::Namespace(namespace)) => {
            (namespace.status.as_ref().map(|status| status.phase.clone()).unwrap_or_default(), false)
        }
        Some(Message::Node(node)) => {
            (node.status.as_ref().map(|status| status.liveness.clone()).unwrap_or_default(), false)
        }
        _ => (String::new(), false),
    }
}

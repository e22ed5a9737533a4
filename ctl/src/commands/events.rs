//! `lockstep events`.

use super::{
    get::{kind, kind_and_name},
    listing::{self, Listing},
    nodes::one_of,
};
use crate::{
    cli::Events,
    context::Session,
    error::{Error, Result},
    render::table::Columns,
};
use lockstep_apis::{
    duration, timestamp,
    v1alpha::{Event, EventSeverity, Object, object::Kind as Message},
};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) async fn events(session: &Session, events: Events) -> Result<()> {
    let wanted = Wanted::of(session, &events)?;
    let filter = |object: &Object| match &object.kind {
        Some(Message::Event(event)) => wanted.is_met_by(event),
        _ => false,
    };
    let listing = Listing {
        kind: kind("events")?,
        namespace: if events.all_namespaces { String::new() } else { wanted.namespace.clone() },
        selector: events.selector.unwrap_or_default(),
        names: Vec::new(),
        output: &events.printed.output,
        columns: Columns { namespaces: events.all_namespaces, ..Columns::default() },
        watch: events.printed.watch,
        filter: &filter,
        newest: None,
    };
    listing::show(session, listing).await
}

/// Which events.
struct Wanted {
    /// In which they are.
    namespace: String,
    /// `Kind/namespace/name` or `Kind/name`; empty: of any.
    regarding: String,
    types: Vec<String>,
    severity: EventSeverity,
    node: String,
    since_ms: u64,
}

impl Wanted {
    fn of(session: &Session, events: &Events) -> Result<Wanted> {
        let (mut namespace, mut regarding) = (session.namespace.clone(), String::new());
        if let Some(about) = &events.about {
            let (kind, name) = match kind_and_name(about)? {
                (kind, Some(name)) => (kind, name),
                (kind, None) => {
                    return Err(Error::Usage(format!("events about which {}? Give {about}/NAME", kind.name)));
                }
            };
            regarding = match kind.namespaced {
                true => format!("{}/{namespace}/{name}", kind.name),
                false => format!("{}/{name}", kind.name),
            };
            if !kind.namespaced {
                "system".clone_into(&mut namespace);
            }
        }
        let severity = match one_of(&events.severity, &["Info", "Warning", "Critical"], "severity")? {
            "Warning" => EventSeverity::Warning,
            "Critical" => EventSeverity::Critical,
            _ => EventSeverity::Info,
        };
        let since_ms = match &events.since {
            Some(text) => {
                let ago = duration::parse(text).map_err(|e| Error::Usage(format!("--since {text}: {e}")))?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(ago)
            }
            None => 0,
        };
        let node = events.node.clone().unwrap_or_default();
        Ok(Wanted { namespace, regarding, types: events.types.clone(), severity, node, since_ms })
    }

    fn is_met_by(&self, event: &Event) -> bool {
        let Some(spec) = &event.spec else { return false };
        let of_type = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => spec.r#type.starts_with(prefix),
            None => spec.r#type == *wanted,
        };
        (self.regarding.is_empty() || spec.regarding == self.regarding)
            && (self.types.is_empty() || self.types.iter().any(of_type))
            && spec.severity().max(EventSeverity::Info) >= self.severity
            && (self.node.is_empty() || spec.node == self.node)
            && spec.at.as_ref().map_or(0, timestamp::to_ms) >= self.since_ms
    }
}

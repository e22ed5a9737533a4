//! What a user sends, judged and made into what is stored: pure. Knows the rules of kinds that need no other object.

use lockstep_apis::commit::{Compare, Entry};
use lockstep_apis::v1alpha::{
    ApplyAction, Namespace, NamespaceStatus, Object, Origin, OriginType, Violation, object::Kind as K,
};
use lockstep_apis::violation::of_field;
use lockstep_apis::{object, timestamp, validate};
use lockstep_core::check;
use lockstep_core::expression::Expression;
use uuid::Uuid;

use super::{How, decode};
use crate::identity::PeerIdentity;
use crate::status::{Answer, Problem};

/// The phase of a namespace that is being emptied.
pub(super) const TERMINATING: &str = "Terminating";

/// One object on its way into the store.
#[derive(Debug)]
pub(super) struct Write {
    /// As it will be; `resourceVersion` is that of before.
    pub(super) object: Object,
    pub(super) action: ApplyAction,
    /// That nobody was faster.
    pub(super) guard: Compare,
}

/// All that is wrong with an object, as far as it can be told from the object alone.
pub(super) fn violations(object: &Object, how: How) -> Vec<Violation> {
    let mut found = validate::object(object);
    let Some(kind) = &object.kind else { return found };
    match kind {
        K::TaskBook(book) => found.extend(check::book(book)),
        K::Run(run) => found.extend(check::run(run)),
        K::NodeGroup(group) => {
            let text = group.spec.as_ref().map_or("", |spec| spec.r#where.as_str());
            if let Some(error) =
                Some(text).filter(|text| !text.is_empty()).and_then(|text| Expression::parse(text).err())
            {
                found.push(of_field("Expression", "spec.where", error.to_string()));
            }
        }
        K::Variables(variables) => found.extend(check::variables(variables.spec.as_ref())),
        K::ClusterVariables(variables) => found.extend(check::variables(variables.spec.as_ref())),
        K::Config(_) if object.metadata().name != "cluster" => {
            let message = "only the Config named `cluster`, which is for all nodes, is read yet";
            found.push(of_field("NotYet", "metadata.name", message));
        }
        K::Event(_) => {
            let message = "events are told by the system and never change; no user writes them";
            found.push(of_field("NotWritable", "", message));
        }
        K::Lock(_) => {
            let message = "locks are made by use: name them in a book's `locks`, or `lockstep locks acquire`";
            found.push(of_field("NotWritable", "", message));
        }
        _ => {}
    }
    if how == How::Create && !object.metadata().resource_version.is_empty() {
        let message = "what is created has no version yet; leave it out, or use Update or Apply";
        found.push(of_field("Immutable", "metadata.resourceVersion", message));
    }
    // Both judges may name the same fault in the same words.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|violation| seen.insert((violation.field.clone(), violation.message.clone())));
    found
}

/// What is to be stored for a valid object, given what is stored now.
pub(super) fn write(
    mut object: Object,
    stored: Option<&Entry>,
    how: How,
    by: &PeerIdentity,
    now_ms: u64,
) -> Answer<Write> {
    let key = object.key();
    let before = stored.map(decode).transpose()?;
    agree_on_version(&object, before.as_ref(), how)?;
    if let Some(before) = &before {
        let violations = validate::update(before, &object);
        if !violations.is_empty() {
            return Err(Problem::Violations(violations));
        }
    } else if matches!(object.kind, Some(K::Node(_))) {
        let message = "nodes are made by joining: `lockstep token create`, then `lockstepd join` on the machine";
        return Err(Problem::Violations(vec![of_field("NotWritable", "", message)]));
    }
    let had_uuid = object.metadata().uuid.clone();
    object.keep_system_fields(before.as_ref());
    let kind = object.kind_of().name;
    let differs = before.as_ref().is_none_or(|before| object.spec_differs(before));
    let metadata = object.metadata_mut();
    object::API_VERSION.clone_into(&mut metadata.api_version);
    kind.clone_into(&mut metadata.kind);
    metadata.generation += i64::from(differs);
    metadata.resource_version.clear();
    let Some((before, entry)) = before.zip(stored) else {
        debug_assert!(had_uuid.is_empty() || how != How::Create, "a create with system fields was refused");
        begin(&mut object, by, now_ms);
        return Ok(Write { object, action: ApplyAction::Created, guard: Compare::Absent(key) });
    };
    let unchanged = object.to_stored() == before.to_stored();
    object.metadata_mut().resource_version = entry.mod_revision.to_string();
    let action = if unchanged { ApplyAction::Unchanged } else { ApplyAction::Configured };
    Ok(Write { object, action, guard: Compare::ModRevision(key, entry.mod_revision) })
}

/// What the system says of a new object.
fn begin(object: &mut Object, by: &PeerIdentity, now_ms: u64) {
    let metadata = object.metadata_mut();
    metadata.uuid = Uuid::now_v7().to_string();
    metadata.created_at = Some(timestamp::from_ms(now_ms));
    match &mut object.kind {
        Some(K::Run(run)) => {
            let origin = Origin { r#type: OriginType::User.into(), name: by.name.clone(), uid: by.uid.clone() };
            run.spec.get_or_insert_default().origin = Some(origin);
        }
        Some(K::Namespace(namespace)) => namespace.status = Some(NamespaceStatus { phase: "Active".into() }),
        _ => {}
    }
}

/// Whether the writer has seen what is there, where it must.
fn agree_on_version(object: &Object, before: Option<&Object>, how: How) -> Answer<()> {
    let reference = object.reference();
    let read = object.metadata().resource_version.as_str();
    match (how, before) {
        (How::Create, Some(_)) => {
            Err(Problem::Exists(format!("{reference} is there already; change it with Apply, or choose another name")))
        }
        (How::Update, None) => Err(Problem::NotFound(format!("there is no {reference} to update"))),
        (How::Update, Some(_)) if read.is_empty() => Err(Problem::Precondition(format!(
            "an update of {reference} must say which version it is based on: read it first and keep `resourceVersion`, or use Apply"
        ))),
        (How::Apply, None) if !read.is_empty() => Err(Problem::Conflict(format!(
            "{reference} was deleted since it was read; leave out `resourceVersion` to make it anew"
        ))),
        (_, Some(before)) if !read.is_empty() && read != before.metadata().resource_version => {
            Err(Problem::Conflict(format!("{reference} was changed since it was read; read it again")))
        }
        _ => Ok(()),
    }
}

/// Whether something may be put into a namespace.
pub(super) fn is_open(namespace: &Namespace) -> bool {
    let terminating = namespace.status.as_ref().is_some_and(|status| status.phase == TERMINATING);
    let deleted = namespace.metadata.as_ref().is_some_and(|metadata| metadata.deleted_at.is_some());
    !terminating && !deleted
}

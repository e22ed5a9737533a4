//! Objects of any kind as one type: their metadata, their keys, their stored bytes.

use prost::Message;
use thiserror::Error;

use crate::{
    commit::Revision,
    keys::{self, Key},
    kinds::{self, Kind},
    v1alpha::{self, Metadata, Object, object},
};

/// The API version that this program speaks, in the seed's form.
pub const API_VERSION: &str = "v1alpha";
/// The same in the Kubernetes form, at the top level of a manifest.
pub const API_VERSION_TOP_LEVEL: &str = "lockstep/v1alpha";

/// Stored bytes that are no object of the kind their key says.
#[derive(Debug, Error)]
pub enum StoredObjectError {
    /// The key names a kind that this version does not know.
    #[error("the store holds an object of the unknown kind `{0}`; was it written by a newer version?")]
    UnknownKind(String),
    /// The bytes do not decode.
    #[error("the stored {kind} does not decode")]
    Corrupt {
        /// The kind's name.
        kind: &'static str,
        /// What prost says.
        source: prost::DecodeError,
    },
}

macro_rules! for_each_kind {
    ($each:ident) => {
        $each! { Namespace, Node, NodeGroup, Config, TaskBook, Run, Event, Lock, Variables, ClusterVariables, ClusterVariablesBinding }
    };
}

macro_rules! conversions {
    ($($name:ident),*) => {
        $(impl From<v1alpha::$name> for Object {
            fn from(inner: v1alpha::$name) -> Object {
                Object { kind: Some(object::Kind::$name(inner)) }
            }
        })*

        fn name_of(kind: &object::Kind) -> &'static str {
            match kind { $(object::Kind::$name(_) => stringify!($name),)* }
        }

        fn metadata_of(kind: &object::Kind) -> Option<&Metadata> {
            match kind { $(object::Kind::$name(inner) => inner.metadata.as_ref(),)* }
        }

        fn metadata_slot(kind: &mut object::Kind) -> &mut Option<Metadata> {
            match kind { $(object::Kind::$name(inner) => &mut inner.metadata,)* }
        }

        pub(crate) fn encode_inner(kind: &object::Kind) -> Vec<u8> {
            match kind { $(object::Kind::$name(inner) => inner.encode_to_vec(),)* }
        }

        pub(crate) fn decode_inner(kind: &'static Kind, bytes: &[u8]) -> Result<Object, StoredObjectError> {
            let corrupt = |source| StoredObjectError::Corrupt { kind: kind.name, source };
            match kind.name {
                $(stringify!($name) => v1alpha::$name::decode(bytes).map(Object::from).map_err(corrupt),)*
                other => Err(StoredObjectError::UnknownKind(other.to_owned())),
            }
        }
    };
}
for_each_kind!(conversions);

impl Object {
    /// The kind. An `Object` without one, as a foreign client may send it, must be refused before: see [`Object::is_some`].
    pub fn kind_of(&self) -> &'static Kind {
        kinds::named(name_of(self.inner())).expect("invariant: every variant of Object is a kind")
    }

    /// Whether it holds an object at all. What comes over the wire may not.
    pub fn is_some(&self) -> bool {
        self.kind.is_some()
    }

    /// The metadata; empty if there is none.
    pub fn metadata(&self) -> &Metadata {
        static EMPTY: Metadata = Metadata {
            api_version: String::new(),
            kind: String::new(),
            name: String::new(),
            namespace: String::new(),
            labels: std::collections::BTreeMap::new(),
            annotations: std::collections::BTreeMap::new(),
            uuid: String::new(),
            resource_version: String::new(),
            generation: 0,
            created_at: None,
            deleted_at: None,
        };
        metadata_of(self.inner()).unwrap_or(&EMPTY)
    }

    /// The metadata to change; made if there is none.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        metadata_slot(self.kind.as_mut().expect("invariant: an Object without kind is refused at the border"))
            .get_or_insert_default()
    }

    /// Its key in the store.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        keys::object(self.kind_of().plural, &metadata.namespace, &metadata.name)
    }

    /// `kind/namespace/name`, or `kind/name` for global kinds: how messages and events name it.
    pub fn reference(&self) -> String {
        let (kind, metadata) = (self.kind_of(), self.metadata());
        match kind.namespaced {
            true => format!("{}/{}/{}", kind.name, metadata.namespace, metadata.name),
            false => format!("{}/{}", kind.name, metadata.name),
        }
    }

    /// The bytes for the store: the inner message without `resourceVersion`, which the store's revision is.
    pub fn to_stored(&self) -> Vec<u8> {
        if self.metadata().resource_version.is_empty() {
            return encode_inner(self.inner());
        }
        let mut copy = self.clone();
        copy.metadata_mut().resource_version.clear();
        encode_inner(copy.inner())
    }

    /// Reads stored bytes. `mod_revision` becomes the resource version.
    pub fn from_stored(kind: &'static Kind, bytes: &[u8], mod_revision: Revision) -> Result<Object, StoredObjectError> {
        let mut object = decode_inner(kind, bytes)?;
        object.metadata_mut().resource_version = mod_revision.to_string();
        Ok(object)
    }

    /// The object of an entry under `objects/`. `None`: the key is no object's.
    pub fn from_entry(entry: &crate::commit::Entry) -> Option<Result<Object, StoredObjectError>> {
        let keys::Parsed::Object { kind, .. } = keys::parse(&entry.key)? else { return None };
        Some(match kinds::all().iter().find(|known| known.plural == kind) {
            Some(kind) => Object::from_stored(kind, &entry.value, entry.mod_revision),
            None => Err(StoredObjectError::UnknownKind(kind)),
        })
    }

    /// Takes the fields that only the system writes from the stored object; clears them if there is none.
    ///
    /// For the server, on what a user sends: metadata from `uuid` on (but `resourceVersion`), `status`, and the
    /// server's fields in a Run's spec. Whatever the user gave there is gone.
    pub fn keep_system_fields(&mut self, stored: Option<&Object>) {
        let old = stored.map(|stored| stored.metadata().clone()).unwrap_or_default();
        let own = self.metadata_mut();
        own.uuid = old.uuid;
        own.generation = old.generation;
        own.created_at = old.created_at;
        own.deleted_at = old.deleted_at;
        let old = stored.and_then(|stored| stored.kind.as_ref());
        match self.kind.as_mut() {
            Some(object::Kind::Namespace(new)) => {
                new.status = if let Some(object::Kind::Namespace(old)) = old { old.status.clone() } else { None };
            }
            Some(object::Kind::Node(new)) => {
                new.status = if let Some(object::Kind::Node(old)) = old { old.status.clone() } else { None };
            }
            Some(object::Kind::NodeGroup(new)) => {
                new.status = if let Some(object::Kind::NodeGroup(old)) = old { old.status.clone() } else { None };
            }
            Some(object::Kind::Run(new)) => {
                let old = if let Some(object::Kind::Run(old)) = old { Some(old) } else { None };
                new.status = old.and_then(|old| old.status.clone());
                let kept = old.and_then(|old| old.spec.clone()).unwrap_or_default();
                if let Some(spec) = new.spec.as_mut() {
                    spec.origin = kept.origin;
                    spec.retry_of = kept.retry_of;
                    spec.retry_nodes = kept.retry_nodes;
                    spec.concurrency = kept.concurrency;
                }
            }
            Some(object::Kind::Lock(new)) => {
                new.status = if let Some(object::Kind::Lock(old)) = old { old.status.clone() } else { None };
            }
            Some(_) | None => {}
        }
    }

    /// Whether the specs differ, so that the generation must rise.
    pub fn spec_differs(&self, other: &Object) -> bool {
        let bare = |object: &Object| {
            let mut copy = object.clone();
            copy.keep_system_fields(None);
            *copy.metadata_mut() = Metadata::default();
            copy
        };
        bare(self) != bare(other)
    }

    pub(crate) fn inner(&self) -> &object::Kind {
        self.kind.as_ref().expect("invariant: an Object without kind is refused at the border")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Object {
        let metadata = Metadata { name: "web1".into(), resource_version: "9".into(), ..Default::default() };
        v1alpha::Node { metadata: Some(metadata), ..Default::default() }.into()
    }

    #[test]
    fn stored_bytes_hold_no_resource_version_and_read_back_with_the_stores() {
        let stored = node().to_stored();
        let back = Object::from_stored(kinds::named("Node").unwrap(), &stored, 12).unwrap();
        assert_eq!(back.metadata().resource_version, "12");
        assert_eq!(back.metadata().name, "web1");
        assert_eq!(v1alpha::Node::decode(stored.as_slice()).unwrap().metadata.unwrap().resource_version, "");
        assert_eq!(node().key().as_str(), "objects/nodes//web1");
    }

    #[test]
    fn what_a_user_says_in_system_fields_is_dropped() {
        let mut given = node();
        given.metadata_mut().uuid = "forged".into();
        if let Some(object::Kind::Node(node)) = given.kind.as_mut() {
            node.status = Some(v1alpha::NodeStatus { liveness: "Ready".into(), ..Default::default() });
        }
        given.keep_system_fields(None);
        assert_eq!(given, node());
    }

    #[test]
    fn corrupt_bytes_are_an_error_and_not_a_panic() {
        let kind = kinds::named("Run").unwrap();
        assert!(matches!(Object::from_stored(kind, &[0xff, 1, 2], 1), Err(StoredObjectError::Corrupt { .. })));
    }
}

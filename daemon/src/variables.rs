//! The objects that hold variables of a namespace, taken out of the cache. Knows where they are; which of them win is the
//! core's to say.

use std::sync::Arc;

use lockstep_apis::keys;
use lockstep_apis::v1alpha::{
    ClusterVariables, ClusterVariablesBinding, Namespace, Object, Variables, object::Kind as K,
};
use lockstep_core::variables::VariableSources;

use crate::cache::State;

/// The objects of one namespace and of all.
#[derive(Default)]
pub struct VariableObjects {
    objects: Vec<Arc<Object>>,
}

impl VariableObjects {
    /// All that may concern the namespace.
    pub fn of(cache: &State, namespace: &str) -> Self {
        let prefixes = [
            keys::object_prefix("variables", Some(namespace)),
            keys::object_prefix("clustervariables", None),
            keys::object_prefix("clustervariablesbindings", None),
        ];
        let mut objects: Vec<Arc<Object>> =
            prefixes.iter().flat_map(|prefix| cache.objects(prefix)).map(|(_, object)| object.clone()).collect();
        objects.extend(cache.object(&keys::object("namespaces", "", namespace)).cloned());
        Self { objects }
    }

    /// The same as if this were stored, too.
    pub fn with(mut self, object: &Object) -> Self {
        self.objects.retain(|own| own.key() != object.key());
        self.objects.push(Arc::new(object.clone()));
        self
    }

    /// Hands them to the core.
    pub fn lend<R>(&self, take: impl FnOnce(&VariableSources<'_>) -> R) -> R {
        let (mut own, mut cluster, mut bindings) = (Vec::<&Variables>::new(), Vec::new(), Vec::new());
        let mut namespace: Option<&Namespace> = None;
        for object in &self.objects {
            match &object.kind {
                Some(K::Variables(variables)) => own.push(variables),
                Some(K::ClusterVariables(variables)) => cluster.push(variables),
                Some(K::ClusterVariablesBinding(binding)) => bindings.push(binding),
                Some(K::Namespace(found)) => namespace = Some(found),
                _ => {}
            }
        }
        let (cluster, bindings): (&[&ClusterVariables], &[&ClusterVariablesBinding]) = (&cluster, &bindings);
        take(&VariableSources { namespace, own: &own, cluster, bindings })
    }
}

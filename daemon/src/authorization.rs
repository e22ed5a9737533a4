//! Who may call what: one layer in front of every method, which reads the methods' `authorization` options from the
//! descriptors. What has no option is refused. Knows roles and certificates; not what a request says.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use lockstep_apis::DESCRIPTORS;
use lockstep_apis::v1alpha::Authorization;
use prost::Message;
use prost_reflect::{DescriptorPool, ReflectMessage};
use tonic::Status;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use crate::cache::Cache;
use crate::clock::now_ms;
use crate::identity::listener::Caller;
use crate::identity::{PeerIdentity, Role};
use crate::status::{Answer, Problem};

/// Services of libraries, which carry no option of ours: reflection tells the shape of the API, health whether to
/// send requests here. Both want a certificate.
const FOREIGN: [(&str, &[Role]); 3] = [
    ("/grpc.reflection.v1.ServerReflection/", &[Role::User, Role::Server]),
    ("/grpc.reflection.v1alpha.ServerReflection/", &[Role::User, Role::Server]),
    ("/grpc.health.v1.Health/", &[Role::User, Role::Server, Role::Node]),
];

/// What the descriptors say of each method, by its path.
pub struct Rules {
    methods: HashMap<String, Rule>,
}

/// Of one method.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    anonymous: bool,
    roles: Vec<Role>,
}

/// Descriptors that do not hold what they must: a fault of the build.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// They do not decode.
    #[error("the API's descriptors do not decode: {0}")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// The option itself is not defined.
    #[error("the API's descriptors do not define the option `authorization`")]
    NoOption,
    /// A method without it.
    #[error("the method {0} has no `authorization` option")]
    Unmarked(String),
}

impl Rules {
    /// Reads the options of all methods. Errors: one has none.
    pub fn of_descriptors() -> Result<Self, RulesError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let option = pool.get_extension_by_name("lockstep.v1alpha.authorization").ok_or(RulesError::NoOption)?;
        let mut methods = HashMap::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let options = method.options();
            if !options.has_extension(&option) {
                return Err(RulesError::Unmarked(path));
            }
            let value = options.get_extension(&option);
            let message = value.as_message().ok_or(RulesError::NoOption)?;
            debug_assert_eq!(message.descriptor().full_name(), "lockstep.v1alpha.Authorization");
            let authorization =
                Authorization::decode(message.encode_to_vec().as_slice()).map_err(|_| RulesError::NoOption)?;
            let roles = Role::ALL
                .into_iter()
                .filter(|role| authorization.roles().any(|named| named == lockstep_apis::v1alpha::Role::from(*role)));
            methods.insert(path, Rule { anonymous: authorization.anonymous, roles: roles.collect() });
        }
        Ok(Self { methods })
    }

    /// Whether a caller may call the method of this path now. `is_known` says whether a node still exists.
    fn permit(
        &self,
        path: &str,
        identity: Option<&PeerIdentity>,
        is_known: impl Fn(&str) -> bool,
        now_ms: u64,
    ) -> Answer<()> {
        let denied = || Problem::Denied("this method is not for this caller".into());
        let (anonymous, roles) = match self.methods.get(path) {
            Some(rule) => (rule.anonymous, rule.roles.as_slice()),
            None => {
                let foreign = FOREIGN.iter().find(|(prefix, _)| path.starts_with(prefix));
                (false, foreign.ok_or_else(denied)?.1)
            }
        };
        let Some(identity) = identity else {
            let needed = || Problem::Unauthenticated("this method needs a client certificate of the cluster".into());
            return if anonymous { Ok(()) } else { Err(needed()) };
        };
        // A connection may be older than its certificate's life.
        if now_ms >= identity.not_after_ms {
            return Err(Problem::Unauthenticated("the certificate has ended; connect with a renewed one".into()));
        }
        if identity.role == Role::Node && !is_known(&identity.uid) {
            return Err(Problem::Unauthenticated("this node was deleted; join again under another identity".into()));
        }
        if roles.contains(&identity.role) { Ok(()) } else { Err(denied()) }
    }
}

/// The layer.
#[derive(Clone)]
pub struct Authorized {
    rules: Arc<Rules>,
    cache: Arc<Cache>,
}

impl Authorized {
    /// Permits by these rules, and only nodes that the cache knows.
    pub fn new(rules: Rules, cache: Arc<Cache>) -> Self {
        Self { rules: Arc::new(rules), cache }
    }
}

impl<S> Layer<S> for Authorized {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, authorized: self.clone() }
    }
}

/// A service behind the layer.
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    authorized: Authorized,
}

impl<S, B, C> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    C: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Authorized { rules, cache } = &self.authorized;
        let caller = request.extensions().get::<Caller>();
        let identity = caller.and_then(|caller| caller.identity.as_ref());
        let is_known = |uid: &str| cache.read().node(uid).is_some();
        match rules.permit(request.uri().path(), identity, is_known, now_ms()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(problem) => {
                tracing::info!(
                    path = request.uri().path(),
                    caller = identity.map_or_else(|| "nobody".to_owned(), ToString::to_string),
                    %problem,
                    "refused"
                );
                Either::Right(ready(Ok(Status::from(problem).into_http())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role) -> PeerIdentity {
        PeerIdentity { role, uid: "u".into(), trust_domain: "t".into(), name: "n".into(), not_after_ms: 1000 }
    }

    fn permitted(rules: &Rules, path: &str, identity: Option<&PeerIdentity>) -> bool {
        rules.permit(path, identity, |_| true, 0).is_ok()
    }

    /// Every method and who gets through: a change of this table is a change of who may do what.
    #[test]
    fn every_method_is_for_whom_its_option_says() {
        const TABLE: &[(&str, &str)] = &[
            ("Agents/Attach", "node"),
            ("Agents/Join", "anonymous server node user"),
            ("Agents/Renew", "server node user"),
            ("ClusterAdmin/CreateToken", "user"),
            ("ClusterAdmin/Status", "server user"),
            ("Locks/Acquire", "user"),
            ("Locks/Clear", "user"),
            ("Locks/Release", "user"),
            ("Locks/Show", "user"),
            ("Objects/Apply", "server user"),
            ("Objects/Create", "server user"),
            ("Objects/Delete", "server user"),
            ("Objects/Get", "server user"),
            ("Objects/List", "server user"),
            ("Objects/Update", "server user"),
            ("Objects/Watch", "server user"),
            ("Runs/Approve", "user"),
            ("Runs/Cancel", "user"),
            ("Runs/Logs", "server user"),
            ("Runs/Nodes", "user"),
            ("Runs/Pause", "user"),
            ("Runs/Plan", "user"),
            ("Runs/Release", "user"),
            ("Runs/Resume", "user"),
            ("Runs/Retry", "user"),
            ("Runs/Variables", "user"),
        ];
        let rules = Rules::of_descriptors().unwrap();
        let mut found: Vec<(String, String)> = rules
            .methods
            .keys()
            .map(|path| {
                let callers = [None].into_iter().chain([Role::Server, Role::Node, Role::User].map(Some));
                let admitted = callers.filter(|role| permitted(&rules, path, role.map(identity).as_ref()));
                let words: Vec<&str> = admitted.map(|role| role.map_or("anonymous", Role::word)).collect();
                (path.trim_start_matches("/lockstep.v1alpha.").to_owned(), words.join(" "))
            })
            .collect();
        found.sort();
        let expected: Vec<(String, String)> =
            TABLE.iter().map(|(path, who)| ((*path).to_owned(), (*who).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_has_no_rule_is_for_nobody() {
        let rules = Rules::of_descriptors().unwrap();
        for path in ["/lockstep.v1alpha.Objects/Steal", "/other.Service/Get", "/", ""] {
            for role in Role::ALL {
                assert!(!permitted(&rules, path, Some(&identity(role))), "{path}");
            }
        }
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert!(permitted(&rules, reflection, Some(&identity(Role::User))));
        assert!(!permitted(&rules, reflection, Some(&identity(Role::Node))));
        assert!(!permitted(&rules, reflection, None));
    }

    #[test]
    fn a_deleted_node_and_an_ended_certificate_are_refused() {
        let rules = Rules::of_descriptors().unwrap();
        let attach = "/lockstep.v1alpha.Agents/Attach";
        let node = identity(Role::Node);
        assert!(rules.permit(attach, Some(&node), |uid| uid == "u", 999).is_ok());
        assert!(matches!(rules.permit(attach, Some(&node), |_| false, 0), Err(Problem::Unauthenticated(_))));
        assert!(matches!(rules.permit(attach, Some(&node), |_| true, 1000), Err(Problem::Unauthenticated(_))));
    }
}

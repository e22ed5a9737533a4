//! The node's next certificate: asked for with the present one, for a new key, at two thirds of its life.

use std::path::Path;

use lockstep_apis::v1alpha::RenewRequest;
use lockstep_grpc::agents_client::AgentsClient;
use tonic::transport::Channel;

use crate::identity::credentials::{Credentials, FreshKey};

/// Whether it is time.
pub(super) fn is_due(credentials: &Credentials, now_ms: u64) -> bool {
    now_ms >= credentials.renew_at_ms()
}

/// Gets and stores the next certificate. Errors change nothing: the present one goes on being used.
pub(super) async fn renew(present: &Credentials, channel: Channel, path: &Path) -> Result<Credentials, String> {
    let key = FreshKey::generate().map_err(|e| e.to_string())?;
    let request = RenewRequest { csr: key.request().to_vec() };
    let answer = AgentsClient::new(channel).renew(request).await.map_err(|status| status.message().to_owned())?;
    let chain = answer.into_inner().certificate_chain;
    let renewed = key.certified(chain, present.authority().clone()).map_err(|e| e.to_string())?;
    if renewed.identity().uid != present.identity().uid || renewed.identity().role != present.identity().role {
        return Err(format!("the server certified somebody else: {}", renewed.identity()));
    }
    renewed.store(path).map_err(|e| e.to_string())?;
    Ok(renewed)
}

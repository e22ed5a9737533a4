//! The server's own next certificate. A server has the CA, so it asks nobody; what is open stays open.

use std::time::Duration;

use super::Role;
use super::authority::CertificateAuthority;
use super::credentials::{Credentials, CredentialsError, FreshKey};
use super::listener::{ListenError, TlsIdentity};
use crate::settings::Settings;

/// How often the wall clock is looked at: it may jump, and a machine may sleep.
const LOOK: Duration = Duration::from_secs(300);

/// Why a server has no new certificate; it goes on with the present one.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The CA refused or failed.
    #[error(transparent)]
    Authority(#[from] super::authority::AuthorityError),
    /// The new leaf cannot be used or stored.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] ListenError),
}

/// Gives a server a new leaf for a new key, under the same uid: in its file, and for new connections.
pub fn renew_server(
    settings: &Settings,
    ca: &CertificateAuthority,
    tls: &TlsIdentity,
    present: &Credentials,
    now_ms: u64,
) -> Result<Credentials, RenewalError> {
    let key = FreshKey::generate()?;
    let identity = present.identity();
    let chain = ca.issue(key.request(), Role::Server, &identity.uid, &identity.name, now_ms)?;
    let renewed = key.certified(chain, ca.authority().clone())?;
    renewed.store(&settings.server_credentials())?;
    tls.replace(&renewed)?;
    Ok(renewed)
}

/// Renews whenever two thirds of the leaf's life are over, for ever. At once if the leaf has ended: a server that was
/// down for a day needs nobody's help. `now_ms` tells the wall clock's time.
pub async fn keep_server_leaf(
    settings: &Settings,
    ca: &CertificateAuthority,
    tls: &TlsIdentity,
    mut present: Credentials,
    now_ms: impl Fn() -> u64,
) {
    loop {
        let now = now_ms();
        if now >= present.renew_at_ms() {
            match renew_server(settings, ca, tls, &present, now) {
                Ok(renewed) => {
                    present = renewed;
                    tracing::info!("the server's certificate was renewed");
                }
                Err(problem) => tracing::error!(%problem, "the server's certificate was not renewed; trying again"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

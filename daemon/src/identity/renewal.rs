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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Roles;

    const NOW: u64 = 1_800_000_000_000;
    const HOUR_MS: u64 = 60 * 60 * 1000;

    #[tokio::test]
    async fn a_server_gets_a_new_leaf_under_its_uid_in_time_and_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            name: "n1".into(),
            roles: Roles { server: true, agent: false },
            listeners: Vec::new(),
            advertise: Vec::new(),
            store: None,
            state_folder: folder.path().to_owned(),
            log_level: "info".into(),
            root: "/".into(),
            file: folder.path().join("lockstepd.yaml"),
        };
        let ca = CertificateAuthority::create(&settings.ca_folder(), "c1", NOW).unwrap();
        let key = FreshKey::generate().unwrap();
        let chain = ca.issue(key.request(), Role::Server, "s1", "n1", NOW).unwrap();
        let first = key.certified(chain, ca.authority().clone()).unwrap();
        first.store(&settings.server_credentials()).unwrap();
        let load = || Credentials::load(&settings.server_credentials(), ca.authority().clone()).unwrap();
        let tls = TlsIdentity::new(&first).unwrap();
        // Two thirds of the life have passed after 16 hours; at 30 the leaf has ended, which stops nobody.
        for (hours, renews) in [(15, false), (17, true), (30, true)] {
            first.store(&settings.server_credentials()).unwrap();
            let keeping = keep_server_leaf(&settings, &ca, &tls, load(), || NOW + hours * HOUR_MS);
            // Its first look is at once; then it sleeps for minutes.
            tokio::select! {
                biased;
                () = keeping => {}
                () = std::future::ready(()) => {}
            }
            let now = load();
            assert_eq!(now.chain()[0] != first.chain()[0], renews, "{hours}");
            assert_eq!(now.identity().uid, "s1");
            if renews {
                assert_eq!(now.identity().not_after_ms, NOW + (hours + 24) * HOUR_MS);
            }
        }
    }
}

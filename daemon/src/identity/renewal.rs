//! A server's next certificate. It has the CA, so it asks nobody: one that was down for a day needs no help.

use super::authority::{AuthorityError, CertificateAuthority};
use super::credentials::{Credentials, CredentialsError, FreshKey};
use crate::settings::Settings;

/// Why there is no new certificate; the present one stays.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// The CA failed.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The new leaf cannot be used or stored.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// The same credentials; or, when two thirds of their life are over, a new leaf for a new key under the same identity,
/// which is in its file by then.
pub fn renewed(
    present: Credentials,
    ca: &CertificateAuthority,
    settings: &Settings,
    now_ms: u64,
) -> Result<Credentials, RenewalError> {
    if now_ms < present.renew_at_ms() {
        return Ok(present);
    }
    let key = FreshKey::generate()?;
    let identity = present.identity();
    let chain = ca.issue(key.request(), identity.role, &identity.uid, &identity.name, now_ms)?;
    let renewed = key.certified(chain, ca.authority().clone())?;
    renewed.store(&settings.server_credentials())?;
    Ok(renewed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;
    use crate::settings::Roles;

    const NOW: u64 = 1_800_000_000_000;
    const HOUR_MS: u64 = 60 * 60 * 1000;

    #[test]
    fn a_server_gets_a_new_leaf_under_its_uid_in_time_and_in_its_file() {
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
        let load = || Credentials::load(&settings.server_credentials(), ca.authority().clone()).unwrap();
        // Two thirds of the life have passed after 16 hours; at 30 the leaf has ended, which stops nobody.
        for (hours, renews) in [(15, false), (17, true), (30, true)] {
            first.store(&settings.server_credentials()).unwrap();
            let answer = renewed(load(), &ca, &settings, NOW + hours * HOUR_MS).unwrap();
            assert_eq!(answer.chain()[0] != first.chain()[0], renews, "{hours}");
            assert_eq!(load().chain(), answer.chain());
            assert_eq!(answer.identity().uid, "s1");
            if renews {
                assert_eq!(answer.identity().not_after_ms, NOW + (hours + 24) * HOUR_MS);
            }
        }
    }
}

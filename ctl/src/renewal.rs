//! The user's next certificate: asked for with the present one, for a new key, past two thirds of its life. Nothing of
//! a user's runs all the time, so it is done when a command connects.

use crate::context::{Context, Session};
use base64::{Engine, engine::general_purpose::STANDARD};
use lockstep_apis::v1alpha::RenewRequest;
use lockstep_grpc::{channel::ClientIdentity, peer::Validity};
use rcgen::{CertificateParams, KeyPair};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of a line of PEM.
const PEM_COLUMNS: usize = 64;

/// Renews if it is time. What goes wrong is said and stops nothing: the present certificate still counts.
pub(crate) async fn if_due(context: &Context, session: &Session) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    if !context.validity().is_ok_and(|validity| is_due(validity, now_ms)) {
        return;
    }
    if let Err(problem) = renew(context, session).await {
        eprintln!("lockstep: your certificate could not be renewed: {problem}");
    }
}

fn is_due(validity: Validity, now_ms: u64) -> bool {
    let life = validity.until_ms.saturating_sub(validity.from_ms);
    now_ms >= validity.from_ms + life / 3 * 2
}

/// Gets a new certificate and puts it in the context's file, in one step. Errors leave the file as it was.
pub(crate) async fn renew(context: &Context, session: &Session) -> Result<(), String> {
    let pair = KeyPair::generate().map_err(|e| e.to_string())?;
    let request = CertificateParams::default().serialize_request(&pair).map_err(|e| e.to_string())?;
    let asked = session.agents().renew(RenewRequest { csr: request.der().to_vec() }).await;
    let chain = asked.map_err(|status| status.message().to_owned())?.into_inner().certificate_chain;
    let chain: String = chain.iter().map(|certificate| pem(certificate)).collect();
    let key = pair.serialize_pem();
    // Only what can be used replaces what can be used.
    ClientIdentity::from_pem(context.ca(), &chain, &key).map_err(|e| e.to_string())?;
    context.note_identity(chain, key).map_err(|e| e.to_string())
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(PEM_COLUMNS) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_thirds_of_a_life_are_the_time() {
        let validity = Validity { from_ms: 1000, until_ms: 4000 };
        assert!(!is_due(validity, 2999) && is_due(validity, 3000) && is_due(validity, 9000));
    }
}

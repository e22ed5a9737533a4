//! Join tokens: `lst1.<id>.<secret>.<pin>`. Pure but for the random bytes of a new one. The store has a token's hash
//! only; the text is shown once.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use lockstep_apis::v1alpha::JoinToken;
use zeroize::Zeroizing;

/// Version of the text form.
const PREFIX: &str = "lst1";

/// Longest and usual life of a token.
pub const MAX_TTL_MS: u64 = 60 * 60 * 1000;
/// See [`MAX_TTL_MS`].
pub const DEFAULT_TTL_MS: u64 = 15 * 60 * 1000;

/// Bytes of a secret: 128 bits cannot be guessed.
const SECRET_BYTES: usize = 16;

/// Bytes of an id, which is no secret.
const ID_BYTES: usize = 8;

/// What a token is to permit.
#[derive(Clone, Debug, Default)]
pub struct TokenRequest {
    /// 0: [`DEFAULT_TTL_MS`]; more than [`MAX_TTL_MS`] is cut to it.
    pub ttl_ms: u64,
    /// Bound to this node name, if not empty.
    pub node_name: String,
    /// Labels that the node gets.
    pub labels: BTreeMap<String, String>,
    /// Whether the joiner may become a server.
    pub server: bool,
    /// Who asks, for the record.
    pub created_by: String,
}

/// A token as made.
pub struct NewToken {
    /// For the one who asked; kept nowhere.
    pub text: Zeroizing<String>,
    /// For the store, at `keys::token(id)`.
    pub record: JoinToken,
}

/// A token's text, read. Whether it is valid only the store knows.
pub struct TokenText {
    /// Names the record.
    pub id: String,
    /// Proves the holder.
    pub secret: Zeroizing<Vec<u8>>,
    /// SHA-256 of the cluster's root certificate.
    pub pin: [u8; 32],
}

/// A text that is no token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "this is not a join token; it looks like lst1.<id>.<secret>.<pin>: copy the whole line that `lockstep token create` printed"
)]
pub struct NotAToken;

/// Makes a token for the cluster with this pin.
pub fn make(request: TokenRequest, pin: [u8; 32], now_ms: u64) -> NewToken {
    let id = super::hex(&super::random::<ID_BYTES>());
    let secret = Zeroizing::new(super::random::<SECRET_BYTES>());
    let encoded = Zeroizing::new(BASE64URL.encode(*secret));
    let text = Zeroizing::new(format!("{PREFIX}.{id}.{}.{}", *encoded, BASE64URL.encode(pin)));
    let ttl_ms = match request.ttl_ms {
        0 => DEFAULT_TTL_MS,
        asked => asked.min(MAX_TTL_MS),
    };
    let record = JoinToken {
        id,
        secret_sha256: hash(&*secret).to_vec(),
        expires_ms: now_ms + ttl_ms,
        node_name: request.node_name,
        labels: request.labels,
        server: request.server,
        created_by: request.created_by,
        used_by: String::new(),
    };
    NewToken { text, record }
}

/// Reads a token's text. White space around it is ignored.
pub fn parse(text: &str) -> Result<TokenText, NotAToken> {
    let parts: Vec<&str> = text.trim().split('.').collect();
    let [PREFIX, id, secret, pin] = parts.as_slice() else { return Err(NotAToken) };
    let secret = Zeroizing::new(BASE64URL.decode(secret).map_err(|_| NotAToken)?);
    let pin = BASE64URL.decode(pin).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotAToken)?;
    if !is_id(id) || secret.len() != SECRET_BYTES {
        return Err(NotAToken);
    }
    Ok(TokenText { id: (*id).to_owned(), secret, pin })
}

/// Whether a text can be a token's id: check before it becomes part of a key.
pub fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// What the store keeps of a secret. It is random, so a plain hash is enough.
pub fn hash(secret: &[u8]) -> [u8; 32] {
    super::sha256(secret)
}

/// Whether the secret is the record's and the record has not expired. Takes the same time for every wrong secret.
pub fn verify(record: &JoinToken, secret: &[u8], now_ms: u64) -> bool {
    let given = hash(secret);
    let difference = match record.secret_sha256.len() == given.len() {
        true => given.iter().zip(&record.secret_sha256).fold(0, |all, (a, b)| all | (a ^ b)),
        false => u8::MAX,
    };
    (std::hint::black_box(difference) == 0) & (now_ms < record.expires_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_verifies_until_it_expires() {
        let made = make(TokenRequest { ttl_ms: 1000, ..TokenRequest::default() }, [7; 32], 5000);
        let read = parse(&format!("  {}\n", *made.text)).unwrap();
        assert_eq!((read.id.as_str(), read.pin), (made.record.id.as_str(), [7; 32]));
        assert!(verify(&made.record, &read.secret, 5999));
        assert!(!verify(&made.record, &read.secret, 6000));
        assert!(!verify(&made.record, &[0; SECRET_BYTES], 5999));
        assert!(!verify(&JoinToken::default(), &[], 0));
        assert!(!made.record.secret_sha256.windows(SECRET_BYTES).any(|part| part == read.secret.as_slice()));
    }

    #[test]
    fn a_life_is_at_most_an_hour() {
        let made = make(TokenRequest { ttl_ms: u64::MAX, ..TokenRequest::default() }, [0; 32], 0);
        assert_eq!(made.record.expires_ms, MAX_TTL_MS);
        assert_eq!(make(TokenRequest::default(), [0; 32], 0).record.expires_ms, DEFAULT_TTL_MS);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = make(TokenRequest::default(), [7; 32], 0).text;
        let whole = good.as_str();
        assert!(parse(whole).is_ok());
        for wrong in
            ["", "lst1", "lst1...", &whole[..whole.len() - 2], &format!("{whole}.x"), &whole.replace("lst1", "lst2")]
        {
            assert_eq!(parse(wrong).err(), Some(NotAToken), "{wrong}");
        }
        assert!(!is_id("../../../../clus"));
    }
}

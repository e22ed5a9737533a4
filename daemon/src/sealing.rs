//! Secrets at rest: sealed before they reach the store, opened only for who may have them. Knows keys and where a
//! secret belongs; never who may read it.
//!
//! # Guarantees
//! - XChaCha20-Poly1305 with a random nonce of 192 bits: no count of messages to keep.
//! - What is sealed for one place opens at that place only: the store key, the field and the sealing key's id are
//!   authenticated. Two ciphertexts that were swapped in the store do not open.

use std::collections::BTreeMap;
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use lockstep_apis::keys::Key;
use lockstep_apis::v1alpha::{Sealed, Value};
use prost::Message;
use zeroize::Zeroizing;

use crate::identity::files::{self, FileError};
use crate::identity::{hex, random};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Where a secret is kept: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The store key of the record that holds it.
    pub key: &'a Key,
    /// Which field of the record, `tasks[3].result`.
    pub field: &'a str,
}

/// Why something was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealingError {
    /// A key's file.
    #[error("the sealing keys: {0}")]
    File(#[from] FileError),
    /// No key: a server cannot work so.
    #[error(
        "there is no sealing key in {0}; a further server gets them when it joins, copy the folder of a server that has them"
    )]
    NoKey(String),
    /// A file that is no key of ours.
    #[error("the sealing key {0} is damaged: it must be {KEY_BYTES} bytes under a plain name")]
    DamagedKey(String),
    /// Sealed with a key that this server lacks.
    #[error("sealed with the key {0}, which this server does not have; copy it from a server that has it")]
    UnknownKey(String),
    /// Changed, or moved from another place.
    #[error("the sealed value at {0} is not what was sealed there: it was changed or moved")]
    Integrity(Key),
    /// The self-test failed.
    #[error("sealing does not work on this machine: {0}")]
    SelfTest(&'static str),
}

/// The sealing keys of a server, by id. The newest seals, all open.
pub struct KeyRing {
    keys: BTreeMap<String, Zeroizing<[u8; KEY_BYTES]>>,
}

impl KeyRing {
    /// Makes a key and writes it to the folder. Ids sort by time, so it is the newest.
    pub fn add_key(folder: &Path, now_ms: u64) -> Result<String, SealingError> {
        let id = format!("k{now_ms:013}-{}", hex(&random::<4>()));
        let key = Zeroizing::new(random::<KEY_BYTES>());
        files::write_private(&folder.join(&id), &*key)?;
        Ok(id)
    }

    /// Reads the keys of a folder, at least one, and tests that they work.
    pub fn load(folder: &Path) -> Result<Self, SealingError> {
        let ring = Self::from_files(files::read_folder(folder)?)?;
        if ring.keys.is_empty() {
            return Err(SealingError::NoKey(folder.display().to_string()));
        }
        ring.self_test()?;
        Ok(ring)
    }

    fn from_files(files: Vec<(String, Vec<u8>)>) -> Result<Self, SealingError> {
        let mut keys = BTreeMap::new();
        for (id, bytes) in files {
            let bytes = Zeroizing::new(bytes);
            let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice());
            let key = key.map_err(|_| SealingError::DamagedKey(id.clone()))?;
            keys.insert(id, Zeroizing::new(key));
        }
        Ok(Self { keys })
    }

    /// The keys' bytes by id, for a server that joins.
    pub fn export(&self) -> BTreeMap<String, Vec<u8>> {
        self.keys.iter().map(|(id, key)| (id.clone(), key.to_vec())).collect()
    }

    /// Writes keys that another server sent. Errors: an id that is no file name, bytes that are no key.
    pub fn install(folder: &Path, keys: &BTreeMap<String, Vec<u8>>) -> Result<(), SealingError> {
        for (id, key) in keys {
            if !files::is_plain_name(id) || key.len() != KEY_BYTES {
                return Err(SealingError::DamagedKey(id.clone()));
            }
            files::write_private(&folder.join(id), key)?;
        }
        Ok(())
    }

    /// Seals with the newest key.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Sealed {
        let (id, key) = self.keys.last_key_value().expect("invariant: a ring has a key");
        let nonce = random::<NONCE_BYTES>();
        let aad = associated(place, id);
        let ciphertext = XChaCha20Poly1305::new((&**key).into())
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad })
            .expect("invariant: values are far shorter than the cipher's limit of 256 GiB");
        Sealed { key_id: id.clone(), nonce: nonce.to_vec(), ciphertext }
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let key = self.keys.get(&sealed.key_id).ok_or_else(|| SealingError::UnknownKey(sealed.key_id.clone()))?;
        let integrity = || SealingError::Integrity(place.key.clone());
        let nonce = <[u8; NONCE_BYTES]>::try_from(sealed.nonce.as_slice()).map_err(|_| integrity())?;
        let aad = associated(place, &sealed.key_id);
        XChaCha20Poly1305::new((&**key).into())
            .decrypt(&XNonce::from(nonce), Payload { msg: &sealed.ciphertext, aad: &aad })
            .map(Zeroizing::new)
            .map_err(|_| integrity())
    }

    /// Seals a value.
    pub fn seal_value(&self, place: Place<'_>, value: &Value) -> Sealed {
        self.seal(place, &Zeroizing::new(value.encode_to_vec()))
    }

    /// Opens a value.
    pub fn open_value(&self, place: Place<'_>, sealed: &Sealed) -> Result<Value, SealingError> {
        let plain = self.open(place, sealed)?;
        Value::decode(plain.as_slice()).map_err(|_| SealingError::Integrity(place.key.clone()))
    }

    /// Proves with a canary that sealing hides, opens, and binds to the place.
    pub fn self_test(&self) -> Result<(), SealingError> {
        const CANARY: &[u8] = b"canary: this text must not be readable";
        let key = lockstep_apis::keys::cluster();
        let (here, there) = (Place { key: &key, field: "here" }, Place { key: &key, field: "there" });
        let sealed = self.seal(here, CANARY);
        if sealed.ciphertext.windows(8).any(|part| CANARY.windows(8).any(|plain| plain == part)) {
            return Err(SealingError::SelfTest("the ciphertext holds the plain text"));
        }
        if self.open(here, &sealed)?.as_slice() != CANARY {
            return Err(SealingError::SelfTest("what was sealed opens as something else"));
        }
        match self.open(there, &sealed) {
            Ok(_) => Err(SealingError::SelfTest("what was sealed for one place opens at another")),
            Err(_) => Ok(()),
        }
    }
}

/// Length-prefixed, so that no two places give the same bytes.
fn associated(place: Place<'_>, key_id: &str) -> Vec<u8> {
    let mut bytes = b"lockstep-sealed-v1".to_vec();
    for part in [place.key.as_str(), place.field, key_id] {
        let length = u32::try_from(part.len()).expect("invariant: keys, fields and ids are short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::keys;

    fn ring(folder: &Path) -> KeyRing {
        KeyRing::add_key(folder, 1).unwrap();
        KeyRing::load(folder).unwrap()
    }

    #[test]
    fn two_swapped_ciphertexts_do_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let ring = ring(folder.path());
        let (a, b) = (keys::gate("a"), keys::gate("b"));
        let at = |key, field| Place { key, field };
        let (one, two) = (ring.seal(at(&a, "f"), b"one"), ring.seal(at(&b, "f"), b"two"));
        assert_eq!(ring.open(at(&a, "f"), &one).unwrap().as_slice(), b"one");
        for (place, sealed) in [(at(&a, "f"), &two), (at(&b, "f"), &one), (at(&a, "g"), &one)] {
            assert!(matches!(ring.open(place, sealed), Err(SealingError::Integrity(_))));
        }
        let mut changed = one.clone();
        changed.ciphertext[0] ^= 1;
        assert!(ring.open(at(&a, "f"), &changed).is_err());
        let short = Sealed { nonce: vec![0; 3], ..one };
        assert!(ring.open(at(&a, "f"), &short).is_err());
    }

    #[test]
    fn an_old_key_still_opens_and_the_newest_seals() {
        let folder = tempfile::tempdir().unwrap();
        let key = keys::cluster();
        let place = Place { key: &key, field: "x" };
        let old = ring(folder.path()).seal_value(place, &Value::text("s3cret"));
        let newest = KeyRing::add_key(folder.path(), 2).unwrap();
        let both = KeyRing::load(folder.path()).unwrap();
        assert_eq!(both.open_value(place, &old).unwrap(), Value::text("s3cret"));
        assert_eq!(both.seal(place, b"y").key_id, newest);

        let elsewhere = tempfile::tempdir().unwrap();
        KeyRing::install(elsewhere.path(), &both.export()).unwrap();
        assert_eq!(KeyRing::load(elsewhere.path()).unwrap().open_value(place, &old).unwrap(), Value::text("s3cret"));
        let bad = [("../x".to_owned(), vec![0; KEY_BYTES])].into();
        assert!(matches!(KeyRing::install(elsewhere.path(), &bad), Err(SealingError::DamagedKey(_))));
    }

    #[test]
    fn a_missing_key_names_itself() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = keys::cluster();
        let place = Place { key: &key, field: "x" };
        let sealed = ring(a.path()).seal(place, b"x");
        assert!(
            matches!(ring(b.path()).open(place, &sealed), Err(SealingError::UnknownKey(id)) if id == sealed.key_id)
        );
        assert!(matches!(KeyRing::load(&b.path().join("none")), Err(SealingError::NoKey(_))));
    }
}

//! Who is who: the cluster's CA, certificates on disk, join tokens, and the listener that knows its callers.
//! Knows certificates, keys and folders; never what a caller may do, and no gRPC code.

pub mod authority;
pub mod credentials;
pub mod files;
pub mod join;
pub mod listener;
pub mod membership;
pub mod renewal;
pub mod tokens;

pub use lockstep_grpc::peer::{Authority, PeerError, PeerIdentity, Role};

/// Makes ring the process's only cryptography. Call first in each program and test; again does nothing.
pub fn install_provider() {
    // An error means that one is installed: it can only be the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Random bytes of the kernel. A kernel that has none ends the process: nothing here may go on without.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

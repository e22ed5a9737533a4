//! Checksums as books write them: `sha256:` and 64 hexadecimal digits. Knows no file.

use std::io::{self, Read};

use ring::digest::{Context, Digest, SHA256, digest};

/// The checksum of all that is left to read.
pub(crate) fn of(reader: &mut dyn Read) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(shown(&context.finish())),
            length => context.update(&buffer[..length]),
        }
    }
}

/// The checksum of a content at hand.
pub(crate) fn of_bytes(content: &[u8]) -> String {
    shown(&digest(&SHA256, content))
}

/// A digest in the form of books.
pub(crate) fn shown(digest: &Digest) -> String {
    let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// Whether both are the same sum; digits may be of either case.
pub(crate) fn is_same(wanted: &str, found: &str) -> bool {
    wanted.eq_ignore_ascii_case(found)
}

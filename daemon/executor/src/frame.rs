//! Framing of append-only files: each record is its length and CRC-32C, then its bytes.
//! Knows nothing of what the bytes mean. A reader stops at the first record that does not hold: that is where a
//! crash cut the file, and nothing behind it was ever acknowledged.

/// Length (u32, little endian) and CRC-32C over length and bytes (u32, little endian).
pub const HEADER_BYTES: usize = 8;

/// Longest record: a report of 10,000 tasks with 256 KiB of results stays far below.
pub const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// Slicing-by-four tables of the Castagnoli polynomial, reflected.
static TABLES: [[u32; 256]; 4] = tables();

const fn tables() -> [[u32; 256]; 4] {
    let mut tables = [[0u32; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut slice = 1;
    while slice < 4 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[slice - 1][byte];
            tables[slice][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        slice += 1;
    }
    tables
}

fn update(mut crc: u32, bytes: &[u8]) -> u32 {
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        crc ^= u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        crc = TABLES[3][(crc & 0xFF) as usize]
            ^ TABLES[2][(crc >> 8 & 0xFF) as usize]
            ^ TABLES[1][(crc >> 16 & 0xFF) as usize]
            ^ TABLES[0][(crc >> 24) as usize];
    }
    for byte in words.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xFF) as usize];
    }
    crc
}

/// The CRC-32C (Castagnoli) of the parts, one after another.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |crc, part| update(crc, part))
}

/// Appends the frame of one record; `write` appends the record's bytes.
///
/// Panics if the record is longer than [`MAX_RECORD_BYTES`]: callers bound what they write.
pub fn push(buffer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    write(buffer);
    let bytes = &buffer[start + HEADER_BYTES..];
    assert!(bytes.len() <= MAX_RECORD_BYTES, "invariant: records are bounded by their writers");
    let length = (bytes.len() as u32).to_le_bytes();
    // The length is covered too, so that a file's tail of zeros is no empty record.
    let crc = crc32c(&[&length, bytes]).to_le_bytes();
    buffer[start..start + 4].copy_from_slice(&length);
    buffer[start + 4..start + HEADER_BYTES].copy_from_slice(&crc);
}

/// The records at the start of some bytes; ends at the first that is cut or damaged.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Records<'a> {
    /// Reads from the start of `bytes`, which must be the border of a record.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, read: 0 }
    }

    /// Bytes of whole records so far: where an append may go on.
    pub fn position(&self) -> usize {
        self.read
    }

    /// Bytes follow that are no whole record.
    pub fn is_torn(&self) -> bool {
        !self.rest.is_empty() && self.clone().next().is_none()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (crc, rest) = rest.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*length) as usize;
        if count > MAX_RECORD_BYTES {
            return None;
        }
        let bytes = rest.get(..count)?;
        if crc32c(&[length, bytes]) != u32::from_le_bytes(*crc) {
            return None;
        }
        self.rest = &rest[count..];
        self.read += HEADER_BYTES + count;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(records: &[&[u8]]) -> Vec<u8> {
        let mut buffer = Vec::new();
        for record in records {
            push(&mut buffer, |b| b.extend_from_slice(record));
        }
        buffer
    }

    #[test]
    fn crc_is_castagnoli() {
        // The check value of the CRC catalogue, and RFC 3720 B.4: 32 zeros, 32 ones.
        assert_eq!(crc32c(&[b"123456789"]), 0xE306_9283);
        assert_eq!(crc32c(&[b"1234", b"56789"]), 0xE306_9283);
        assert_eq!(crc32c(&[&[0; 32]]), 0x8A91_36AA);
        assert_eq!(crc32c(&[&[0xFF; 32]]), 0x62A8_AB43);
    }

    #[test]
    fn records_come_back_in_order() {
        let bytes = framed(&[b"one", b"", b"three"]);
        let mut records = Records::new(&bytes);
        assert_eq!(records.by_ref().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert_eq!(records.position(), bytes.len());
        assert!(!records.is_torn());
    }

    #[test]
    fn every_cut_keeps_the_whole_records_before_it() {
        let bytes = framed(&[b"first", b"second"]);
        let border = HEADER_BYTES + 5;
        for cut in 0..bytes.len() {
            let mut records = Records::new(&bytes[..cut]);
            let whole = records.by_ref().count();
            assert_eq!(whole, usize::from(cut >= border), "cut at {cut}");
            assert_eq!(records.is_torn(), cut != 0 && cut != border, "cut at {cut}");
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes = framed(&[b"record"]);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Records::new(&damaged).next(), None, "bit {bit}");
        }
    }

    #[test]
    fn tail_of_zeros_is_no_record() {
        let mut bytes = framed(&[b"x"]);
        bytes.extend_from_slice(&[0; 64]);
        let mut records = Records::new(&bytes);
        assert_eq!(records.by_ref().count(), 1);
        assert!(records.is_torn());
    }
}

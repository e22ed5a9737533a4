//! What kinds of archives there are, and how each hands out its entries. Reads the archive, and nothing else.

mod zipped;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::Unpacked;
use super::entry::{self, broken};
use crate::module::Refusal;
use crate::tree::Entry;

/// What reading xz may take, in KiB: twice what `xz -9` asks for.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// How an archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Tar,
    TarGzip,
    TarXz,
    Zip,
}

/// Gets an entry, its number in the archive, and its content.
pub(super) type Visit<'a, E> = &'a mut dyn FnMut(usize, Entry, &mut dyn Read) -> Result<(), E>;

impl Format {
    /// Told by the first bytes: names lie.
    pub(super) fn of(source: &str, file: &mut File) -> Result<Format, Refusal> {
        let mut magic = Vec::new();
        rewind(source, file)?;
        file.take(6).read_to_end(&mut magic).map_err(|error| broken(source, &error))?;
        let other = match magic.as_slice() {
            [0x1f, 0x8b, ..] => return Ok(Format::TarGzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => return Ok(Format::TarXz),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => return Ok(Format::Zip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
            [b'B', b'Z', b'h', ..] => "bzip2",
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c] => "7z",
            _ => return Ok(Format::Tar),
        };
        let message = format!("{source} is {other}; tar, tar.gz, tar.xz and zip are unpacked here");
        Err(Refusal::Module { reason: "UnknownFormat", message })
    }

    /// Holds the archive to its limits, before anything of it is held in memory.
    pub(super) fn check_limits(self, archive: &Unpacked, file: &mut File) -> Result<(), Refusal> {
        match self {
            Format::Zip => zipped::check_limits(archive, file),
            _ => entry::check_limits(&archive.source, self.tar(&archive.source, file)?, archive.max_bytes),
        }
    }

    /// Hands out all entries, in their order.
    pub(super) fn each<E: From<Refusal>>(
        self,
        archive: &Unpacked,
        file: &mut File,
        visit: Visit<'_, E>,
    ) -> Result<(), E> {
        if self == Format::Zip {
            return zipped::each(archive, file, visit);
        }
        let failed = |error: io::Error| broken(&archive.source, &error);
        let mut found = tar::Archive::new(self.tar(&archive.source, file)?);
        for (number, entry) in found.entries().map_err(failed)?.enumerate() {
            let mut content = entry.map_err(failed)?;
            if let Some(entry) = entry::read(&content, archive.strip)? {
                visit(number, entry, &mut content)?;
            }
        }
        Ok(())
    }

    /// The tar archive from its beginning, decompressed if it has to be.
    fn tar<'f>(self, source: &str, file: &'f mut File) -> Result<Box<dyn Read + 'f>, Refusal> {
        rewind(source, file)?;
        let plain = BufReader::new(file);
        Ok(match self {
            Format::TarGzip => Box::new(MultiGzDecoder::new(plain)),
            Format::TarXz => Box::new(XzReader::new_mem_limit(plain, true, XZ_MEMORY_KIB)),
            Format::Tar | Format::Zip => Box::new(plain),
        })
    }
}

fn rewind(source: &str, file: &mut File) -> Result<(), Refusal> {
    file.seek(SeekFrom::Start(0)).map(|_| ()).map_err(|error| broken(source, &error))
}

//! Compiles the protos, with no protoc: types for prost, and the descriptors (with comments) that the decoder reads.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["options", "meta", "objects", "taskbook", "run", "lock", "actions", "records", "services"]
        .map(|name| format!("lockstep/v1alpha/{name}.proto"));
    let mut compiler = protox::Compiler::new(["proto"]).map_err(io::Error::other)?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(files).map_err(io::Error::other)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    // Encoded by protox, not by prost-types: only so are our own options kept.
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    prost_build::Config::new().btree_map(["."]).compile_fds(compiler.file_descriptor_set())
}

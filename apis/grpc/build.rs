//! Generates the gRPC clients and servers; the messages are those of `lockstep-apis`.

use std::io;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=../proto");
    let mut compiler = protox::Compiler::new(["../proto"]).map_err(io::Error::other)?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("lockstep/v1alpha/services.proto").map_err(io::Error::other)?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::SmallBuffers")
        .extern_path(".lockstep.v1alpha", "::lockstep_apis::v1alpha")
        .compile_fds(compiler.file_descriptor_set())
}

//! Writes the Rust code of the spec: `quantd-client-generator DESCRIPTORS CRATE`.
//!
//! `DESCRIPTORS` is a `FileDescriptorSet` as `buf build` makes it. Into the folder `CRATE` go
//!
//! * `src/generated/`: messages and stubs of quantd.v1, and the messages of google.rpc, in which
//!   errors carry their details;
//! * `examples/conformance/descriptors.binpb`: the same files as descriptors, for the JSON mapping.
//!
//! Validation rules are left out of both: the server checks them.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Code of the last one comes with prost-types.
const PACKAGES: [&str; 3] = ["quantd.v1", "google.rpc", "google.protobuf"];
const RULES: &str = "buf/validate/validate.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [descriptors, crate_folder] = arguments.as_slice() else {
        return Err("usage: quantd-client-generator DESCRIPTORS CRATE".into());
    };
    // Decoding drops the rules: they are extensions, which prost does not keep.
    let mut files = FileDescriptorSet::decode(fs::read(descriptors)?.as_slice())?;
    files.file.retain(|file| PACKAGES.contains(&file.package()));
    for file in &mut files.file {
        file.dependency.retain(|dependency| dependency != RULES);
    }
    write_code(files.clone(), &crate_folder.join("src/generated"))?;
    write_descriptors(files, &crate_folder.join("examples/conformance"))?;
    Ok(())
}

fn write_code(mut files: FileDescriptorSet, folder: &Path) -> Result<(), Box<dyn Error>> {
    // Of google.rpc without comments: the examples in them would be taken for Rust.
    for file in files
        .file
        .iter_mut()
        .filter(|file| file.package() == "google.rpc")
    {
        file.source_code_info = None;
    }
    fs::create_dir_all(folder)?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(folder)
        .compile_fds(files)?;
    Ok(())
}

fn write_descriptors(mut files: FileDescriptorSet, folder: &Path) -> Result<(), Box<dyn Error>> {
    for file in &mut files.file {
        file.source_code_info = None;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("descriptors.binpb"), files.encode_to_vec())?;
    Ok(())
}

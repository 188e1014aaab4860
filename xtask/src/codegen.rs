//! `cargo xtask gen`: `api/proto/*.proto` → `api/src/generated/`. The result is committed, so that a build needs no generator.
//!
//! Messages come from rust-protobuf; each service comes twice, as a synchronous client (`*_ttrpc.rs`, for the
//! command line) and as an asynchronous server (`*_ttrpc_async.rs`, for the services).

use std::io;
use std::path::Path;

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

const PROTOS: [&str; 3] = ["snapshots", "network", "shim"];

/// Regenerates everything, from the workspace's root.
pub(crate) fn run() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let out = root.join("api/src/generated");
    let inputs = PROTOS.map(|name| root.join("api/proto").join(format!("{name}.proto")));
    let sync_out = out.clone();
    generate(&sync_out, &root, &inputs, false)?;
    let async_out = out.join("asynchronous");
    std::fs::create_dir_all(&async_out)?;
    generate(&async_out, &root, &inputs, true)?;
    for name in PROTOS {
        // The messages are the same in both runs, and the crate wants them once.
        std::fs::remove_file(async_out.join(format!("{name}.rs")))?;
        std::fs::rename(async_out.join(format!("{name}_ttrpc.rs")), out.join(format!("{name}_ttrpc_async.rs")))?;
    }
    std::fs::remove_dir_all(async_out)?;
    for entry in std::fs::read_dir(&out)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name != "mod.rs") {
            strip_lint_attributes(&path)?;
        }
    }
    Ok(())
}

/// Takes the generator's own `#![allow(…)]` lines out: the module that includes the files says what is allowed, with a
/// reason, and `forbid(unsafe_code)` in the crate's root refuses to be allowed again.
fn strip_lint_attributes(path: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("#![")).collect();
    std::fs::write(path, kept.join("\n") + "\n")
}

fn generate(out: &Path, root: &Path, inputs: &[std::path::PathBuf], async_all: bool) -> io::Result<()> {
    Codegen::new()
        .out_dir(out)
        .inputs(inputs)
        .include(root.join("api/proto"))
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false).generate_accessors(true))
        .customize(Customize { async_all, ..Default::default() })
        .run()
}

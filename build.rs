//! Compiles `proto/` into client code, in Rust alone: no system `protoc` is needed.
//!
//! Notes for `--version` whether the build follows a profile.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["reservation/v1/inventory.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let note = if flags.contains("profile-use") { " (profile-guided)" } else { "" };
    println!("cargo:rustc-env=BUILD_NOTE={note}");
    Ok(())
}

//! Compiles `proto/` into server code for the Inventory stand-in.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../../proto");
    let files = protox::compile(["reservation/v1/inventory.proto"], ["../../proto"])?;
    tonic_prost_build::configure().build_client(true).compile_fds(files)?;
    Ok(())
}

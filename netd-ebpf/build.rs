//! How the programs are linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What is zeroed or copied, is so by words. Without this the linker calls a function for it that goes byte by byte, and both
    // a packet and the verifier walk each of its rounds.
    println!("cargo:rustc-link-arg=--disable-expand-memcpy-in-order");
}

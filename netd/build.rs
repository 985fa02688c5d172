//! Builds the datapath (`netd-ebpf`) for the kernel's virtual machine, so that the daemon carries it as bytes.

use std::{env, fs, path::Path, process::Command};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// What `cargo xtask setup` links into rustup: Debian's rustc-web, which needs no nightly and no build-std, or a nightly.
const LINKED: &str = "netd-ebpf";

/// The core library of Debian's libstd-rust-web-dev-bpf, and the compiler it is for.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../netd-common");
    // Cargo runs a build script in its package's directory.
    let package = Package { name: "netd-ebpf", root_dir: "../netd-ebpf", ..Default::default() };
    aya_build::build_ebpf([package], toolchain())
        .context("building netd-ebpf; `cargo xtask setup` installs what it needs")?;
    let built = Path::new(&env::var("OUT_DIR")?).join("netd-ebpf");
    if env::var("AYA_BUILD_SKIP").is_ok_and(|skip| skip == "1") {
        // Nothing was built: what includes it is to be looked at, not run.
        return Ok(fs::write(&built, [])?);
    }
    strip(&built).with_context(|| format!("leaving out the debugger's sections of {}", built.display()))
}

/// Leaves out what only a debugger reads, three quarters of the file, which the daemon would have in memory. The types that the kernel
/// reads are in `.BTF`, which the linker made from it.
fn strip(object: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(object)?;
    let mut builder = Builder::read(&*bytes)?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM has the names of sections in the same table as those of symbols, the builder wants them apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    fs::write(object, stripped)?;
    Ok(())
}

fn toolchain() -> Toolchain<'static> {
    match Command::new("rustup").args(["run", LINKED, "rustc", "--version"]).output() {
        Ok(output) if output.status.success() => return Toolchain::Custom(LINKED),
        Ok(_) => {}
        // Without rustup, aya-build runs the first cargo on the path, which is told here of a compiler other than its own.
        Err(_) if Path::new(DEBIAN_CORE).exists() => {
            // SAFETY: a build script has one thread, and nothing has started another yet.
            unsafe { env::set_var("CARGO_BUILD_RUSTC", DEBIAN_RUSTC) };
        }
        Err(_) => {}
    }
    Toolchain::Nightly
}

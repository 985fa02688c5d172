//! Finds what is missing on this machine and installs it. Where nothing is, this takes some tens of milliseconds and says nothing.

use anyhow::{Result, bail};

use crate::{
    compiler::Compiler,
    host, packages,
    tool::{BPF_LINKER, CARGO_DENY, Tool},
};

/// A nightly from before Rust moved to an LLVM that bpf-linker cannot read, for the message alone.
const SUGGESTED_NIGHTLY: &str = "nightly-2026-07-01";

/// What building the daemon needs.
pub(crate) fn for_build() -> Result<()> {
    prepare(packages::COMPILER, &[], &[BPF_LINKER])?;
    Ok(())
}

/// What building the daemon and running its tests needs.
pub(crate) fn for_tests() -> Result<()> {
    prepare(packages::COMPILER, packages::TEST_PROGRAMS, &[BPF_LINKER])?;
    Ok(())
}

/// What the checks need; the compiler found.
pub(crate) fn for_checks() -> Result<Compiler> {
    prepare(&[packages::COMPILER, &[packages::LINTER]].concat(), &[], &[BPF_LINKER, CARGO_DENY])
}

fn prepare(
    compiler_packages: &[&'static str],
    programs: &[(&str, &'static str)],
    tools: &[Tool],
) -> Result<Compiler> {
    let mut of_compiler = packages::missing(compiler_packages);
    let installs = host::can_install_packages();
    let nightly = if of_compiler.is_empty() || installs { None } else { Compiler::nightly() };
    if let Some(Compiler::Nightly(directory)) = &nightly {
        eprintln!("The datapath is compiled by the nightly in {}.", directory.display());
        of_compiler.clear();
    }
    let of_programs = packages::missing_programs(programs);
    let missing = [&*of_compiler, &*of_programs].concat();
    if !missing.is_empty() && !installs {
        bail!(instructions(&of_compiler, &of_programs));
    }
    if !missing.is_empty() {
        packages::install(&missing)?;
    }
    for tool in tools {
        if !tool.is_installed() {
            tool.install()?;
        }
    }
    let compiler = nightly.unwrap_or(Compiler::Debian);
    compiler.link()?;
    Ok(compiler)
}

/// What to install by hand, on a machine where xtask cannot.
fn instructions(of_compiler: &[&str], of_programs: &[&str]) -> String {
    let mut text =
        "something is missing, and this command can install it on Debian 12 or later and as root alone."
            .to_owned();
    if !of_compiler.is_empty() {
        text += &format!(
            "\n  To compile eBPF, on Debian, as root:\n    apt-get install --no-install-recommends {}\n  \
             or elsewhere, with the development files of LLVM 22, zlib and zstd, and LLVM_PREFIX set to where LLVM is:\n    \
             rustup toolchain install {SUGGESTED_NIGHTLY} --profile minimal --component rust-src",
            of_compiler.join(" ")
        );
    }
    if !of_programs.is_empty() {
        text += &format!("\n  To run the tests, these by their Debian names:\n    {}", of_programs.join(" "));
    }
    text + "\n  Then try again."
}

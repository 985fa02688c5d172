//! netd's own setup, run and test commands: `cargo xtask COMMAND`.

mod check;
mod compiler;
mod host;
mod lab;
mod packages;
mod process;
mod run;
mod services;
mod setup;
mod test;
mod tool;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, runs and checks netd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing to build and test netd
    Setup,
    /// Set up, build netd and run its daemon on this host (needs root)
    Run {
        /// Arguments of `netd daemon`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up and run every test, the ones that load programs into the kernel included (needs root)
    Test,
    /// Check formatting, lints, and the licences and sources of dependencies
    Check,
    /// Measure netd against the kernel's bridge and a direct link (needs root)
    Bench {
        /// Arguments of the benchmark
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Show netd at work in a lab of network namespaces (needs root)
    Demo {
        /// Arguments of the demo
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    match carry_out(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup::for_tests(),
        Command::Run { arguments } => run::run(&arguments),
        Command::Test => test::run(),
        Command::Check => check::run(),
        Command::Bench { arguments } => lab::run("bench", &arguments),
        Command::Demo { arguments } => lab::run("demo", &arguments),
    }
}

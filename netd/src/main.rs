//! The `netd` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if netd::cni::is_called() {
        return netd::cni::execute();
    }
    if netd::netavark::is_called() {
        return netd::netavark::execute();
    }
    netd::daemon::share_heap();
    match serve() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve() -> anyhow::Result<ExitCode> {
    netd::cli::execute(netd::cli::Cli::parse()).await
}

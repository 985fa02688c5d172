//! The `netd` command.

use std::process::ExitCode;

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
    let cli = netd::cli::Cli::read(std::env::args_os().collect());
    netd::cli::execute(cli.unwrap_or_else(|error| error.exit())).await
}

//! The command line. All but `daemon` is a client of the API's socket and of nothing else.

pub(crate) mod client;
mod format;
mod nat;
mod network;
mod pool;
mod publish;
mod resolv_conf;
mod run;
mod show;
mod tls;

use std::{env, ffi::OsString, path::Path, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::client::{Client, Server};
pub(crate) use self::format::print;
use crate::{
    cni,
    config::{self, Host},
};

/// The socket of a daemon that was told nothing else.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/netd/netd.sock";

/// Container networking with the packet path in eBPF
#[derive(Debug, Parser)]
#[command(name = "netd", version, arg_required_else_help = true)]
#[command(after_help = "A command's options may stand before it, as docker has them: netd -H URL network ls")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the network namespace it is started in
    Daemon(Box<config::Flags>),
    /// Manage networks
    #[command(subcommand_required = true)]
    Network {
        #[command(flatten)]
        daemon: Daemon,
        #[command(subcommand)]
        verb: network::Verb,
    },
    /// Run a command in a fresh network namespace attached to a network
    Run {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        run: run::Run,
    },
    /// Make ports of the host lead to an endpoint that is in use, or list those that do
    Publish {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        publish: publish::Publish,
    },
    /// Make them lead nowhere again
    Unpublish {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        ports: publish::EndpointPorts,
    },
    /// Address translation: the rules in force, external addresses, and the flows translated now
    #[command(subcommand_required = true)]
    Nat {
        #[command(flatten)]
        daemon: Daemon,
        #[command(subcommand)]
        verb: nat::Verb,
    },
    /// The forwarding database: which port a station is behind
    Fdb(Listing),
    /// Routes: the networks inside, and the ways outside
    Route(Listing),
    /// Names: the endpoints that each network's name server knows
    Names(Listing),
    /// Traffic, the ways it took, and what was dropped
    Stats {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        output: Output,
        /// Show counters that are zero too
        #[arg(long, short)]
        all: bool,
    },
    /// The CNI plugin: tell container runtimes of it, or no more
    Cni {
        #[command(subcommand)]
        verb: CniVerb,
    },
    /// The daemon, and its programs, links and maps in the kernel
    Status {
        #[command(flatten)]
        daemon: Daemon,
        #[command(flatten)]
        output: Output,
    },
}

/// A subject of which there is a list.
#[derive(Debug, Args)]
struct Listing {
    #[command(flatten)]
    daemon: Daemon,
    #[command(subcommand)]
    verb: ListingVerb,
}

#[derive(Debug, Subcommand)]
enum ListingVerb {
    /// List them
    Ls {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
enum CniVerb {
    /// Link the binary where runtimes look for plugins, and write the configuration of a network
    Install(cni::install::Install),
    /// Remove what `install` made
    Uninstall(cni::install::Directories),
}

/// Which daemon to speak to.
#[derive(Debug, Args)]
struct Daemon {
    /// The daemon's socket: unix:///PATH or tcp://ADDR:PORT
    #[arg(long, short = 'H', value_name = "URL", env = "NETD_HOST", default_value = DEFAULT_HOST, global = true)]
    host: String,
    #[command(flatten)]
    tls: tls::Flags,
}

/// How to print.
#[derive(Debug, Args)]
struct Output {
    /// Print the daemon's answer in JSON
    #[arg(long)]
    json: bool,
}

impl Cli {
    /// Reads the command line, the program's name first.
    ///
    /// # Errors
    /// If it is none, or asks for help.
    pub fn read(mut line: Vec<OsString>) -> Result<Self, clap::Error> {
        // What stands before the command is the command's: clap cannot be told, since a client's `--host` is another option than
        // the daemon's.
        if line.get(1).is_some_and(|first| first.as_encoded_bytes().starts_with(b"-")) {
            let cli = Self::command();
            if let Some(at) = line.iter().position(|word| cli.find_subcommand(word).is_some()) {
                line[1..=at].rotate_right(1);
            }
        }
        Self::try_parse_from(line)
    }
}

/// Does what the command line says, and returns the process's exit status.
///
/// # Errors
/// The message is the whole of what the user is told.
pub async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Daemon(flags) => crate::daemon::run(*flags).await?,
        Command::Network { daemon, verb } => return network::execute(&daemon.client()?, verb).await,
        Command::Run { daemon, run } => return run::execute(&daemon.client()?, run).await,
        Command::Publish { daemon, publish } => publish::publish(&daemon.client()?, publish).await?,
        Command::Unpublish { daemon, ports } => publish::unpublish(&daemon.client()?, ports).await?,
        Command::Nat { daemon, verb } => nat::execute(&daemon.client()?, verb).await?,
        Command::Fdb(Listing { daemon, verb: ListingVerb::Ls { output } }) => {
            show::print(&daemon.client()?, "/netd/fdb", output.json, |stations: &Vec<_>| show::fdb(stations))
                .await?;
        }
        Command::Route(Listing { daemon, verb: ListingVerb::Ls { output } }) => {
            show::print(&daemon.client()?, "/netd/routes", output.json, show::routes).await?;
        }
        Command::Names(Listing { daemon, verb: ListingVerb::Ls { output } }) => {
            show::print(&daemon.client()?, "/netd/names", output.json, |names: &Vec<_>| show::names(names))
                .await?;
        }
        Command::Stats { daemon, output, all } => {
            show::print(&daemon.client()?, "/netd/stats", output.json, |stats: &_| show::stats(stats, all))
                .await?;
        }
        Command::Cni { verb: CniVerb::Install(install) } => cni::install::install(&install)?,
        Command::Cni { verb: CniVerb::Uninstall(directories) } => cni::install::uninstall(&directories)?,
        Command::Status { daemon, output } => {
            show::print(&daemon.client()?, "/netd/status", output.json, show::status).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Daemon {
    fn client(self) -> anyhow::Result<Client> {
        let tls = self.tls.read(|name| env::var_os(name)).map_err(anyhow::Error::msg)?;
        reach(&self.host, tls).map_err(anyhow::Error::msg)
    }
}

/// A client of the daemon at a URL.
pub(crate) fn reach(url: &str, tls: Option<tls::Tls>) -> Result<Client, String> {
    let socket = DEFAULT_HOST.trim_start_matches("unix://");
    let defaults = config::Defaults { socket: Path::new(socket), tls: tls.is_some() };
    let host = Host::parse(url, defaults)?;
    Ok(Client::new(match host {
        Host::Unix(path) => Server::Unix(path),
        Host::Tcp { host, port } => Server::Tcp { host, port, tls },
        Host::Fd(_) => return Err(format!("{host}: a daemon is not reached by a socket that it was handed")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_host_may_stand_before_or_behind_the_verb() {
        for line in [
            "netd network --host tcp://a:1 ls",
            "netd network ls --host tcp://a:1",
            "netd nat ls -H tcp://a:1",
            "netd -H tcp://a:1 network ls",
            "netd --tls --host=tcp://a:1 nat ls --json",
            "netd -H tcp://a:1 publish ls",
            "netd publish --json -H tcp://a:1 ls",
            "netd -H tcp://a:1 publish web 80",
        ] {
            let cli = Cli::read(line.split(' ').map(OsString::from).collect()).unwrap();
            let host = match cli.command {
                Command::Network { daemon, .. }
                | Command::Nat { daemon, .. }
                | Command::Publish { daemon, .. } => daemon.host,
                other => panic!("{other:?}"),
            };
            assert_eq!(host, "tcp://a:1", "{line}");
        }
    }

    #[test]
    fn ports_are_published_and_listed() {
        for line in
            ["netd publish ls --json", "netd publish web 8080:80 [::1]::53/udp", "netd unpublish web 80"]
        {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in ["netd publish web", "netd unpublish web", "netd publish"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_command_to_run_keeps_its_flags() {
        let cli = Cli::try_parse_from(["netd", "run", "--network", "n1", "--", "ping", "-c", "1", "--help"])
            .unwrap();
        let Command::Run { run, .. } = cli.command else { panic!("{cli:?}") };
        assert_eq!(run.command, ["ping", "-c", "1", "--help"]);
    }
}

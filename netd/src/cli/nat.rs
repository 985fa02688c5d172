//! `netd nat`: what is translated, and external addresses given and taken back.

use clap::Subcommand;

use super::{
    Output,
    client::{Client, escape},
    show,
};
use crate::api::view::ExternalAdd;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the rules in force, the external addresses, and the flows that are translated now
    Ls {
        #[command(flatten)]
        output: Output,
    },
    /// Let the outside know an endpoint by an address of its own, or a network by an IPv6 prefix
    Add {
        /// An address that is nobody's, or an IPv6 prefix as long as the network's
        external: String,
        /// The endpoint: its name, its namespace (netns:NAME, a path, pid:N), its id, or NETWORK/ENDPOINT; for a prefix, the network
        target: String,
    },
    /// Take an external address or prefix back
    Rm {
        /// As it was given
        external: String,
    },
}

pub(super) async fn execute(client: &Client, verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Ls { output } => show::print(client, "/netd/nat", output.json, show::nat).await?,
        Verb::Add { external, target } => {
            client.post("/netd/nat", &ExternalAdd { external, target }).await?;
        }
        Verb::Rm { external } => {
            client.delete(&format!("/netd/nat?external={}", escape(&external))).await?;
        }
    }
    Ok(())
}

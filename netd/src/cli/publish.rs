//! `netd publish` and `netd unpublish`: ports of the host that lead to endpoints which are in use.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use super::{
    Output,
    client::Client,
    format::{self, indent, table},
    show,
};
use crate::{
    api::view::Publication,
    model::{PortSpec, Ports, Reserver, request},
};

#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_negates_reqs = true)]
#[group(skip)]
pub(super) struct Publish {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// netns:NAME, pid:N, the path of a namespace, the endpoint's name or id, or NETWORK/ENDPOINT
    #[arg(required = true, requires = "ports")]
    endpoint: Option<String>,
    /// [hostIP:][hostPort[-range]:]ctrPort[-range][/tcp|udp|sctp]
    #[arg(value_name = "SPEC")]
    ports: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List published ports
    Ls {
        #[command(flatten)]
        output: Output,
    },
}

/// An endpoint, and ports that are published.
#[derive(Debug, Args)]
pub(super) struct EndpointPorts {
    /// netns:NAME, pid:N, the path of a namespace, the endpoint's name or id, or NETWORK/ENDPOINT
    endpoint: String,
    /// [hostIP:][hostPort[-range]:]ctrPort[-range][/tcp|udp|sctp]
    #[arg(required = true, value_name = "SPEC")]
    ports: Vec<String>,
    #[command(flatten)]
    output: Output,
}

/// What `--publish` takes, read here so that a slip of the pen is told before anything is done.
pub(super) fn spec(text: &str) -> Result<String, String> {
    text.parse::<PortSpec>().map(|_| text.to_owned()).map_err(|error| error.message)
}

pub(super) async fn publish(client: &Client, publish: Publish) -> anyhow::Result<()> {
    let Publish { verb, endpoint, ports, output } = publish;
    match (verb, endpoint) {
        (Some(Verb::Ls { output: Output { json } }), None) => {
            let json = json || output.json;
            show::print(client, "/netd/publish", json, |all: &Vec<Publication>| list(all)).await
        }
        (Some(Verb::Ls { .. }), Some(endpoint)) => {
            anyhow::bail!("`ls` lists the ports of all endpoints, and is told of none: {endpoint:?}")
        }
        (None, Some(endpoint)) => {
            post(client, "/netd/publish", EndpointPorts { endpoint, ports, output }).await
        }
        (None, None) => anyhow::bail!("an endpoint and its ports are to be named, or `ls`"),
    }
}

pub(super) async fn unpublish(client: &Client, ports: EndpointPorts) -> anyhow::Result<()> {
    post(client, "/netd/unpublish", ports).await
}

/// Prints what has changed, a line each.
async fn post(client: &Client, path: &str, ports: EndpointPorts) -> anyhow::Result<()> {
    let request = request::Publish { endpoint: ports.endpoint, ports: ports.ports };
    let body = client.post(path, &request).await?;
    let text = if ports.output.json {
        indent(&String::from_utf8_lossy(&body)) + "\n"
    } else {
        let changed: Vec<Publication> = client.parse(&body)?;
        changed.iter().map(|it| format!("{} -> {}\n", host(it), container(it))).collect()
    };
    format::print(&text)?;
    Ok(())
}

fn list(publications: &[Publication]) -> String {
    let rows = publications.iter().map(|it| {
        let reserved_by = it.reserved_by.map_or("-", Reserver::name).to_owned();
        [host(it), container(it), it.endpoint.clone(), it.network.clone(), reserved_by]
    });
    table(["HOST", "CONTAINER", "ENDPOINT", "NETWORK", "RESERVED BY"], &[], rows)
}

fn host(publication: &Publication) -> String {
    if publication.host_port == 0 {
        return "-".into();
    }
    let first = SocketAddr::new(publication.host_ip, publication.host_port).to_string();
    match publication.host_port_end {
        last if last == publication.host_port => first,
        last => format!("{first}-{last}"),
    }
}

fn container(publication: &Publication) -> String {
    let ports = Ports { first: publication.container_port, last: publication.container_port_end };
    format!("{ports}/{}", publication.protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_one_line() {
        let publication = Publication {
            network: "n1".into(),
            endpoint: "web".into(),
            protocol: "tcp".into(),
            host_ip: "::".parse().unwrap(),
            host_port: 8000,
            host_port_end: 8010,
            container_port: 80,
            container_port_end: 90,
            reserved_by: Some(Reserver::Runtime),
        };
        assert_eq!(
            (host(&publication), container(&publication)),
            ("[::]:8000-8010".into(), "80-90/tcp".into())
        );
        let routed = Publication { host_port: 0, host_port_end: 0, ..publication.clone() };
        assert_eq!(host(&routed), "-");
        let list = list(&[publication]);
        assert!(
            list.contains("[::]:8000-8010") && list.contains("n1 ") && list.contains("runtime"),
            "{list}"
        );
    }
}

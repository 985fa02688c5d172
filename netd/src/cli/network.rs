//! `netd network`: Docker's verbs and flags.

use std::{collections::BTreeMap, process::ExitCode};

use clap::{ArgAction, Args, Subcommand};
use hyper::StatusCode;
use serde::Deserialize;

use super::{
    Output,
    client::{Client, Error, escape},
    format::{self, indent, table},
    pool,
};
use crate::model::request::{
    ConfigFrom, EndpointAddresses, EndpointConfig, IpamRequest, NetworkConnect, NetworkCreate,
    NetworkDisconnect,
};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List networks
    Ls(Ls),
    /// Show all of one or more networks, in JSON
    Inspect {
        /// Names, ids, or beginnings of ids
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Create a network
    Create(Box<Create>),
    /// Remove one or more networks
    Rm {
        /// Names, ids, or beginnings of ids
        #[arg(required = true)]
        networks: Vec<String>,
        /// A network that does not exist is no error, nor one that a container engine has forgotten
        #[arg(long, short)]
        force: bool,
    },
    /// Give a network namespace an interface in a network
    Connect(Connect),
    /// Take the interface away
    Disconnect {
        /// Name, id, or beginning of an id
        network: String,
        /// netns:NAME, pid:N, the path of a namespace, or the endpoint's name
        endpoint: String,
        /// Disconnect even what is not in order
        #[arg(long, short)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Ls {
    #[command(flatten)]
    output: Output,
    /// Only those with this, e.g. driver=bridge, label=a=b, name=^web
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_value)]
    filter: Vec<(String, String)>,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Its name
    name: String,
    /// What it is made of
    #[arg(long, short, default_value = "bridge")]
    driver: String,
    /// A prefix for its addresses; one of each family at most
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// Give out addresses of this part of the subnet
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// The bridge's address
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// An address that is not to be given out
    #[arg(long, value_name = "NAME=IP", value_parser = key_value)]
    aux_address: Vec<(String, String)>,
    /// No way out for its endpoints
    #[arg(long)]
    internal: bool,
    /// Give endpoints an IPv4 address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv4: Option<bool>,
    /// Give endpoints an IPv6 address
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    ipv6: Option<bool>,
    /// A mark of your own
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = key_or_key_value)]
    label: Vec<(String, String)>,
    /// A driver option
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = key_or_key_value)]
    opt: Vec<(String, String)>,
    /// Stored for Docker's clients
    #[arg(long)]
    attachable: bool,
    /// Where addresses come from: `default`, or `null` for none
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,
    /// No network, but what others are made like
    #[arg(long)]
    config_only: bool,
    /// The network that it is made like
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    /// An option of the address management
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_or_key_value)]
    ipam_opt: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Name, id, or beginning of an id
    network: String,
    /// netns:NAME (under /run/netns), pid:N, the path of a namespace, or the name of an endpoint that it has already
    endpoint: String,
    #[command(flatten)]
    interface: Interface,
    /// One more name of the endpoint
    #[arg(long)]
    alias: Vec<String>,
    /// A driver option
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_or_key_value)]
    driver_opt: Vec<(String, String)>,
    /// The highest of a namespace's endpoints is its default route
    #[arg(long, value_name = "N", default_value_t = 0, allow_hyphen_values = true)]
    gw_priority: i64,
}

/// What an endpoint's interface may be asked to have.
#[derive(Debug, Args)]
pub(super) struct Interface {
    /// Its IPv4 address
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Its IPv6 address
    #[arg(long, value_name = "IP")]
    ip6: Option<String>,
    /// One more address, a link-local one
    #[arg(long, value_name = "IP", action = ArgAction::Append)]
    link_local_ip: Vec<String>,
    /// Its Ethernet address
    #[arg(long, value_name = "MAC")]
    mac_address: Option<String>,
}

pub(super) async fn execute(client: &Client, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Ls(ls) => list(client, ls).await?,
        Verb::Inspect { networks } => return inspect(client, &networks).await,
        Verb::Create(create) => {
            #[derive(Deserialize)]
            #[serde(rename_all = "PascalCase")]
            struct Created {
                id: String,
                warning: String,
            }
            let body = client.post("/networks/create", &create.request()?).await?;
            let created: Created = client.parse(&body)?;
            if !created.warning.is_empty() {
                eprintln!("WARNING: {}", created.warning);
            }
            format::print(&format!("{}\n", created.id))?;
        }
        Verb::Rm { networks, force } => return remove(client, &networks, force).await,
        Verb::Connect(connect) => {
            let path = format!("/networks/{}/connect", escape(&connect.network));
            client.post(&path, &connect.request()).await?;
        }
        Verb::Disconnect { network, endpoint, force } => {
            let path = format!("/networks/{}/disconnect", escape(&network));
            client.post(&path, &NetworkDisconnect { container: endpoint, force }).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(client: &Client, ls: Ls) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Network {
        id: String,
        name: String,
        driver: String,
        scope: String,
    }
    let mut filters: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for (key, value) in &ls.filter {
        filters.entry(key).or_default().insert(value, true);
    }
    let path = match filters.is_empty() {
        true => "/networks".to_owned(),
        false => format!("/networks?filters={}", escape(&serde_json::to_string(&filters)?)),
    };
    let body = client.get(&path).await?;
    if ls.output.json {
        format::print(&(indent(&String::from_utf8_lossy(&body)) + "\n"))?;
        return Ok(());
    }
    let mut networks: Vec<Network> = client.parse(&body)?;
    if !ls.no_trunc {
        networks.iter_mut().for_each(|network| network.id.truncate(12));
    }
    let text = match ls.quiet {
        true => networks.into_iter().map(|network| network.id + "\n").collect(),
        false => {
            let rows = networks.into_iter().map(|it| [it.id, it.name, it.driver, it.scope]);
            table(["NETWORK ID", "NAME", "DRIVER", "SCOPE"], &[], rows)
        }
    };
    format::print(&text)?;
    Ok(())
}

/// Prints an array of those that are found, and an error for each that is not.
async fn inspect(client: &Client, networks: &[String]) -> anyhow::Result<ExitCode> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for network in networks {
        match client.get(&format!("/networks/{}", escape(network))).await {
            Ok(body) => found.push(String::from_utf8_lossy(&body).into_owned()),
            Err(error @ Error::Refused { .. }) => errors.push(error),
            Err(error) => return Err(error.into()),
        }
    }
    format::print(&(indent(&format!("[{}]", found.join(","))) + "\n"))?;
    errors.iter().for_each(|error| eprintln!("{error}"));
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes all it can, and prints the names of those.
async fn remove(client: &Client, networks: &[String], force: bool) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for network in networks {
        let force_it = if force { "?force=1" } else { "" };
        match client.delete(&format!("/networks/{}{force_it}", escape(network))).await {
            Ok(()) => format::print(&format!("{network}\n"))?,
            Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) if force => {}
            Err(error @ Error::Refused { .. }) => {
                eprintln!("{error}");
                code = ExitCode::FAILURE;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(code)
}

impl Create {
    fn request(&self) -> anyhow::Result<NetworkCreate> {
        Ok(NetworkCreate {
            name: self.name.clone(),
            driver: Some(self.driver.clone()),
            enable_ipv4: self.ipv4,
            enable_ipv6: self.ipv6,
            ipam: Some(IpamRequest {
                driver: self.ipam_driver.clone(),
                options: Some(self.ipam_opt.iter().cloned().collect()),
                config: pool::requests(&self.subnet, &self.ip_range, &self.gateway, &self.aux_address)?,
            }),
            internal: self.internal,
            attachable: self.attachable,
            config_only: self.config_only,
            config_from: self.config_from.clone().map(|network| ConfigFrom { network }),
            options: self.opt.iter().cloned().collect(),
            labels: self.label.iter().cloned().collect(),
            ..NetworkCreate::default()
        })
    }
}

impl Connect {
    fn request(self) -> NetworkConnect {
        let config = EndpointConfig {
            aliases: self.alias,
            driver_opts: self.driver_opt.into_iter().collect(),
            gw_priority: self.gw_priority,
            ..self.interface.request()
        };
        NetworkConnect { container: self.endpoint, endpoint_config: Some(config) }
    }
}

impl Interface {
    pub(super) fn request(self) -> EndpointConfig {
        EndpointConfig {
            ipam_config: Some(EndpointAddresses {
                ipv4_address: self.ip.unwrap_or_default(),
                ipv6_address: self.ip6.unwrap_or_default(),
                link_local_ips: self.link_local_ip,
            }),
            mac_address: self.mac_address.unwrap_or_default(),
            ..EndpointConfig::default()
        }
    }
}

/// `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

/// `KEY=VALUE`, or `KEY` for an empty value.
fn key_or_key_value(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { key_value(text) } else { Ok((text.to_owned(), String::new())) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::model::request::PoolRequest;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    fn create(line: &str) -> anyhow::Result<NetworkCreate> {
        let words = "network create".split(' ').chain(line.split(' '));
        match Line::try_parse_from(words)?.verb {
            Verb::Create(create) => create.request(),
            verb => panic!("{verb:?}"),
        }
    }

    #[test]
    fn a_plain_network_asks_for_nothing() {
        assert_eq!(
            serde_json::to_string(&create("n1").unwrap()).unwrap(),
            concat!(
                r#"{"Name":"n1","Driver":"bridge","Scope":"","IPAM":{"Driver":"default","Options":{},"Config":[]},"#,
                r#""Internal":false,"Attachable":false,"Ingress":false,"ConfigOnly":false,"Options":{},"Labels":{}}"#
            )
        );
    }

    #[test]
    fn all_flags_reach_the_request() {
        let request = create(
            "--ipv6 --ipv4=false --subnet 10.5.0.0/16 --subnet fd00:5::/64 --ip-range 10.5.1.0/24 --gateway fd00:5::1 \
             --gateway 10.5.0.1 --aux-address h=10.5.0.9 -o a.b=1 --opt c --label x=y=z --attachable --internal n2",
        )
        .unwrap();
        assert_eq!((request.enable_ipv4, request.enable_ipv6), (Some(false), Some(true)));
        assert!(request.internal && request.attachable);
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert_eq!(request.options, pairs(&[("a.b", "1"), ("c", "")]));
        assert_eq!(request.labels, pairs(&[("x", "y=z")]));
        assert_eq!(
            request.ipam.unwrap().config,
            [
                PoolRequest {
                    subnet: "10.5.0.0/16".into(),
                    ip_range: "10.5.1.0/24".into(),
                    gateway: "10.5.0.1".into(),
                    auxiliary_addresses: pairs(&[("h", "10.5.0.9")]),
                },
                PoolRequest {
                    subnet: "fd00:5::/64".into(),
                    gateway: "fd00:5::1".into(),
                    ..PoolRequest::default()
                },
            ]
        );
    }

    #[test]
    fn pools_that_do_not_fit_together_are_refused_here() {
        for (line, message) in [
            ("--gateway 10.0.0.1 n", "every ip-range or gateway must have a corresponding subnet"),
            (
                "--subnet 192.168.0.0/16 --ip-range 192.170.0.0/16 n",
                "no matching subnet for range 192.170.0.0/16",
            ),
            ("--subnet 10.0.0.0/8 --gateway 11.0.0.1 n", "no matching subnet for gateway 11.0.0.1"),
            ("--subnet 10.0.0.0/8 --aux-address a=b n", "no matching subnet for aux-address b"),
            (
                "--subnet 192.168.0.0/16 --subnet 192.168.1.0/24 n",
                "multiple overlapping subnet configuration is not supported",
            ),
            ("--subnet foo --gateway 10.0.0.1 n", "invalid subnet: invalid CIDR address: foo"),
            (
                "--subnet 10.0.0.0/8 --subnet fd00::/64 --gateway 10.0.0.1 --gateway 10.0.0.2 n",
                "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/8)",
            ),
        ] {
            assert_eq!(create(line).unwrap_err().to_string(), message, "{line}");
        }
        // A lone subnet is the daemon's to judge.
        assert_eq!(create("--subnet foo n").unwrap().ipam.unwrap().config[0].subnet, "foo");
    }

    #[test]
    fn a_connection_asks_for_what_it_was_told() {
        let line = "network connect --ip 10.5.0.7 --mac-address 02:00:00:00:00:01 --alias a --gw-priority -5 n1 netns:red";
        let Verb::Connect(connect) = Line::try_parse_from(line.split(' ')).unwrap().verb else { panic!() };
        let request = connect.request();
        assert_eq!(request.container, "netns:red");
        let config = request.endpoint_config.unwrap();
        assert_eq!((config.gw_priority, &*config.mac_address), (-5, "02:00:00:00:00:01"));
        assert_eq!(config.ipam_config.unwrap().ipv4_address, "10.5.0.7");
    }
}

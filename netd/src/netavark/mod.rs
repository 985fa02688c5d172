//! The netavark plugin: netd's binary as netavark and podman call it where a network's driver is named as the binary is.
//! It is a client of the daemon, which does the work and remembers it.
//!
//! | call | asks the daemon |
//! |---|---|
//! | `create` | `POST /networks/create` |
//! | `setup NETNS` | `POST /netd/attachments` |
//! | `teardown NETNS` | `DELETE /netd/attachments/NETWORK/CONTAINER/INTERFACE` |
//! | `info` | nothing |
//!
//! What is wrong is told on standard output, as `{"error": "..."}`.

mod message;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::{Value, json};

use self::message::{Network, Setup};
use crate::{
    cli::{
        self, DEFAULT_HOST,
        client::{self, Client, escape},
    },
    model::attachment::Attachment,
};

/// Network label: podman's id of a network that was made for it.
const LABEL: &str = "netd.netavark";

/// The version of the protocol.
const API_VERSION: &str = "1.0.0";

/// What is asked for. None of these is a command of netd's own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Create,
    Setup(String),
    Teardown(String),
    Info,
}

impl Call {
    fn read(arguments: &[&OsStr]) -> Option<Self> {
        let arguments: Option<Vec<_>> = arguments.iter().map(|argument| argument.to_str()).collect();
        match arguments?.as_slice() {
            ["create"] => Some(Self::Create),
            ["info"] => Some(Self::Info),
            ["setup", netns] => Some(Self::Setup((*netns).to_owned())),
            ["teardown", netns] => Some(Self::Teardown((*netns).to_owned())),
            _ => None,
        }
    }

    fn of_this_process() -> Option<Self> {
        let arguments: Vec<_> = env::args_os().skip(1).collect();
        Self::read(&arguments.iter().map(|argument| &**argument).collect::<Vec<_>>())
    }
}

/// Whether this process was started to be the plugin.
pub fn is_called() -> bool {
    Call::of_this_process().is_some()
}

/// Does what the arguments say, with what standard input says.
pub fn execute() -> ExitCode {
    let Some(call) = Call::of_this_process() else { return ExitCode::FAILURE };
    let (answer, code) = match answer(&call) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(Error(error)) => (Some(json!({ "error": error })), ExitCode::FAILURE),
    };
    let text = answer.map(|answer| format!("{answer}\n")).unwrap_or_default();
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Error(String);

impl From<client::Error> for Error {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::Refused { message, .. } => Self(message),
            other => Self(other.to_string()),
        }
    }
}

fn invalid(reason: impl Into<String>) -> Error {
    Error(reason.into())
}

fn answer(call: &Call) -> Result<Option<Value>, Error> {
    if *call == Call::Info {
        return Ok(Some(json!({"version": env!("CARGO_PKG_VERSION"), "api_version": API_VERSION})));
    }
    let mut input = Vec::new();
    io::stdin()
        .read_to_end(&mut input)
        .map_err(|error| invalid(format!("reading standard input: {error}")))?;
    let url = env::var("NETD_HOST").ok().filter(|url| !url.is_empty());
    let client = cli::reach(url.as_deref().unwrap_or(DEFAULT_HOST), None)
        .map_err(|why| invalid(format!("invalid NETD_HOST: {why}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| invalid(error.to_string()))?;
    runtime.block_on(async {
        match call {
            Call::Create => create(&client, message::read(&input)?).await.map(Some),
            Call::Setup(netns) => setup(&client, netns, &message::read(&input)?).await.map(Some),
            Call::Teardown(netns) => teardown(&client, netns, &message::read(&input)?).await,
            Call::Info => Ok(None),
        }
    })
}

/// A network, as far as the daemon's answer matters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
    #[serde(rename = "IPAM")]
    ipam: MadeIpam,
    containers: BTreeMap<String, Value>,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MadeIpam {
    config: Option<Vec<MadePool>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MadePool {
    subnet: String,
    gateway: Option<String>,
}

async fn inspect(client: &Client, name: &str) -> Result<Option<Made>, Error> {
    match client.get(&format!("/networks/{}", escape(name))).await {
        Ok(body) => Ok(Some(client.parse(&body)?)),
        Err(client::Error::Refused { status, .. }) if status == hyper::StatusCode::NOT_FOUND => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a network, and returns its description with what it was lacking.
async fn create(client: &Client, mut given: Value) -> Result<Value, Error> {
    let network: Network = message::parse(&given)?;
    let mut request = network.request()?;
    request.labels.insert(LABEL.to_owned(), network.id.clone());
    if let Some(old) = inspect(client, &network.name).await? {
        // Nobody tells when podman forgets a network; that it is new to podman does.
        let stale = old.labels.get(LABEL) == Some(&network.id) && old.containers.is_empty();
        if stale {
            client.delete(&format!("/networks/{}", escape(&old.id))).await?;
        }
    }
    client.post("/networks/create", &request).await?;
    let made = inspect(client, &network.name).await?;
    let made = made.ok_or_else(|| invalid(format!("network {} went at once", network.name)))?;
    let pools = made.ipam.config.unwrap_or_default();
    let pools = pools.iter().map(|pool| (&*pool.subnet, pool.gateway.as_deref()));
    network.complete(&mut given, pools, &format!("br-{}", made.id.get(..12).unwrap_or_default()));
    Ok(given)
}

/// Attaches a container, and returns how.
async fn setup(client: &Client, netns: &str, given: &Value) -> Result<Value, Error> {
    let setup: Setup = message::parse(given)?;
    let body = client.post("/netd/attachments", &setup.request(netns)?).await?;
    let attached: Attachment = client.parse(&body)?;
    Ok(setup.status(&attached))
}

/// Detaches a container, whether its namespace is still there or not.
async fn teardown(client: &Client, netns: &str, given: &Value) -> Result<Option<Value>, Error> {
    let setup: Setup = message::parse(given)?;
    let [network, container, interface] = setup.key().map(escape);
    match client.delete(&format!("/netd/attachments/{network}/{container}/{interface}")).await {
        // With its namespace gone there is nothing of it left but in the daemon's memory, and a daemon that starts forgets
        // who is no more.
        Err(client::Error::Connect { .. }) if !Path::new(netns).exists() => Ok(None),
        done => Ok(done.map(|()| None)?),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn calls_are_no_commands_of_netds_own() {
        for (arguments, call) in [
            (&["create"][..], Call::Create),
            (&["info"], Call::Info),
            (&["setup", "/run/netns/a"], Call::Setup("/run/netns/a".into())),
            (&["teardown", "/run/netns/a"], Call::Teardown("/run/netns/a".into())),
        ] {
            let line: Vec<_> = arguments.iter().map(OsStr::new).collect();
            assert_eq!(Call::read(&line), Some(call));
            assert!(cli::Cli::try_parse_from([OsStr::new("netd")].iter().chain(&line)).is_err());
        }
        for arguments in [&[][..], &["setup"], &["create", "x"], &["network", "create"]] {
            assert_eq!(Call::read(&arguments.iter().map(OsStr::new).collect::<Vec<_>>()), None);
        }
    }
}

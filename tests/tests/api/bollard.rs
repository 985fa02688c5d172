//! Another client than Docker's own: bollard, which many Rust programs speak to Docker with.

use std::collections::HashMap;

use bollard::errors::Error;
use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{
    EventsOptions, InspectNetworkOptions, ListNetworksOptions, PruneNetworksOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::TryStreamExt as _;
use netd_tests::lab::Namespace;

use crate::{container, daemon, now};

/// What a refused call tells.
fn refusal(error: Error) -> (u16, String) {
    match error {
        Error::DockerResponseServerError { status_code, message } => (status_code, message),
        other => panic!("{other}"),
    }
}

#[test]
fn bollard_drives_networks() {
    let host = daemon();
    let ns = Namespace::new("c");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = host.socket();
        let client = Docker::connect_with_unix(socket.to_str().expect("text"), 30, API_DEFAULT_VERSION);
        let client = client.expect("connecting").negotiate_version().await.expect("a version");
        assert_eq!(client.client_version().to_string(), "1.50");
        assert_eq!(client.ping().await.expect("an answer"), "OK");
        let version = client.version().await.expect("an answer");
        assert_eq!(version.api_version.as_deref(), Some("1.50"));
        let info = client.info().await.expect("an answer");
        assert_eq!(info.server_version.as_deref(), Some(env!("CARGO_PKG_VERSION")));

        let subnet = IpamConfig { subnet: Some("10.5.0.0/16".to_owned()), ..IpamConfig::default() };
        let request = NetworkCreateRequest {
            name: "n1".to_owned(),
            ipam: Some(Ipam { config: Some(vec![subnet]), ..Ipam::default() }),
            labels: Some(HashMap::from([("a".to_owned(), "b".to_owned())])),
            ..NetworkCreateRequest::default()
        };
        let made = client.create_network(request.clone()).await.expect("a network");
        let again = refusal(client.create_network(request).await.expect_err("a name that is taken"));
        assert_eq!(again, (409, "network with name n1 already exists".to_owned()));

        let join = NetworkConnectRequest { container: container(&ns), ..NetworkConnectRequest::default() };
        client.connect_network("n1", join).await.expect("joining");
        let network = client.inspect_network("n1", None::<InspectNetworkOptions>).await.expect("a network");
        assert_eq!(network.id.as_ref(), Some(&made.id));
        let containers = network.containers.expect("containers");
        let addresses: Vec<_> =
            containers.values().map(|endpoint| endpoint.ipv4_address.as_deref()).collect();
        assert_eq!(addresses, [Some("10.5.0.2/16")]);

        let networks = client.list_networks(None::<ListNetworksOptions>).await.expect("networks");
        let names: Vec<_> = networks.iter().map(|network| network.name.as_deref().expect("a name")).collect();
        assert_eq!(names, ["bridge", "host", "n1", "none"]);

        let in_use = refusal(client.remove_network("n1").await.expect_err("a network in use"));
        assert!(in_use.0 == 403 && in_use.1.contains("has active endpoints"), "{in_use:?}");
        let leave = NetworkDisconnectRequest { container: container(&ns), force: None };
        client.disconnect_network("n1", leave).await.expect("leaving");
        let pruned = client.prune_networks(None::<PruneNetworksOptions>).await.expect("an answer");
        assert_eq!(pruned.networks_deleted, Some(vec!["n1".to_owned()]));
        let absent = client.inspect_network("n1", None::<InspectNetworkOptions>).await;
        assert_eq!(
            refusal(absent.expect_err("a network that is gone")),
            (404, "network n1 not found".to_owned())
        );

        let asked =
            EventsOptions { since: Some("1".to_owned()), until: Some(now()), ..EventsOptions::default() };
        let events: Vec<_> = client.events(Some(asked)).try_collect().await.expect("events");
        let actions: Vec<_> =
            events.iter().map(|event| event.action.as_deref().expect("an action")).collect();
        assert_eq!(actions, ["create", "connect", "disconnect", "destroy", "prune"]);
    });
}

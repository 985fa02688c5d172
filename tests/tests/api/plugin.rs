//! Docker Engine's plugin protocol, spoken by an engine that is none: the calls in the engine's order, its oddities
//! included.

use std::os::unix::net::UnixStream;

use netd_tests::lab::{
    Answer, Family, Host, Lab, Namespace, Ping, UdpEcho, ask, at, http_send, ping, udp, until,
};
use serde_json::{Value, json};

/// The engine's ids are 64 hexadecimal digits; others are as good.
const NETWORK: &str = "7d86d31b1478e7cca9ebed7e73aa0fdeec46c5ca29497431d3007d2d9e15ed99";
const ENDPOINT: &str = "57eb6a1e2d8f4c03b9a1de7ab5c0ffee57eb6a1e2d8f4c03b9a1de7ab5c0ffee";
const OTHER: &str = "a-second-endpoint";

/// An engine that knows the daemon's plugin socket.
struct Engine<'a> {
    host: &'a Host,
}

impl Engine<'_> {
    fn send(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = UnixStream::connect(self.host.plugin_socket()).expect("the plugin listens");
        http_send(stream, "POST", &format!("/{method}"), headers, body)
            .unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    /// A call that is answered. The engine sends no type along.
    fn call(&self, method: &str, body: &Value) -> Value {
        let accept = [("Accept", "application/vnd.docker.plugins.v1.2+json")];
        let answer = self.send(method, &accept, body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{method}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/vnd.docker.plugins.v1.2+json"));
        answer.json()
    }

    /// A call that is not done; the reason.
    fn refused(&self, method: &str, body: &Value) -> String {
        let answer = self.call(method, body);
        let field = if method.starts_with("Ipam") { "Error" } else { "Err" };
        let fields = answer.as_object().expect("an object");
        assert_eq!(fields.len(), 1, "{method}: {answer}");
        fields[field].as_str().unwrap_or_else(|| panic!("{method}: {answer}")).to_owned()
    }

    fn activate(&self) {
        let answer = self.send("Plugin.Activate", &[], b"");
        assert_eq!(answer.json(), json!({"Implements": ["NetworkDriver", "IpamDriver"]}));
    }

    fn pool(&self, pool: &str) -> Value {
        let body = json!({
            "AddressSpace": "netd-local", "Pool": pool, "SubPool": "", "Options": null, "V6": pool.contains(':')
        });
        self.call("IpamDriver.RequestPool", &body)
    }

    fn address(&self, pool: &Value, address: &str, options: &Value) -> Value {
        let body = json!({"PoolID": pool["PoolID"], "Address": address, "Options": options});
        self.call("IpamDriver.RequestAddress", &body)
    }

    fn gateway(&self, pool: &Value, address: &str) -> Value {
        self.address(pool, address, &json!({"RequestAddressType": "com.docker.network.gateway"}))["Address"]
            .clone()
    }

    /// A network of both families; the pools, and its first endpoint's addresses.
    fn network(&self, options: &Value) -> [Value; 2] {
        let pools = ["10.9.0.0/16", "fd00:9::/64"].map(|pool| self.pool(pool));
        let data = pools.clone().map(|pool| {
            json!([{
                "AddressSpace": "netd-local", "Pool": pool["Pool"], "Gateway": self.gateway(&pool, ""), "AuxAddresses": null
            }])
        });
        let mut all = json!({"com.docker.network.enable_ipv6": true});
        all["com.docker.network.generic"] = options.clone();
        let body = json!({"NetworkID": NETWORK, "Options": all, "IPv4Data": data[0], "IPv6Data": data[1]});
        assert_eq!(self.call("NetworkDriver.CreateNetwork", &body), json!({}));
        pools
    }

    fn create(&self, endpoint: &str, ipv4: &Value, ipv6: &Value, mac: &str) -> Value {
        let body = json!({
            "NetworkID": NETWORK, "EndpointID": endpoint,
            "Interface": {"Address": ipv4, "AddressIPv6": ipv6, "MacAddress": mac},
            "Options": {"com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": []},
        });
        self.call("NetworkDriver.CreateEndpoint", &body)
    }

    /// Takes the interface to the container, as libnetwork does.
    fn join(&self, endpoint: &str, container: &Namespace, addresses: &[&Value]) -> Value {
        let body = json!({
            "NetworkID": NETWORK, "EndpointID": endpoint, "SandboxKey": container.path(), "Options": {}
        });
        let joined = self.call("NetworkDriver.Join", &body);
        let name = &joined["InterfaceName"];
        let interface = format!("{}0", name["DstPrefix"].as_str().expect("a prefix"));
        let source = name["SrcName"].as_str().expect("a name");
        self.host.ns.ip(&format!("link set {source} netns {} name {interface}", container.name()));
        for address in addresses {
            let address = address.as_str().expect("an address");
            let nodad = if address.contains(':') { " nodad" } else { "" };
            container.ip(&format!("address add {address} dev {interface}{nodad}"));
        }
        container.ip(&format!("link set {interface} up"));
        for (version, gateway) in [("-4", "Gateway"), ("-6", "GatewayIPv6")] {
            let gateway = joined[gateway].as_str().expect("a text");
            if !gateway.is_empty() {
                container.ip(&format!("{version} route add default via {gateway}"));
            }
        }
        joined
    }

    /// Leaves, and brings the interface back.
    fn leave(&self, endpoint: &str, container: &Namespace, source: &Value) {
        let id = json!({"NetworkID": NETWORK, "EndpointID": endpoint});
        assert_eq!(self.call("NetworkDriver.RevokeExternalConnectivity", &id), json!({}));
        assert_eq!(self.call("NetworkDriver.Leave", &id), json!({}));
        container.ip("link set eth0 down");
        let source = source.as_str().expect("a name");
        // The host's namespace has no name that the container's `ip` could use: it is a file.
        let host = self.host.ns.name();
        container.ip(&format!("link set eth0 netns {host} name {source}"));
    }
}

#[test]
fn t69_a_network_from_hello_to_goodbye() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = Engine { host: &lab.host };
    let configuration = lab.host.ns.configuration();
    engine.activate();
    assert_eq!(
        engine.call("NetworkDriver.GetCapabilities", &Value::Null),
        json!({"Scope": "local", "ConnectivityScope": "local", "GwAllocChecker": true})
    );
    assert_eq!(
        engine.call("IpamDriver.GetCapabilities", &json!({})),
        json!({"RequiresMACAddress": false, "RequiresRequestReplay": true})
    );
    assert_eq!(
        engine.call("IpamDriver.GetDefaultAddressSpaces", &json!({})),
        json!({"LocalDefaultAddressSpace": "netd-local", "GlobalDefaultAddressSpace": "netd-global"})
    );

    let pools = engine.network(&json!({"com.docker.network.driver.mtu": "1400", "unknown": "kept"}));
    let pool4 = json!({"PoolID": "netd-local/10.9.0.0/16", "Pool": "10.9.0.0/16", "Data": {}});
    assert_eq!(pools[0], pool4);
    // netd's own commands know the network, by the engine's id.
    let seen = lab.host.call("GET", &format!("/networks/{NETWORK}"), None).json();
    assert_eq!((&seen["Name"], &seen["Driver"]), (&json!("docker-7d86d31b1478"), &json!("bridge")));
    assert_eq!(seen["IPAM"]["Config"][0], json!({"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}));
    assert_eq!((&seen["IPAM"]["Driver"], &seen["Options"]["unknown"]), (&json!("netd"), &json!("kept")));

    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    let addresses =
        |options: &Value| pools.clone().map(|pool| engine.address(&pool, "", options)["Address"].clone());
    let [a4, a6] = addresses(&json!({"com.docker.network.endpoint.macaddress": "02:00:00:00:00:01"}));
    assert_eq!([&a4, &a6], [&json!("10.9.0.2/16"), &json!("fd00:9::2/64")]);
    // What is given is not given back: the engine would undo the endpoint.
    assert_eq!(engine.create(ENDPOINT, &a4, &a6, "02:00:00:00:00:01"), json!({"Interface": {}}));
    let joined = engine.join(ENDPOINT, &a, &[&a4, &a6]);
    let source = joined["InterfaceName"]["SrcName"].clone();
    assert_eq!(
        joined,
        json!({
            "InterfaceName": {"SrcName": source, "DstPrefix": "eth", "DstName": ""},
            "Gateway": "10.9.0.1", "GatewayIPv6": "fd00:9::1", "StaticRoutes": [], "DisableGatewayService": false
        })
    );
    let id = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT});
    assert_eq!(engine.call("NetworkDriver.ProgramExternalConnectivity", &id), json!({}));
    assert_eq!(engine.call("NetworkDriver.EndpointOperInfo", &id), json!({"Value": {}}));
    // Again with ports, in the place of those before; the engine sees them one by one.
    let mut ports = id.clone();
    let map = json!([{"Proto": 6, "IP": "", "Port": 80, "HostIP": "203.0.113.1", "HostPort": 8080, "HostPortEnd": 8080}]);
    ports["Options"] =
        json!({"com.docker.network.portmap": map, "com.docker.network.endpoint.exposedports": []});
    for _ in 0..2 {
        assert_eq!(engine.call("NetworkDriver.ProgramExternalConnectivity", &ports), json!({}));
    }
    let told = json!([{
        "Proto": 6, "IP": "10.9.0.2", "Port": 80, "HostIP": "203.0.113.1", "HostPort": 8080, "HostPortEnd": 8080
    }]);
    let told = json!({"Value": {"com.docker.network.portmap": told}});
    assert_eq!(engine.call("NetworkDriver.EndpointOperInfo", &id), told);
    assert!(a.ip("link show dev eth0").contains("mtu 1400"));
    assert!(a.ip("link show dev eth0").contains("02:00:00:00:00:01"));

    let [b4, b6] = addresses(&Value::Null);
    let created = engine.create(OTHER, &b4, &b6, "");
    let mac = created["Interface"]["MacAddress"].as_str().expect("a MAC address was chosen").to_owned();
    assert_eq!(created, json!({"Interface": {"MacAddress": mac}}));
    engine.join(OTHER, &b, &[&b4, &b6]);
    until("the endpoint speaks", || b.ip("link show dev eth0").contains(&mac));
    for to in ["10.9.0.2", "fd00:9::2", "10.9.0.1", "fd00:9::1"] {
        assert!(ping(&b, to.parse().expect("an address"), Ping::default()), "{to}");
    }
    for family in Family::BOTH {
        assert!(ping(&a, family.outside(), Ping::default()), "{family:?}");
    }
    let fast = lab.host.netd_json("fdb ls");
    assert_eq!(fast.as_array().expect("stations").len(), 2, "{fast}");

    engine.leave(ENDPOINT, &a, &source);
    assert_eq!(engine.call("NetworkDriver.DeleteEndpoint", &id), json!({}));
    // The container of the other one was killed, and its namespace took the veth along.
    drop(b);
    let other = json!({"NetworkID": NETWORK, "EndpointID": OTHER});
    assert_eq!(engine.call("NetworkDriver.Leave", &other), json!({}));
    assert_eq!(engine.call("NetworkDriver.DeleteEndpoint", &other), json!({}));
    for (pool, address) in [(&pools[0], &a4), (&pools[1], &a6), (&pools[0], &b4), (&pools[1], &b6)] {
        let address = address.as_str().and_then(|address| address.split('/').next());
        let body = json!({"PoolID": pool["PoolID"], "Address": address});
        assert_eq!(engine.call("IpamDriver.ReleaseAddress", &body), json!({}));
    }
    assert_eq!(engine.address(&pools[0], "", &json!({}))["Address"], a4, "it is free again");
    assert_eq!(engine.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": NETWORK})), json!({}));
    for pool in &pools {
        assert_eq!(engine.call("IpamDriver.ReleasePool", &json!({"PoolID": pool["PoolID"]})), json!({}));
    }
    assert_eq!(lab.host.ns.configuration(), configuration, "nothing is left");
}

/// What a telephone exchange publishes (T68); the engine names each port, twice.
#[test]
fn a_range_of_ten_thousand_ports_is_no_call_too_large() {
    const FIRST: u16 = 10_000;
    const LAST: u16 = 20_000;
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = Engine { host: &lab.host };
    engine.activate();
    let pools = engine.network(&json!({}));
    let [ipv4, ipv6] = pools.each_ref().map(|pool| engine.address(pool, "", &json!({}))["Address"].clone());
    let exposed: Vec<_> = (FIRST..=LAST).map(|port| json!({"Proto": 17, "Port": port})).collect();
    let binding = |port| json!({"Proto": 17, "IP": "", "Port": port, "HostIP": "", "HostPort": port, "HostPortEnd": port});
    let map: Vec<_> = (FIRST..=LAST).map(binding).collect();
    let body = json!({
        "NetworkID": NETWORK, "EndpointID": ENDPOINT,
        "Interface": {"Address": ipv4, "AddressIPv6": ipv6, "MacAddress": "02:00:00:00:00:01"},
        "Options": {"com.docker.network.endpoint.exposedports": exposed, "com.docker.network.portmap": map},
    });
    assert_eq!(engine.call("NetworkDriver.CreateEndpoint", &body), json!({"Interface": {}}));
    let a = Namespace::new("a");
    let joined = engine.join(ENDPOINT, &a, &[&ipv4, &ipv6]);
    assert_eq!(engine.call("NetworkDriver.ProgramExternalConnectivity", &body), json!({}));
    let published = lab.host.netd_json("publish ls");
    assert_eq!(published.as_array().map(Vec::len), Some(2), "a range is a range: {published}");
    for port in [FIRST, LAST] {
        let _echo = UdpEcho::new(&a, Family::V6.any(port));
        for family in Family::BOTH {
            assert_eq!(ask(&udp(&lab.outside, family, 0), at(family.host(), port), b"hello"), b"hello");
        }
    }
    engine.leave(ENDPOINT, &a, &joined["InterfaceName"]["SrcName"]);
    let id = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT});
    assert_eq!(engine.call("NetworkDriver.DeleteEndpoint", &id), json!({}));
    assert_eq!(lab.host.netd_json("publish ls"), json!([]));
}

#[test]
fn t69_what_is_unknown_or_no_call_is_told_in_the_protocols_shapes() {
    let host = super::daemon();
    let engine = Engine { host: &host };
    engine.activate();
    let id = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": "/run/docker/netns/0"});
    let missing = format!("network {NETWORK} not found");
    for method in [
        "DeleteNetwork",
        "CreateEndpoint",
        "EndpointOperInfo",
        "DeleteEndpoint",
        "Join",
        "Leave",
        "ProgramExternalConnectivity",
        "RevokeExternalConnectivity",
    ] {
        assert_eq!(engine.refused(&format!("NetworkDriver.{method}"), &id), missing, "{method}");
    }
    engine.network(&json!({}));
    for method in ["EndpointOperInfo", "DeleteEndpoint", "Join", "Leave"] {
        let reason = engine.refused(&format!("NetworkDriver.{method}"), &id);
        assert_eq!(reason, format!("endpoint {ENDPOINT} not found"), "{method}");
    }
    let pool = json!({"PoolID": "netd-local/10.1.0.0/16", "Address": "10.1.0.2"});
    for method in ["ReleasePool", "RequestAddress", "ReleaseAddress"] {
        let reason = engine.refused(&format!("IpamDriver.{method}"), &pool);
        assert_eq!(reason, "address pool netd-local/10.1.0.0/16 not found", "{method}");
    }

    // Methods of other drivers' are done with nothing to do, and those of nobody are not there.
    assert_eq!(engine.call("NetworkDriver.AllocateNetwork", &id), json!({"Options": {}}));
    assert_eq!(engine.call("NetworkDriver.FreeNetwork", &id), json!({}));
    let node = json!({"DiscoveryType": 1, "DiscoveryData": {"Address": "10.0.0.2", "BindAddress": "", "Self": true}});
    assert_eq!(engine.call("NetworkDriver.DiscoverNew", &node), json!({}));
    assert_eq!(engine.call("NetworkDriver.DiscoverDelete", &node), json!({}));
    let isolated = json!({"Options": {"com.docker.network.generic": {
        "com.docker.network.bridge.gateway_mode_ipv4": "isolated"
    }}});
    assert_eq!(
        engine.call("NetworkDriver.GwAllocCheck", &isolated),
        json!({"SkipIPv4": true, "SkipIPv6": false})
    );
    assert_eq!(
        engine.call("NetworkDriver.GwAllocCheck", &json!({"Options": null})),
        json!({"SkipIPv4": false, "SkipIPv6": false})
    );
    assert_eq!(engine.send("NetworkDriver.NoSuch", &[], b"{}").status, 404);
    assert_eq!(engine.send("VolumeDriver.Create", &[], b"{}").status, 404);

    // A body may be of any type; it must be JSON all the same, and of a size.
    let typed = engine.send("NetworkDriver.GetCapabilities", &[("Content-Type", "text/plain")], b"{}");
    assert_eq!(typed.status, 200, "{typed:?}");
    let too_large = vec![b' '; (16 << 20) + 1];
    for (body, status) in [(&b"{"[..], 400), (b"[]", 400), (b"{\"NetworkID\":7}", 400), (&too_large, 413)] {
        let answer = engine.send("NetworkDriver.DeleteNetwork", &[], body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["Err"].is_string(), "{answer:?}");
    }
    assert_eq!(engine.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": NETWORK})), json!({}));
}

#[test]
fn t69_what_an_engine_cannot_have_is_refused_and_changes_nothing() {
    let host = super::daemon();
    host.netd("network create --subnet 10.8.0.0/16 own");
    let engine = Engine { host: &host };
    engine.activate();
    let pools = engine.network(&json!({}));
    let before = (host.ns.configuration(), host.netd("network ls"));

    let request = |pool: &str| json!({"AddressSpace": "netd-local", "Pool": pool});
    let overlaps = "invalid pool request: Pool overlaps with other one on this address space";
    for taken in ["10.9.0.0/16", "10.9.7.0/24", "10.8.0.0/24"] {
        assert_eq!(engine.refused("IpamDriver.RequestPool", &request(taken)), overlaps);
    }
    let create = |pool: &str, options: Value| {
        let data = json!([{"AddressSpace": "LocalDefault", "Pool": pool, "Gateway": ""}]);
        json!({"NetworkID": "another", "Options": {"com.docker.network.generic": options}, "IPv4Data": data})
    };
    for (pool, options, reason) in [
        ("10.9.1.0/24", json!({}), overlaps),
        ("10.8.0.0/24", json!({}), overlaps),
        ("10.7.0.0", json!({}), "invalid pool 10.7.0.0: invalid CIDR block notation"),
        ("10.7.0.0/24", json!({"com.docker.network.driver.mtu": "-1"}), "invalid MTU number: -1"),
    ] {
        assert_eq!(engine.refused("NetworkDriver.CreateNetwork", &create(pool, options)), reason);
    }
    let mut halves = create("0.0.0.0/0", json!({}));
    halves["IPv6Data"] = json!([{"AddressSpace": "LocalDefault", "Pool": "fd00:7::/64", "Gateway": ""}]);
    let reason = engine.refused("NetworkDriver.CreateNetwork", &halves);
    assert_eq!(reason, "invalid pool 0.0.0.0/0: the other family has a subnet");

    let address = |address: &str| json!({"PoolID": pools[0]["PoolID"], "Address": address});
    for (wanted, reason) in [
        ("10.9.0.1", "Address already in use"),
        ("10.9.255.255", "Address already in use"),
        ("10.8.0.1", "requested address is out of range"),
        ("here", "invalid address here: invalid address"),
    ] {
        assert_eq!(engine.refused("IpamDriver.RequestAddress", &address(wanted)), reason);
    }
    engine.create(ENDPOINT, &json!("10.9.0.2/16"), &json!(""), "02:00:00:00:00:01");
    let endpoint = |address: &str, mac: &str| {
        let interface = json!({"Address": address, "MacAddress": mac});
        json!({"NetworkID": NETWORK, "EndpointID": OTHER, "Interface": interface})
    };
    for (address, mac, reason) in [
        ("10.9.0.2/16", "", "10.9.0.2: Address already in use"),
        ("10.9.0.1/16", "", "10.9.0.1: Address already in use"),
        ("10.8.0.2/16", "", "invalid address 10.8.0.2: 10.9.0.0/16 does not contain it"),
        ("10.9.0.3/16", "mac", "invalid MAC address mac"),
        ("fd00:9::3/64", "", "invalid IPv4 address: fd00:9::3/64"),
    ] {
        assert_eq!(engine.refused("NetworkDriver.CreateEndpoint", &endpoint(address, mac)), reason);
    }
    let join = |sandbox: Value| json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": sandbox});
    assert_eq!(engine.refused("NetworkDriver.Join", &join(json!(""))), "invalid SandboxKey: it is empty");
    let reason = engine.refused("NetworkDriver.Join", &join(json!(host.ns.path())));
    assert!(reason.ends_with("is the host's network namespace, which needs no endpoint"), "{reason}");

    // What is the engine's is not for others to change.
    let network = "docker-7d86d31b1478";
    let refused = |arguments: &str| {
        let output = host.client(arguments).output().expect("running netd");
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&format!("network rm {network}")).contains("is the one to remove it"));
    let container = Namespace::new("own");
    let connect = refused(&format!("network connect {network} netns:{}", container.name()));
    assert!(connect.contains("connect a container of the engine's"), "{connect}");
    let disconnect = refused(&format!("network disconnect {network} ep-{ENDPOINT}"));
    assert!(disconnect.contains("if the engine has forgotten it, force it"), "{disconnect}");
    host.netd(&format!("network disconnect --force {network} ep-{ENDPOINT}"));
    assert_eq!((host.ns.configuration(), host.netd("network ls")), before);
    assert_eq!(host.call("POST", "/networks/prune", None).json()["NetworksDeleted"], json!(["own"]));
    assert!(host.netd("network ls").contains(network), "what is the engine's is not pruned");
    host.netd(&format!("network rm --force {network}"));
    assert!(!host.netd("network ls").contains(network));
}

#[test]
fn t69_pools_nobody_named_are_told_apart_until_they_are_given_back() {
    let host = super::daemon();
    let engine = Engine { host: &host };
    engine.activate();
    // The engine holds what it rejects, so that it gets another one.
    let pools: Vec<_> = (0..3).map(|_| engine.pool("")).collect();
    let subnets: Vec<_> = pools.iter().map(|pool| pool["Pool"].as_str().expect("a subnet")).collect();
    assert_eq!(subnets, ["172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16"], "the host has 172.17.0.0/16");
    // netd's own networks keep clear of them.
    host.netd("network create own");
    assert!(host.netd("network inspect own").contains("172.21.0.0/16"));
    for pool in &pools[..2] {
        engine.call("IpamDriver.ReleasePool", &json!({"PoolID": pool["PoolID"]}));
    }
    assert_eq!(engine.pool("")["Pool"], pools[0]["Pool"]);
    let v6 = json!({"AddressSpace": "netd-local", "Pool": "", "V6": true});
    let v6 = engine.call("IpamDriver.RequestPool", &v6);
    assert!(v6["Pool"].as_str().is_some_and(|pool| pool.starts_with("fd") && pool.ends_with("/64")), "{v6}");

    // Addresses come from the sub-pool, the gateway from all of the pool.
    let part = json!({"AddressSpace": "netd-local", "Pool": "10.9.0.0/16", "SubPool": "10.9.5.0/24"});
    let part = engine.call("IpamDriver.RequestPool", &part);
    assert_eq!(part["PoolID"], "netd-local/10.9.0.0/16/10.9.5.0/24");
    assert_eq!(engine.gateway(&part, ""), "10.9.0.1/16");
    assert_eq!(engine.address(&part, "", &json!({}))["Address"], "10.9.5.0/16");
    assert_eq!(engine.address(&part, "10.9.77.7", &json!({}))["Address"], "10.9.77.7/16");

    // Serially, an address that was given back has its turn again when all others have had theirs.
    let options = json!({"com.docker.network.ipam.serial": "true"});
    let serial = json!({"AddressSpace": "netd-local", "Pool": "10.10.0.0/29", "Options": options});
    let serial = engine.call("IpamDriver.RequestPool", &serial);
    assert_eq!(engine.gateway(&serial, ""), "10.10.0.1/29");
    let turn = || {
        let address = engine.address(&serial, "", &json!({}))["Address"].clone();
        let bare =
            address.as_str().and_then(|address| address.split('/').next()).expect("an address").to_owned();
        let body = json!({"PoolID": serial["PoolID"], "Address": bare});
        assert_eq!(engine.call("IpamDriver.ReleaseAddress", &body), json!({}));
        bare
    };
    let turns: Vec<_> = (0..6).map(|_| turn()).collect();
    assert_eq!(turns, [2, 3, 4, 5, 6, 2].map(|last| format!("10.10.0.{last}")));
    let bad = json!({"AddressSpace": "netd-local", "Options": {"com.docker.network.ipam.serial": "perhaps"}});
    assert!(engine.refused("IpamDriver.RequestPool", &bad).contains("com.docker.network.ipam.serial"));
}

#[test]
fn t69_a_network_without_address_management() {
    let host = super::daemon();
    let engine = Engine { host: &host };
    engine.activate();
    let everything =
        |pool: &str| json!([{"AddressSpace": "", "Pool": pool, "Gateway": "", "AuxAddresses": null}]);
    let body = json!({
        "NetworkID": NETWORK, "Options": {}, "IPv4Data": everything("0.0.0.0/0"), "IPv6Data": everything("::/0")
    });
    for _ in 0..2 {
        assert_eq!(engine.call("NetworkDriver.CreateNetwork", &body), json!({}), "once, or once more");
    }
    let network = host.call("GET", &format!("/networks/{NETWORK}"), None).json();
    assert_eq!(network["IPAM"], json!({"Driver": "null", "Options": null, "Config": null}));
    let (a, b) = (Namespace::new("a"), Namespace::new("b"));
    for (id, ns, address) in [(ENDPOINT, &a, "192.0.2.1/24"), (OTHER, &b, "192.0.2.2/24")] {
        engine.create(id, &json!(""), &json!(""), "");
        let joined = engine.join(id, ns, &[&json!(address)]);
        assert_eq!((&joined["Gateway"], &joined["DisableGatewayService"]), (&json!(""), &json!(true)));
    }
    until("they hear each other", || ping(&a, "192.0.2.2".parse().expect("an address"), Ping::default()));
    assert_eq!(engine.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": NETWORK})), json!({}));
}

#[test]
fn t69_a_restart_of_either_side_changes_no_address() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = Engine { host: &lab.host };
    engine.activate();
    let pools = engine.network(&json!({}));
    let a = Namespace::new("a");
    let taken = pools.clone().map(|pool| engine.address(&pool, "", &json!({}))["Address"].clone());
    engine.create(ENDPOINT, &taken[0], &taken[1], "");
    let joined = engine.join(ENDPOINT, &a, &[&taken[0], &taken[1]]);
    let network = || lab.host.call("GET", &format!("/networks/{NETWORK}"), None).json();
    let before = network();

    // As the engine does when it starts: it asks for what it has, in the words of a new request.
    let replay = || {
        for (pool, taken) in pools.iter().zip(&taken) {
            let subnet = pool["Pool"].as_str().expect("a subnet");
            assert_eq!(engine.pool(subnet), *pool);
            let gateway = engine.gateway(pool, if subnet.contains(':') { "fd00:9::1" } else { "10.9.0.1" });
            assert!(gateway.is_string());
            let address = taken.as_str().and_then(|address| address.split('/').next()).expect("an address");
            assert_eq!(engine.address(pool, address, &json!({}))["Address"], *taken);
            // Once.
            let again = json!({"PoolID": pool["PoolID"], "Address": address});
            assert_eq!(engine.refused("IpamDriver.RequestAddress", &again), "Address already in use");
        }
    };
    let works = || {
        assert_eq!(network(), before);
        for family in Family::BOTH {
            assert!(ping(&a, family.outside(), Ping::default()), "{family:?}");
        }
    };
    engine.activate();
    replay();
    works();
    for end in [Host::kill, Host::stop] {
        end(&lab.host);
        for family in Family::BOTH {
            assert!(ping(&a, family.outside(), Ping::default()), "{family:?}, without a daemon");
        }
        lab.host.start(&[]);
        works();
        replay();
        engine.activate();
        replay();
    }
    // Only the host's end is netd's to mend.
    lab.host.kill();
    lab.host.ns.ip("link set br-7d86d31b1478 down");
    a.ip("link set eth0 down");
    a.ip("link set eth0 name lan7");
    a.ip("link set lan7 up");
    a.ip("route add default via 10.9.0.1");
    lab.host.start(&[]);
    assert!(ping(&a, Family::V4.outside(), Ping::default()));
    assert!(a.ip("link show").contains("lan7"));

    // A call that comes again because its answer was lost is as good as done.
    let repeated = engine.create(ENDPOINT, &taken[0], &taken[1], "");
    assert!(repeated["Interface"]["MacAddress"].is_string());
    let body = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT, "SandboxKey": a.path()});
    assert_eq!(engine.call("NetworkDriver.Join", &body), joined);

    // The container ends while no daemon listens, and nobody can tell: the endpoint goes, and its lease.
    lab.host.kill();
    drop(a);
    lab.host.start(&[]);
    assert_eq!(network()["Containers"], json!({}));
    assert_eq!(engine.address(&pools[0], "", &json!({}))["Address"], taken[0]);
    assert_eq!(engine.call("NetworkDriver.DeleteNetwork", &json!({"NetworkID": NETWORK})), json!({}));
}

#[test]
fn t69_who_comes_under_a_known_address_is_reached_at_once() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let engine = Engine { host: &lab.host };
    engine.activate();
    let pools = engine.network(&json!({}));
    let take = || pools.clone().map(|pool| engine.address(&pool, "", &json!({}))["Address"].clone());
    let come = |endpoint: &str, name: &str, addresses: &[Value; 2]| {
        let ns = Namespace::new(name);
        engine.create(endpoint, &addresses[0], &addresses[1], "");
        engine.join(endpoint, &ns, &[&addresses[0], &addresses[1]]);
        ns
    };
    let (of_neighbour, of_server) = (take(), take());
    let neighbour = come(OTHER, "neighbour", &of_neighbour);
    let reach = || {
        for address in &of_server {
            let address =
                address.as_str().and_then(|net| net.split('/').next()?.parse().ok()).expect("an address");
            for ns in [&neighbour, &lab.host.ns] {
                // Well before anybody forgets what he knew.
                until("the server answers", || ping(ns, address, Ping::default()));
            }
        }
    };
    let first = come(ENDPOINT, "first", &of_server);
    reach();
    drop(first);
    let id = json!({"NetworkID": NETWORK, "EndpointID": ENDPOINT});
    assert_eq!(engine.call("NetworkDriver.Leave", &id), json!({}));
    assert_eq!(engine.call("NetworkDriver.DeleteEndpoint", &id), json!({}));
    let _second = come("a-third-endpoint", "second", &of_server);
    reach();
}

//! netd as a CNI plugin that leaves the addresses to another one, or gives them as host-local does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use netd_tests::lab::{Call, Cni, Container, Family, Namespace, Ping, ping};
use serde_json::{Value, json};

use crate::cni::{address, code, endpoints, lab, message};

#[test]
fn host_local_gives_the_addresses_if_it_is_asked_to() {
    let lab = lab();
    let leases = tempfile::tempdir().expect("a temporary directory");
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "ipMasq": true,
        "ipam": {
            "type": "host-local",
            "dataDir": leases.path(),
            "ranges": [[{"subnet": "10.45.0.0/24", "rangeStart": "10.45.0.20"}], [{"subnet": "fd00:45::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    let cni = Cni::new(&lab.host, config.clone());
    let held = || {
        let entries = fs::read_dir(leases.path().join("pods")).expect("leases");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("45")).count()
    };
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    let a = Container::of(ns);
    assert_eq!((address(&result, 0), address(&result, 1)), ("10.45.0.20/24".into(), "fd00:45::2/64".into()));
    assert_eq!(result["ips"][0]["gateway"], "10.45.0.1");
    for family in Family::BOTH {
        assert!(ping(&a.ns, a.gateway(family), Ping::default()));
        assert!(ping(&a.ns, family.outside(), Ping::default()));
    }
    assert_eq!((held(), cni.check("c1", &a.ns, &result)), (2, Ok(Value::Null)));
    let b = Namespace::new("b");
    // An ADD that fails gives its addresses back.
    let refused = cni.with(json!({"mtu": 1200})).try_add("c2", &b);
    assert_eq!((code(refused), held()), (7, 2));
    lab.host.netd_fails(&format!("network connect pods netns:{}", b.name()));
    cni.add("c2", &b);
    assert_eq!(held(), 4);
    lab.host.stop();
    lab.host.start(&[]);
    let gc = Cni::new(&lab.host, config).with(json!({
        "cniVersion": "1.1.0",
        "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
    }));
    // host-local is older than 1.1.0, and says so: what is netd's is gone nevertheless.
    let collected = gc.call("GC", Call::default());
    assert_eq!(endpoints(&lab, "pods"), ["c1:eth0"], "{collected:?}");
    cni.del("c2", None);
    cni.del("c1", Some(&a.ns));
    assert_eq!((held(), endpoints(&lab, "pods")), (0, Vec::new()));
    assert_eq!(code(cni.with(json!({"ipam": {"type": "no-such"}})).try_add("c1", &a.ns)), 7);
}

/// A plugin of 1.1.0 that writes down what it is asked.
#[test]
fn what_the_runtime_asks_is_asked_on() {
    let lab = lab();
    let own = tempfile::tempdir().expect("a temporary directory");
    let (plugin, asked) = (own.path().join("noting"), own.path().join("asked"));
    let result = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.46.0.7/24", "gateway": "10.46.0.1"}]});
    let script = format!(
        "#!/bin/sh\necho $CNI_COMMAND $CNI_CONTAINERID $(grep -o valid-attachments) >>{}\n\
         case $CNI_COMMAND in\nADD) echo '{result}' ;;\nGC) test ! -e {}/full || {{ echo '{}'; exit 1; }}\nesac\n",
        asked.display(),
        own.path().display(),
        json!({"code": 11, "msg": "come back"}),
    );
    fs::write(&plugin, script).expect("a plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("its mode");
    let config = json!({"cniVersion": "1.1.0", "name": "pods", "ipMasq": true, "ipam": {"type": "noting"}});
    let cni = Cni::new(&lab.host, config).with_plugins_in(own.path());
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    assert_eq!(address(&result, 0), "10.46.0.7/24");
    assert_eq!(cni.check("c1", &ns, &result), Ok(Value::Null));
    assert_eq!(cni.call("STATUS", Call::default()), Ok(Value::Null));
    let listing = |ids: Value| cni.with(json!({ "cni.dev/valid-attachments": ids }));
    let kept = listing(json!([{"containerID": "c1", "ifname": "eth0"}]));
    assert_eq!(kept.call("GC", Call::default()), Ok(Value::Null));
    fs::write(own.path().join("full"), "").expect("a file");
    // Its failure is told, and what is netd's is gone nevertheless.
    let refused = listing(json!([])).call("GC", Call::default()).expect_err("the plugin cannot");
    assert!(refused["details"].as_str().is_some_and(|text| text.contains("come back")), "{refused}");
    assert_eq!(endpoints(&lab, "pods"), [""; 0]);
    assert_eq!(cni.try_del("c1", Some(&ns)), Ok(Value::Null));
    let asked = fs::read_to_string(asked).expect("what it was asked");
    let wanted = [
        "ADD c1",
        "CHECK c1",
        "STATUS",
        "GC valid-attachments",
        "DEL c1 valid-attachments",
        "GC valid-attachments",
        "DEL c1",
    ];
    assert_eq!(asked.lines().map(str::trim).collect::<Vec<_>>(), wanted);
}

#[test]
fn t70_netds_own_ipam_is_host_locals() {
    let lab = lab();
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "ipMasq": true,
        "ipam": {
            "type": "netd",
            "ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.2.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
        },
    });
    let cni = Cni::new(&lab.host, config);
    let ns = Namespace::new("a");
    let result = cni.add("c1", &ns);
    let a = Container::of(ns);
    assert_eq!((address(&result, 0), address(&result, 1)), ("10.1.2.2/24".into(), "2001:db8:1::2/64".into()));
    assert_eq!(result["ips"][0]["gateway"], "10.1.2.1");
    let twice = message(cni.try_add("c1", &a.ns));
    assert_eq!(
        twice,
        "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation is not allowed"
    );
    let asking = |ips: Value| cni.with(json!({"args": {"cni": {"ips": ips}}}));
    let ns = Namespace::new("b");
    assert_eq!(address(&asking(json!(["10.1.2.88"])).add("c2", &ns), 0), "10.1.2.88/24");
    let c = Namespace::new("c");
    let refused = |ips: Value| message(asking(ips).try_add("c3", &c));
    assert_eq!(refused(json!(["10.1.99.9"])), "failed to allocate all requested IPs: 10.1.99.9");
    assert_eq!(
        refused(json!(["10.1.2.1"])),
        "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"
    );
    assert_eq!(
        refused(json!(["10.1.2.88"])),
        "failed to allocate for range 0: requested IP address 10.1.2.88 is not available in range set \
         10.1.2.1-10.1.2.254,10.2.2.1-10.2.2.254"
    );
    // The second subnet of the set is of the same network: its gateway is there, and its neighbours are.
    let d = {
        let ns = Namespace::new("d");
        assert_eq!(address(&asking(json!(["10.2.2.9"])).add("c4", &ns), 0), "10.2.2.9/24");
        Container::of(ns)
    };
    assert_eq!(d.gateway(Family::V4).to_string(), "10.2.2.1");
    assert!(ping(&d.ns, d.gateway(Family::V4), Ping::default()));
    assert!(ping(&d.ns, a.ipv4.into(), Ping::default()));
    assert!(ping(&d.ns, Family::V4.outside(), Ping::default()));
    cni.del("unknown", None);

    let small = json!({"cniVersion": "1.0.0", "name": "small", "ipam": {"subnet": "10.3.0.0/24", "rangeStart": "10.3.0.10", "rangeEnd": "10.3.0.11"}});
    let small = Cni::new(&lab.host, small);
    assert_eq!(small.container("e").ipv4.to_string(), "10.3.0.10");
    let f = small.container("f");
    assert_eq!(f.ipv4.to_string(), "10.3.0.11");
    assert_eq!(
        message(small.try_add("c", &c)),
        "failed to allocate for range 0: no IP addresses available in range set: 10.3.0.10-10.3.0.11"
    );
    let path = c.path();
    let netns = path.to_str().expect("UTF-8");
    let args = "IP=10.1.2.77;MAC=02:00:00:00:00:77";
    let args = Call { container: "g", netns, interface: "eth0", args };
    assert_eq!(address(&cni.call("ADD", args).expect("ADD"), 0), "10.1.2.77/24");
    assert!(c.ip("link show eth0").contains("02:00:00:00:00:77"));
}

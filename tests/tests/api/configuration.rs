//! Configuration networks: templates that other networks take their configuration from.

use serde_json::json;

use crate::daemon;

#[test]
fn a_network_is_made_from_a_configuration_network() {
    let host = daemon();
    let docker = host.docker();
    let before = host.ns.configuration();
    let id = docker.ok(
        "network create --config-only --ipv6 --subnet 10.6.0.0/16 --ip-range 10.6.1.0/24 --gateway 10.6.0.9 \
         --aux-address h=10.6.0.7 --subnet fd00:6::/64 --label a=b --ipam-opt k=v \
         -o com.docker.network.driver.mtu=1300 -o any=thing template",
    );
    assert_eq!(host.ns.configuration(), before, "it is nothing in the kernel");
    let template = docker.json("network inspect template");
    let ipam = json!({
        "Driver": "default",
        "Options": {"k": "v"},
        "Config": [
            {
                "Subnet": "10.6.0.0/16", "IPRange": "10.6.1.0/24", "Gateway": "10.6.0.9",
                "AuxiliaryAddresses": {"h": "10.6.0.7"}
            },
            {"Subnet": "fd00:6::/64"}
        ]
    });
    let options = json!({"com.docker.network.driver.mtu": "1300", "any": "thing"});
    assert_eq!(
        template,
        json!([{
            "Name": "template", "Id": id.trim(), "Created": template[0]["Created"], "Scope": "local",
            "Driver": "null", "EnableIPv4": true, "EnableIPv6": true, "IPAM": ipam, "Internal": false,
            "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": true,
            "Containers": {}, "Options": options, "Labels": {"a": "b"}
        }])
    );
    assert_eq!(
        docker.ok("network ls --filter name=template --format '{{.Name}} {{.Driver}}'"),
        "template null\n"
    );

    let id = docker.ok("network create --config-from template --internal made");
    let made = docker.json("network inspect made");
    assert_eq!(
        made,
        json!([{
            "Name": "made", "Id": id.trim(), "Created": made[0]["Created"], "Scope": "local",
            "Driver": "bridge", "EnableIPv4": true, "EnableIPv6": true, "IPAM": ipam, "Internal": true,
            "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": "template"}, "ConfigOnly": false,
            "Containers": {}, "Options": options, "Labels": {"a": "b"}
        }])
    );
    let bridge = format!("br-{}", &id[..12]);
    assert!(host.ns.ip(&format!("link show {bridge}")).contains("mtu 1300"));
    assert!(host.ns.ip(&format!("address show {bridge}")).contains("10.6.0.9/16"));

    let in_use = "Error response from daemon: error while removing network: configuration network \"template\" is in use";
    assert_eq!(docker.fails("network rm template"), in_use);
    // It survives a restart, and so does whoever came of it.
    host.stop();
    host.start(&[]);
    assert_eq!(docker.json("network inspect template made"), json!([template[0], made[0]]));
    assert_eq!(docker.ok("network prune -f"), "Deleted Networks:\nmade\n\n", "a template is never pruned");
    assert_eq!(docker.ok("network rm template"), "template\n");
    assert_eq!(host.ns.configuration(), before);
}

#[test]
fn templates_may_overlap_and_those_made_from_them_may_not() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --config-only --subnet 10.6.0.0/16 a");
    docker.ok("network create --config-only --subnet 10.6.0.0/16 b");
    docker.ok("network create --config-from a one");
    assert_eq!(
        docker.fails("network create --config-from b two"),
        "Error response from daemon: invalid pool request: Pool overlaps with other one on this address space"
    );
    docker.ok("network rm one");
    docker.ok("network create --config-from b two");
    docker.ok("network create --config-only plain");
    assert_eq!(docker.ok("network inspect plain --format '{{json .IPAM.Config}}'"), "null\n");
    docker.ok("network create --config-from plain three");
    assert_ne!(docker.ok("network inspect three --format '{{json .IPAM.Config}}'"), "null\n");
}

#[test]
fn a_template_says_who_manages_the_addresses() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --config-only --ipam-driver null template");
    docker.ok("network create --config-from template made");
    for name in ["template", "made"] {
        let ipam = docker.ok(&format!("network inspect {name} --format '{{{{json .IPAM}}}}'"));
        assert_eq!(ipam, "{\"Driver\":\"null\",\"Options\":{},\"Config\":null}\n");
    }
}

#[test]
fn what_a_configuration_network_cannot_be_is_refused() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create --config-only template");
    docker.ok("network create --config-only --ipam-driver strange strange");
    docker.ok("network create normal");
    let before = docker.ok("network ls");
    let user =
        "user specified configurations are not supported if the network depends on a configuration network";
    let operator = "configuration network can only contain network specific fields. Network operator fields like \
                    [ ingress | internal | attachable | scope ] are not supported.";
    for (arguments, says) in [
        ("create --config-only --internal x", operator),
        ("create --config-only --attachable x", operator),
        ("create --config-only --scope local x", operator),
        (
            "create --config-only --config-from template x",
            "a configuration network cannot depend on another configuration network",
        ),
        ("create --config-from absent x", "configuration network \"absent\" does not exist"),
        ("create --config-from normal x", "configuration network \"normal\" does not exist"),
        ("create --config-from template --label a=b x", user),
        ("create --config-from template --ipv6 x", user),
        ("create --config-from template --subnet 10.7.0.0/16 x", user),
        ("create --config-from template --ipam-opt a=b x", user),
        ("create --config-from template --ipam-driver null x", user),
        ("create --config-from strange x", "plugin \"strange\" not found"),
        (
            "create --config-from template -o a=b x",
            "network driver options are not supported if the network depends on a configuration network",
        ),
        ("create --config-only template", "network with name template already exists"),
        (
            "create --config-only --subnet nonsense x",
            "invalid network config:\ninvalid subnet nonsense: invalid CIDR block notation",
        ),
    ] {
        let says = format!("Error response from daemon: {says}");
        assert_eq!(docker.fails(&format!("network {arguments}")), says, "{arguments}");
    }
    let ns = netd_tests::lab::Namespace::new("c");
    assert_eq!(
        docker.fails(&format!("network connect template netns:{}", ns.name())),
        "Error response from daemon: cannot create endpoint on configuration-only network"
    );
    assert_eq!(docker.ok("network ls"), before);
}

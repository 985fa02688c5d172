//! A real podman that runs its containers on netd, by CNI.

use netd_tests::lab::{Family, Lab, Ping, Podman, TcpEcho, UdpEcho, ask, at, connect, ping, udp};
use serde_json::{Value, json};

use crate::answers;

const INSTALL: &str = "--subnet 10.88.0.0/24 --subnet fd00:88::/64";

/// The addresses that podman shows of a container, by family.
fn addresses(podman: &Podman, container: &str) -> [String; 2] {
    let network =
        podman.json(&format!("inspect --format '{{{{json .NetworkSettings.Networks.pods}}}}' {container}"));
    ["IPAddress", "GlobalIPv6Address"].map(|key| network[key].as_str().expect("an address").to_owned())
}

fn refused(podman: &Podman, line: &str) -> String {
    let output = podman.run(line);
    assert!(!output.status.success(), "podman {line}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn podman_runs_its_containers_on_netd() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let before = lab.host.ns.configuration();
    let podman = lab.host.podman(INSTALL);
    let web = podman.container(
        "web",
        "--ip 10.88.0.77 --mac-address 02:00:00:00:07:77 --publish 8080:80 --publish 127.0.0.1:8081:81 \
         --publish 8090-8092:90-92/udp",
    );
    let other = podman.container("other", "");
    let [web4, web6] = addresses(&podman, "web");
    assert_eq!(web4, "10.88.0.77");
    let eth0 = web.ip("address show dev eth0");
    for shown in [&*web4, &web6, "02:00:00:00:07:77"] {
        assert!(eth0.contains(shown), "{shown}: {eth0}");
    }
    for container in [&web, &other] {
        for family in Family::BOTH {
            assert!(ping(container, family.outside(), Ping::default()), "{family:?}");
        }
    }
    for address in [&web4, &web6] {
        podman.ok(&format!("exec other ping -c 1 -W 3 {address}"));
    }
    assert_eq!(lab.host.netd_json("fdb ls").as_array().map(Vec::len), Some(2));

    // What is published is shown, answers, and is nobody else's.
    let ports = podman.json("inspect --format '{{json .NetworkSettings.Ports}}' web");
    assert_eq!(ports["80/tcp"][0]["HostPort"], "8080", "{ports}");
    assert!(podman.ok("port web").contains("80/tcp -> 0.0.0.0:8080"));
    let (tcp, _udp) = (TcpEcho::new(&web, Family::V6.any(80)), UdpEcho::new(&web, Family::V6.any(91)));
    for family in Family::BOTH {
        assert!(answers(&lab, &tcp, at(family.host(), 8080)), "{family:?}");
        assert_eq!(ask(&udp(&lab.outside, family, 0), at(family.host(), 8091), b"hello"), b"hello");
    }
    assert!(connect(&lab.outside, 0, at(Family::V4.host(), 8081)).is_err(), "the loopback's alone");
    let error = refused(&podman, "run --rm --publish 8080:80 busybox sleep 0");
    assert!(error.contains("Bind for 0.0.0.0:8080 failed: port is already allocated"), "{error}");
    let error = refused(&podman, "run --rm --ip 10.88.0.77 busybox sleep 0");
    assert!(error.contains("10.88.0.77"), "{error}");

    // netd comes and goes, and podman's containers with their ports stay.
    lab.host.kill();
    assert!(answers(&lab, &tcp, at(Family::V4.host(), 8080)));
    lab.host.start(&[]);
    assert!(answers(&lab, &tcp, at(Family::V6.host(), 8080)));
    drop((tcp, _udp));

    podman.ok("rm --force --time 0 web other");
    assert_eq!(lab.host.netd_json("publish ls"), json!([]));
    podman.ok("run --rm --publish 8080:80 busybox sleep 0");
    drop((web, other));
    lab.host.netd("network rm pods");
    assert_eq!(lab.host.ns.configuration(), before, "nothing is left");
}

#[test]
fn the_containers_of_a_pod_share_one_endpoint() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let podman = lab.host.podman(INSTALL);
    podman.ok("pod create --name pod --infra-image busybox --infra-command 'sleep 3600' --publish 8080:80");
    podman.ok("run --detach --pod pod --name one busybox sleep 3600");
    podman.ok("run --detach --pod pod --name two busybox sleep 3600");
    let (one, two) = (podman.namespace_of("one"), podman.namespace_of("two"));
    assert_eq!(one.ip("address show dev eth0"), two.ip("address show dev eth0"));
    let endpoints = || {
        let network = lab.host.call("GET", "/networks/pods", None).json();
        network["Containers"].as_object().map_or(0, serde_json::Map::len)
    };
    assert_eq!(endpoints(), 1);
    let echo = TcpEcho::new(&two, Family::V6.any(80));
    for family in Family::BOTH {
        assert!(answers(&lab, &echo, at(family.host(), 8080)), "{family:?}");
        assert!(ping(&one, family.outside(), Ping::default()), "{family:?}");
    }
    // A pod that stops and starts again is another endpoint with the same ports.
    drop(echo);
    podman.ok("pod stop --time 0 pod");
    assert_eq!((endpoints(), lab.host.netd_json("publish ls")), (0, json!([])));
    podman.ok("pod start pod");
    let again = podman.namespace_of("one");
    let echo = TcpEcho::new(&again, Family::V6.any(80));
    assert!(answers(&lab, &echo, at(Family::V4.host(), 8080)));
    drop(echo);
    podman.ok("pod rm --force --time 0 pod");
    assert_eq!((endpoints(), lab.host.netd_json("publish ls")), (0, Value::from(Vec::<Value>::new())));
}

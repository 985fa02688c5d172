//! A real podman that runs its containers on netd, by CNI.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use netd_tests::lab::{
    Family, Lab, Namespace, Ping, Podman, TcpEcho, UdpEcho, ask, at, connect, ping, udp, until,
};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
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

    // podman then asks for the address in two ways at once.
    podman.ok("network reload web");
    assert!(web.ip("address show dev eth0").contains("10.88.0.77/24"));
    assert!(answers(&lab, &tcp, at(Family::V4.host(), 8080)));

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
fn podman_binds_itself_what_netd_publishes() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let podman = lab.host.podman(INSTALL);
    let host6 = Family::V6.host();
    podman.container(
        "web",
        &format!("--publish 8080:80 --publish 8080:80/udp --publish 127.0.0.1:8081:81 --publish [{host6}]:8082:82 --publish 83"),
    );
    let any: u16 = {
        let shown = podman.ok("port web 83/tcp");
        let (_, port) = shown.trim().rsplit_once(':').expect("an address and a port");
        port.parse().expect("a port")
    };
    let published = || lab.host.netd_json("publish ls");
    let before = published();
    let all = before.as_array().expect("publications");
    assert!(all.len() == 8 && all.iter().all(|it| it["reserved_by"] == "runtime"), "{before}");

    // The runtime's sockets are there, where it has some, and the container is who is reached: from outside, by the host's
    // addresses and by loopback.
    let works = || {
        let bound = |at: SocketAddr| lab.host.ns.enter(|| TcpListener::bind(at)).is_err();
        assert!(
            [Family::V4.any(8080), at(Ipv4Addr::LOCALHOST, 8081), at(host6, 8082)].into_iter().all(bound)
        );
        let web = podman.namespace_of("web");
        let tcp = [80, 81, 82, 83].map(|port| TcpEcho::new(&web, Family::V6.any(port)));
        let datagrams = UdpEcho::new(&web, Family::V6.any(80));
        for family in Family::BOTH {
            assert!(answers(&lab, &tcp[0], at(family.host(), 8080)), "{family:?}");
            assert!(answers(&lab, &tcp[3], at(family.host(), any)), "{family:?}");
            for (from, to) in [
                (&lab.outside, family.host()),
                (&lab.host.ns, family.host()),
                (&lab.host.ns, family.loopback()),
            ] {
                let heard = (tcp[0].peers().len(), datagrams.peers().len());
                talk(from, at(to, 8080));
                assert_eq!(ask(&udp(from, family, 0), at(to, 8080), b"hello"), b"hello");
                assert_eq!((tcp[0].peers().len(), datagrams.peers().len()), (heard.0 + 1, heard.1 + 1));
            }
        }
        assert!(answers(&lab, &tcp[2], at(host6, 8082)));
        talk(&lab.host.ns, at(Ipv4Addr::LOCALHOST, 8081));
        assert_eq!(tcp[1].peers().len(), 1);
        assert!(connect(&lab.outside, 0, at(Family::V4.host(), 8081)).is_err(), "the loopback's alone");
        assert_eq!(published(), before);
    };
    works();
    assert!(lab.host.metrics().contains("netd_binds_refused_total 0"));

    // What netd keeps of it: it is published once.
    let allocated = "Bind for 0.0.0.0:8080 failed: port is already allocated";
    let error = refused(&podman, "run --rm --publish 8080:80 busybox sleep 0");
    assert!(error.contains(allocated), "{error}");
    // What another process has, podman does not get, and nothing of it is left.
    let holder = lab.host.ns.enter(|| TcpListener::bind("0.0.0.0:8200")).expect("listening");
    let error = refused(&podman, "run --name late --publish 8201:80 --publish 8200:80 busybox sleep 0");
    assert!(error.contains("address already in use"), "{error}");
    assert_eq!(published(), before);
    drop(holder);
    podman.ok("start late");
    podman.ok("rm --force --time 0 late");

    // netd comes and goes, with podman's sockets there.
    lab.host.kill();
    lab.host.start(&[]);
    works();
    let error = refused(&podman, "run --rm --publish 8080:80 busybox sleep 0");
    assert!(error.contains(allocated), "{error}");
    // The container does.
    for line in ["restart --time 0 web", "network reload web", "network disconnect pods web"] {
        podman.ok(line);
        if line.contains("disconnect") {
            assert_eq!(published(), json!([]));
            podman.ok("network connect pods web");
        }
        works();
    }
    podman.ok("stop --time 0 web");
    assert_eq!(published(), json!([]));
    lab.host.ns.enter(|| TcpListener::bind("0.0.0.0:8080")).expect("a port that is free again");
    podman.ok("start web");
    works();
    podman.ok("rm --force --time 0 web");

    // One that ends by itself comes back by itself.
    podman.ok("run --detach --name again --restart always --publish 8080:80 busybox sleep 3600");
    let pid = || podman.json("inspect --format {{.State.Pid}} again").as_i64().expect("a process") as i32;
    let first = pid();
    signal::kill(Pid::from_raw(first), Signal::SIGKILL).expect("ending the container's process");
    until("it runs again", || !matches!(pid(), 0) && pid() != first);
    let echo = TcpEcho::new(&podman.namespace_of("again"), Family::V6.any(80));
    assert!(Family::BOTH.iter().all(|family| answers(&lab, &echo, at(family.host(), 8080))));
    drop(echo);
    podman.ok("rm --force --time 0 again");
    assert_eq!(published(), json!([]));
}

fn talk(from: &Namespace, to: SocketAddr) {
    let mut stream = connect(from, 0, to).unwrap_or_else(|e| panic!("connecting to {to}: {e}"));
    stream.write_all(b"hello").expect("sending");
    stream.read_exact(&mut [0; 5]).expect("the echo");
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

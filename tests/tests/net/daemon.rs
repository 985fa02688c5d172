//! The daemon's own life: what it shows, and what it leaves.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use netd_tests::lab::{
    Container, Datagram, Family, Lab, Namespace, Ping, RawSocket, at, http_get, netd_binary, ping, until,
};

/// Samples of Prometheus' text format: name with labels, and value.
fn samples(text: &str) -> Vec<(&str, f64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
            (name, value.parse().unwrap_or_else(|e| panic!("{line}: {e}")))
        })
        .collect()
}

/// What the samples that mention all of `words` add up to.
fn sum(text: &str, words: &[&str]) -> f64 {
    let samples = samples(text);
    let found: Vec<_> =
        samples.iter().filter(|(name, _)| words.iter().all(|word| name.contains(word))).collect();
    assert!(!found.is_empty(), "no sample of {words:?} in:\n{text}");
    found.iter().map(|(_, value)| value).sum()
}

#[test]
fn metrics_count_what_goes_through() {
    let lab = Lab::wired();
    lab.host.start(&["--metrics-addr", "127.0.0.1:9323"]);
    let a = lab.container_on("bridge", "a");
    let scrape = || {
        let stream = lab.host.ns.enter(|| TcpStream::connect("127.0.0.1:9323")).expect("connecting");
        let (status, body) = http_get(stream, "/metrics").expect("an answer");
        assert_eq!(status, 200, "{body}");
        body
    };
    let before = scrape();
    assert_eq!(sum(&before, &["netd_build_info"]), 1.0);
    for _ in 0..20 {
        assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    }
    let after = scrape();
    let packets = [&before, &after].map(|text| sum(text, &["netd_endpoint_packets_total", a.ns.name()]));
    assert!(packets[1] - packets[0] >= 40.0, "20 requests and 20 replies: {packets:?}\n{after}");
    let bytes = [&before, &after].map(|text| sum(text, &["netd_endpoint_bytes_total", a.ns.name()]));
    assert!(bytes[1] - bytes[0] >= 40.0 * 98.0, "{bytes:?}");
    assert_eq!(sum(&after, &["netd_drops_total", "spoofed_address"]), 0.0);
    assert_eq!(sum(&lab.host.metrics(), &["netd_build_info"]), 1.0, "the socket serves them too");
}

#[test]
fn a_networks_counters_never_fall() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let sent = || {
        let words = ["netd_network_packets_total", "network=\"bridge\"", "direction=\"sent\""];
        sum(&lab.host.metrics(), &words)
    };
    let (a, b) = (lab.container_on("bridge", "a"), lab.container_on("bridge", "b"));
    for container in [&a, &b] {
        assert!(ping(&container.ns, Family::V4.outside(), Ping::default()));
    }
    let with_both = sent();
    lab.host.netd(&format!("network disconnect bridge netns:{}", a.ns.name()));
    let with_one = sent();
    assert!(with_one >= with_both, "an endpoint has left: {with_both}, {with_one}");
    lab.host.kill();
    lab.host.start(&[]);
    let restarted = sent();
    assert!(restarted >= with_one, "the daemon was restarted: {with_one}, {restarted}");
    lab.host.kill();
    drop(b);
    lab.host.start(&[]);
    assert!(sent() >= restarted, "an endpoint died meanwhile: {restarted}, {}", sent());
}

#[test]
fn what_a_limited_endpoint_receives_is_counted_once() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let (a, b) = (lab.container_on("bridge", "a"), Namespace::new("b"));
    let rate = "--driver-opt netd.rate.ingress=100mbit";
    lab.host.netd(&format!("network connect {rate} bridge netns:{}", b.name()));
    let b = Container::of(b);
    let counted = || {
        let words = ["netd_endpoint_packets_total", b.ns.name(), "direction=\"received\""];
        sum(&lab.host.metrics(), &words)
    };
    let arrived = || {
        let link: serde_json::Value =
            serde_json::from_str(&b.ns.ip("-json -statistics link show dev eth0")).expect("ip -json");
        link[0]["stats64"]["rx"]["packets"].as_f64().expect("a count")
    };
    for _ in 0..10 {
        assert!(ping(&a.ns, b.ipv4.into(), Ping::default()), "on one bridge");
        assert!(ping(&b.ns, Family::V4.outside(), Ping::default()), "answers from outside");
        assert!(ping(&lab.host.ns, b.ipv4.into(), Ping::default()), "from the host");
    }
    // Now and then one comes between the two.
    let (arrived, counted) = (arrived(), counted());
    assert!(arrived >= 30.0 && (counted - arrived).abs() < 10.0, "{counted} of {arrived}");
}

#[test]
fn what_was_received_stays_counted_when_a_namespace_goes() {
    let lab = Lab::wired();
    lab.host.start(&[]);
    let received = |series: &str| sum(&lab.host.metrics(), &[series, "direction=\"received\""]);
    let a = lab.container_on("bridge", "a");
    let name = a.ns.name().to_owned();
    for _ in 0..10 {
        assert!(ping(&lab.host.ns, a.ipv4.into(), Ping::default()), "past the programs, by the bridge");
    }
    let of_endpoint = received("netd_endpoint_packets_total");
    assert!(of_endpoint >= 10.0, "{of_endpoint}");
    let links = || lab.host.ns.ip("link show type veth").lines().count();
    let before = links();
    drop(a);
    until("its link is gone", || links() < before);
    until("the daemon has heard of it", || received("netd_endpoint_packets_total") >= of_endpoint);
    lab.host.netd(&format!("network disconnect --force bridge {name}"));
    let of_network = received("netd_network_packets_total");
    assert!(of_network >= of_endpoint, "{of_endpoint}, {of_network}");
}

#[test]
fn drops_are_counted_by_reason() {
    let lab = Lab::new();
    let a = lab.container("a");
    let to = Family::V4.outside();
    let raw = RawSocket::new(&a.ns, to);
    for _ in 0..10 {
        raw.send(&Datagram::udp(at([172, 30, 0, 99], 1), at(to, 2), b"spoofed").bytes(), to);
    }
    assert!(ping(&a.ns, to, Ping::default()));
    assert_eq!(sum(&lab.host.metrics(), &["netd_drops_total", "spoofed_address"]), 10.0);
    let stats = lab.host.netd("stats");
    let line =
        stats.lines().find(|line| line.contains("spoofed_address")).unwrap_or_else(|| panic!("{stats}"));
    assert!(line.split(|c: char| !c.is_ascii_digit()).any(|number| number == "10"), "{line}");
}

#[test]
fn every_table_is_json_too() {
    let lab = Lab::new();
    let a = lab.container("a");
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    for (table, shows) in [
        ("network ls", "dual"),
        ("nat ls", "203.0.113.10"),
        ("fdb ls", a.ns.name()),
        ("route ls", "172.30.0.0/24"),
        ("stats", "masqueraded"),
        ("status", "up0"),
    ] {
        let text = lab.host.netd(table);
        assert!(text.contains(shows), "netd {table} does not show {shows}:\n{text}");
        let json = lab.host.netd_json(table).to_string();
        assert!(json.contains(shows), "netd {table} --json does not show {shows}: {json}");
    }
}

#[test]
fn cleanup_removes_all_of_netds_and_nothing_else() {
    let lab = Lab::wired();
    lab.host.ns.ip("link add theirs type bridge");
    lab.host.ns.ip("address add 10.99.0.1/24 dev theirs");
    let nft = |arguments: &str| {
        let output = lab.host.command("nft").args(arguments.split(' ')).output().expect("running nft");
        assert!(output.status.success(), "nft {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    nft("add table inet theirs");
    let state = || (lab.host.ns.configuration(), nft("list ruleset"));
    let before = state();

    lab.host.start(&[]);
    lab.host.netd("network create --ipv6 --subnet 172.30.0.0/24 --subnet fd00:30::/64 dual");
    let a = lab.container("a");
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()));
    assert_ne!(state(), before);
    lab.host.kill();
    assert!(ping(&a.ns, Family::V4.outside(), Ping::default()), "killed, it still works");

    lab.host.cleanup();
    assert_eq!(state(), before);
    assert!(!a.ns.ip("link show").contains("eth0"));
    let mut find = lab.host.command("find");
    find.arg(lab.host.run_dir()).arg(lab.host.state_dir()).args(["-type", "f"]);
    let left = find.output().expect("running find");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "pins and state are gone");

    // With nothing left there is nothing to do.
    lab.host.cleanup();
    lab.host.start(&[]);
    assert!(!lab.host.netd("network ls").contains("dual"), "a new start is a fresh one");
}

#[test]
fn several_daemons_beside_each_other() {
    let labs = [Lab::new(), Lab::new()];
    let containers = [labs[0].container("a"), labs[1].container("a")];
    labs[0].host.kill();
    labs[0].host.cleanup();
    assert!(ping(&containers[1].ns, Family::V4.outside(), Ping::default()), "the other one is not touched");
    assert!(ping(&containers[1].ns, Family::V6.outside(), Ping::default()), "the other one is not touched");
}

#[test]
fn without_root_it_says_so() {
    // Where cargo builds, nobody may look.
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("opening the directory");
    let netd = directory.path().join("netd");
    // By another process: one that another thread forks from this one would hold the file open for writing (ETXTBSY).
    let copied = Command::new("cp").arg(netd_binary()).arg(&netd).status().expect("running cp");
    assert!(copied.success(), "copying netd");
    let mut command = Command::new(netd);
    let output = command.arg("daemon").uid(65534).gid(65534).output().expect("running netd as nobody");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("root") && said.lines().count() <= 3, "{said}");
}

#[test]
fn ten_thousand_published_ports_leave_no_more_than_they_need() {
    let lab = Lab::new();
    let server = lab.container("server");
    // Every other port, so that no two make a range.
    let specs: String = (0..10_000).map(|n| 20_000 + 2 * n).map(|port| format!("{port}:{port} ")).collect();
    lab.host.netd(&format!("publish netns:{} {specs}", server.ns.name()));
    // Of 30 MB in all; the release build's code and tables are 16 of them.
    let written = lab.host.written();
    assert!(written < 14_000_000, "{written}");
}

//! What happened, as it happens and afterwards.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use netd_tests::lab::{Namespace, until};
use serde_json::json;

use crate::{container, daemon, now};

/// An event as the command line prints it, from its type on.
fn without_time(line: &str) -> String {
    line.split_once(' ').expect("a time first").1.to_owned()
}

#[test]
fn t21_a_network_s_life_is_told_as_it_happens() {
    let host = daemon();
    let docker = host.docker();
    let mut listening = docker.command("events --filter type=network");
    let mut listening = listening.stdout(Stdio::piped()).spawn().expect("running docker");
    until("docker listens", || host.call("GET", "/info", None).json()["NEventsListener"].as_u64() == Some(1));
    let id = docker.ok("network create n1");
    let id = id.trim();
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n1 {}", container(&ns)));
    docker.ok(&format!("network disconnect n1 {}", container(&ns)));
    docker.ok("network rm n1");
    let lines = BufReader::new(listening.stdout.take().expect("piped")).lines().take(4);
    let lines: Vec<_> = lines.map(|line| without_time(&line.expect("a line"))).collect();
    listening.kill().and_then(|()| listening.wait()).expect("ending docker");
    let whom = container(&ns);
    assert_eq!(
        lines,
        [
            format!("network create {id} (name=n1, type=bridge)"),
            format!("network connect {id} (container={whom}, name=n1, type=bridge)"),
            format!("network disconnect {id} (container={whom}, name=n1, type=bridge)"),
            format!("network destroy {id} (name=n1, type=bridge)"),
        ]
    );
    until("nobody listens", || host.call("GET", "/info", None).json()["NEventsListener"].as_u64() == Some(0));
}

#[test]
fn what_has_been_is_told_until_a_time() {
    let host = daemon();
    let docker = host.docker();
    let created = docker.ok("network create n1");
    docker.ok("network create n2");
    docker.ok("network rm n1");
    docker.ok("network prune -f");
    let actions = |arguments: &str| {
        let lines = docker.ok(&format!(
            "events --until {} --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}}' {arguments}",
            now()
        ));
        lines.lines().collect::<Vec<_>>().join(", ")
    };
    let all = "create n1, create n2, destroy n1, destroy n2, prune <no value>";
    assert_eq!(actions("--since 1"), all);
    assert_eq!(actions(""), all, "who names an end alone is told of all before it");
    assert_eq!(actions("--since 1 --filter network=n1"), "create n1, destroy n1");
    assert_eq!(actions(&format!("--since 1 --filter network={}", &created[..10])), "create n1, destroy n1");
    assert_eq!(actions("--since 1 --filter event=destroy"), "destroy n1, destroy n2");
    assert_eq!(
        actions("--since 1 --filter event=create --filter event=prune"),
        "create n1, create n2, prune <no value>"
    );
    assert_eq!(actions("--since 1 --filter type=network --filter scope=local"), all);
    assert_eq!(actions("--since 1 --filter type=image"), "");
    assert_eq!(actions("--since 1 --filter container=x"), "");
    let pruned = docker
        .json(&format!("events --since 1 --until {} --filter event=prune --format '{{{{json .}}}}'", now()));
    assert_eq!(pruned["Actor"], json!({"ID": "", "Attributes": {"reclaimed": "0"}}));

    let answer = host.call("GET", "/v1.50/events?since=1&until=2", None);
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let refused = host.call("GET", "/events?since=2&until=1", None);
    assert_eq!(
        (refused.status, &*refused.message()),
        (400, "`since` time (2) cannot be after `until` time (1)")
    );
    assert_eq!(host.call("GET", "/events?since=nonsense", None).status, 400);
}

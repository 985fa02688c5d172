//! Unused networks, removed.

use netd_tests::lab::Namespace;

use crate::{container, daemon, refusal};

#[test]
fn t19_prune_takes_what_is_unused_and_asked_for() {
    let host = daemon();
    let docker = host.docker();
    for arguments in ["--label x n1", "n2", "n3"] {
        docker.ok(&format!("network create {arguments}"));
    }
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n3 {}", container(&ns)));
    assert_eq!(docker.ok("network prune -f --filter until=24h"), "", "none is that old");
    assert_eq!(docker.ok("network prune -f --filter label=y"), "");
    assert_eq!(docker.ok("network prune -f --filter label!=x"), "Deleted Networks:\nn2\n\n");
    assert_eq!(docker.ok("network ls --format {{.Name}}"), "bridge\nhost\nn1\nn3\nnone\n");
    let tomorrow = "network prune -f --filter until=2100-01-01T00:00:00";
    assert_eq!(docker.ok(tomorrow), "Deleted Networks:\nn1\n\n");
    docker.ok(&format!("network disconnect n3 {}", container(&ns)));
    assert_eq!(docker.ok("network prune -f"), "Deleted Networks:\nn3\n\n");
    assert_eq!(docker.ok("network prune -f"), "", "predefined networks are never pruned");
    assert_eq!(docker.ok("network ls --format {{.Name}}"), "bridge\nhost\nnone\n");
    let none = host.call("POST", "/networks/prune", None);
    assert_eq!((none.status, &*none.body), (200, "{\"NetworksDeleted\":null}\n"));
}

#[test]
fn prunes_filters_are_checked() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    for (filters, says) in [
        ("--filter name=n1", "invalid filter 'name'"),
        ("--filter until=1h --filter until=2h", "more than one until filter specified"),
        ("--filter until=nonsense", "failed to parse value as time or duration: \"nonsense\""),
    ] {
        assert_eq!(docker.fails(&format!("network prune -f {filters}")), refusal(says));
    }
    assert_eq!(docker.ok("network ls --filter type=custom --format {{.Name}}"), "n1\n");
}

#[test]
fn two_prunes_at_once_are_one_or_a_conflict() {
    let host = daemon();
    let docker = host.docker();
    for number in 0..4 {
        docker.ok(&format!("network create n{number}"));
    }
    let answers = std::thread::scope(|scope| {
        let prune = || scope.spawn(|| host.call("POST", "/networks/prune", None));
        let prunes = [prune(), prune(), prune()];
        prunes.map(|prune| prune.join().expect("an answer"))
    });
    let mut deleted: Vec<String> = Vec::new();
    for answer in &answers {
        if answer.status == 200 {
            let names = answer.json();
            let names = names["NetworksDeleted"].as_array().cloned().unwrap_or_default();
            deleted.extend(names.iter().filter_map(|name| name.as_str().map(str::to_owned)));
        } else {
            assert_eq!((answer.status, &*answer.message()), (409, "a prune operation is already running"));
        }
    }
    deleted.sort();
    assert_eq!(deleted, ["n0", "n1", "n2", "n3"], "each once: {answers:?}");
    assert!(docker.ok("network ls --filter type=custom -q").is_empty());
}

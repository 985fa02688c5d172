//! Which networks a list shows.

use serde_json::json;

use crate::{container, daemon, refusal};
use netd_tests::lab::Namespace;

#[test]
fn t13_networks_by_filter() {
    let host = daemon();
    let docker = host.docker();
    let dev = docker.ok("network create dev");
    for arguments in ["--label in=out n1", "n2"] {
        docker.ok(&format!("network create {arguments}"));
    }
    let ns = Namespace::new("c");
    docker.ok(&format!("network connect n2 {}", container(&ns)));
    let id = format!("id={}", &dev[..12]);
    let all = "bridge dev host n1 n2 none";
    for (filters, listed) in [
        (&["name=n"][..], "n1 n2 none"),
        (&["name=^dev$"], "dev"),
        (&["name=n1", "name=dev"], "dev n1"),
        (&[&id], "dev"),
        (&["driver=bridge"], "bridge dev n1 n2"),
        (&["driver=brid"], ""),
        (&["driver=host", "driver=null"], "host none"),
        (&["type=custom"], "dev n1 n2"),
        (&["type=builtin"], "bridge host none"),
        (&["type=custom", "type=builtin"], all),
        (&["label=in"], "n1"),
        (&["label=in=out"], "n1"),
        (&["label=in=x"], ""),
        (&["label=in", "label=x"], ""),
        (&["dangling=true"], "dev n1"),
        (&["dangling=false"], "bridge host n2 none"),
        (&["scope=local"], all),
        (&["scope=swarm"], ""),
        (&["driver=bridge", "name=^n"], "n1 n2"),
    ] {
        let filters: String = filters.iter().map(|filter| format!(" --filter {filter}")).collect();
        let names = docker.ok(&format!("network ls --format {{{{.Name}}}}{filters}"));
        assert_eq!(names.lines().collect::<Vec<_>>().join(" "), listed, "{filters}");
    }
    for (filter, says) in [
        ("foo=bar", "invalid filter 'foo'"),
        ("type=x", "invalid filter: 'type'='x'"),
        (
            "dangling=maybe",
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        ),
    ] {
        assert_eq!(docker.fails(&format!("network ls --filter {filter}")), refusal(says));
    }
}

#[test]
fn filters_come_in_two_forms() {
    let host = daemon();
    let encode = |json: serde_json::Value| {
        json.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
    };
    for filters in [json!({"driver": {"host": true}}), json!({"driver": ["host"]})] {
        let listed = host.call("GET", &format!("/networks?filters={}", encode(filters)), None).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        assert_eq!(listed[0]["Name"], "host");
    }
    for (filters, status, says) in [
        ("%7B%22foo%22%3A%5B%22x%22%5D%7D", 400, "invalid filter 'foo'"),
        ("%7B%22type%22%3A%5B%22x%22%5D%7D", 500, "invalid filter: 'type'='x'"),
        ("nonsense", 400, "invalid filter"),
    ] {
        let refused = host.call("GET", &format!("/networks?filters={filters}"), None);
        assert_eq!((refused.status, &*refused.message()), (status, says), "{filters}");
    }
}

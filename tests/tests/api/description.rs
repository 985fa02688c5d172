//! The description of the API, held against what a daemon answers.

use netd_tests::lab::{Answer, Host, Namespace, Ping, ping};
use serde_json::{Value, json};

use crate::{container, daemon, now, schema};

/// The description and what was called of it.
struct Described<'a> {
    host: &'a Host,
    document: Value,
    called: Vec<(String, String)>,
}

impl Described<'_> {
    /// Calls the operation at `path`, whose variable part is `id`, and holds the answer against the description.
    fn call(&mut self, method: &str, path: &str, id: &str, query: &str, body: Option<&Value>) -> Answer {
        let answer = self.host.call(method, &(filled(path, id) + query), body);
        let described = &self.document["paths"][path][method.to_ascii_lowercase()];
        let mut response = &described["responses"][answer.status.to_string()];
        if let Some(reference) = response.get("$ref") {
            response = schema::resolve(&self.document, reference);
        }
        let what = format!("{method} {path} {query}");
        assert!(
            response["description"].is_string(),
            "{what}: {} is not described: {}",
            answer.status,
            answer.body
        );
        match response.get("content").and_then(Value::as_object) {
            None => assert_eq!(answer.body, "", "{what}"),
            Some(content) => {
                let kind = answer.header("content-type").expect("a type");
                let found = content.iter().find(|(name, _)| kind.starts_with(name.as_str()));
                let (name, content) = found.unwrap_or_else(|| panic!("{what}: {kind} is not described"));
                if name == "application/json" {
                    for line in lines(&answer.body, path) {
                        let faults = schema::faults(&self.document, &content["schema"], &line);
                        assert_eq!(faults, [""; 0], "{what}");
                    }
                }
            }
        }
        self.called.push((path.to_owned(), method.to_ascii_lowercase()));
        answer
    }
}

/// The path with `id` in the place of its variable part; of several, with the parts of `id` in their places.
fn filled(path: &str, id: &str) -> String {
    let mut parts = id.split('/');
    path.split('/')
        .map(|part| if part.starts_with('{') { parts.next().expect("a part for each") } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// The objects of a body: of a stream there may be several.
fn lines(body: &str, path: &str) -> Vec<Value> {
    let objects = if path == "/events" { body.lines().collect() } else { vec![body] };
    objects
        .into_iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn every_answer_is_as_described() {
    let lab = netd_tests::lab::Lab::new();
    let host = &lab.host;
    let document = host.call("GET", "/netd/openapi.json", None).json();
    let mut described = Described { host, document, called: Vec::new() };
    // Something to tell of, and to count.
    let a = lab.container("a");
    assert!(ping(&a.ns, netd_tests::lab::Family::V4.outside(), Ping::default()));
    let create = json!({
        "Name": "n1", "Driver": "bridge", "Labels": {"a": "b"}, "Options": {"any": "thing"}, "EnableIPv6": true,
        "IPAM": {"Driver": "default", "Options": {"k": "v"}, "Config": [
            {"Subnet": "10.5.0.0/16", "IPRange": "10.5.1.0/24", "Gateway": "10.5.0.1", "AuxiliaryAddresses": {"h": "10.5.0.9"}},
            {"Subnet": "fd00:5::/64"}
        ]}
    });
    let ns = Namespace::new("c");
    let joining = json!({"Container": container(&ns)});
    described.call("POST", "/networks/create", "", "", Some(&create));
    described.call("POST", "/networks/create", "", "", Some(&create));
    described.call("POST", "/networks/create", "", "", Some(&json!({"Name": "bridge"})));
    described.call("POST", "/networks/create", "", "", Some(&json!({"Name": "x", "Driver": "x"})));
    described.call("POST", "/networks/create", "", "", Some(&json!({"Name": ""})));
    described.call("POST", "/networks/create", "", "", Some(&json!({"Name": "t", "ConfigOnly": true})));
    described.call("POST", "/networks/{id}/connect", "n1", "", Some(&joining));
    described.call("POST", "/networks/{id}/connect", "n1", "", Some(&joining));
    described.call("POST", "/networks/{id}/connect", "absent", "", Some(&joining));
    for path in ["/networks", "/networks/"] {
        described.call("GET", path, "", "", None);
        described.call("GET", path, "", "?filters=nonsense", None);
    }
    for id in ["n1", "t", "host", "absent"] {
        described.call("GET", "/networks/{id}", id, "", None);
    }
    described.call("GET", "/networks/{id}", "n1", "?verbose=x", None);
    let ports = json!({"Endpoint": container(&ns), "Ports": ["8080:80", "127.0.0.1:5300:53/udp"]});
    described.call("POST", "/netd/publish", "", "", Some(&ports));
    described.call("POST", "/netd/publish", "", "", Some(&ports));
    for wrong in [json!({"Endpoint": "absent", "Ports": ["80"]}), json!({"Endpoint": "x", "Ports": ["x"]})] {
        described.call("POST", "/netd/publish", "", "", Some(&wrong));
        described.call("POST", "/netd/unpublish", "", "", Some(&wrong));
    }
    let external = |target: &str| json!({"external": "203.0.113.9", "target": target});
    described.call("POST", "/netd/nat", "", "", Some(&external(a.ns.name())));
    described.call("POST", "/netd/nat", "", "", Some(&external(a.ns.name())));
    described.call(
        "POST",
        "/netd/nat",
        "",
        "",
        Some(&json!({"external": "203.0.113.8", "target": "absent"})),
    );
    described.call("POST", "/netd/nat", "", "", Some(&json!({"external": "x", "target": "absent"})));
    for path in [
        "/netd/nat",
        "/netd/fdb",
        "/netd/routes",
        "/netd/names",
        "/netd/publish",
        "/netd/stats",
        "/netd/status",
        "/netd/openapi.json",
        "/metrics",
    ] {
        let answer = described.call("GET", path, "", "", None);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    described.call("DELETE", "/netd/nat", "", "?external=203.0.113.9", None);
    described.call("DELETE", "/netd/nat", "", "?external=203.0.113.9", None);
    described.call("DELETE", "/netd/nat", "", "?external=x", None);
    described.call("POST", "/netd/unpublish", "", "", Some(&ports));
    described.call("POST", "/netd/unpublish", "", "", Some(&ports));
    let engines = Namespace::new("d");
    let attach = json!({
        "Network": {"Name": "n1"}, "Container": "c1", "Sandbox": engines.path(), "Interface": "eth0"
    });
    described.call("POST", "/netd/attachments", "", "", Some(&attach));
    described.call("POST", "/netd/attachments", "", "", Some(&json!({"Network": {"Name": ""}})));
    for id in ["n1/c1/eth0", "n1/absent/eth0"] {
        described.call("GET", "/netd/attachments/{network}/{container}/{interface}", id, "", None);
    }
    described.call("DELETE", "/netd/attachments/{network}/{container}/{interface}", "n1/c1/eth0", "", None);
    described.call("POST", "/netd/attachments/{network}/prune", "n1", "", Some(&json!({"Valid": []})));
    described.call("DELETE", "/networks/{id}", "n1", "", None);
    described.call("DELETE", "/networks/{id}", "absent", "", None);
    described.call("POST", "/networks/{id}/disconnect", "n1", "", Some(&joining));
    described.call("POST", "/networks/{id}/disconnect", "n1", "", Some(&joining));
    described.call("POST", "/networks/{id}/disconnect", "n1", "", Some(&json!({"Container": "x"})));
    described.call("DELETE", "/networks/{id}", "n1", "", None);
    for path in ["/networks/prune", "/containers/prune", "/images/prune", "/volumes/prune", "/build/prune"] {
        described.call("POST", path, "", "", None);
        described.call("POST", path, "", "?filters=nonsense", None);
    }
    for path in ["/_ping", "/version", "/info", "/system/df", "/containers/json", "/plugins"] {
        described.call("GET", path, "", "", None);
    }
    described.call("GET", "/system/df", "", "?type=x", None);
    let events = described.call("GET", "/events", "", &format!("?since=1&until={}", now()), None);
    assert!(events.body.lines().count() > 5, "{}", events.body);
    described.call("GET", "/events", "", "?since=2&until=1", None);

    let paths = described.document["paths"].as_object().expect("an object");
    let all = paths.iter().flat_map(|(path, methods)| {
        methods.as_object().expect("an object").keys().map(|method| (path.clone(), method.clone()))
    });
    let missing: Vec<_> = all.filter(|operation| !described.called.contains(operation)).collect();
    assert!(missing.is_empty(), "this test calls all that is described, but for {missing:?}");
}

#[test]
fn what_is_refused_before_any_route_is_an_error_too() {
    let host = daemon();
    let document = host.call("GET", "/netd/openapi.json", None).json();
    for path in ["/nope", "/v9.99/networks", "/v1.1/networks"] {
        let answer = host.call("GET", path, None);
        let faults =
            schema::faults(&document, &json!({"$ref": "#/components/schemas/Error"}), &answer.json());
        assert_eq!(faults, [""; 0], "{path}");
    }
}

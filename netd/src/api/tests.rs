//! The router as a client sees it: statuses, headers and bodies of what never reaches the engine, and of what it holds.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{broadcast, watch};

use super::{Api, Networks, body, docker, info::Told, sample};
use crate::{
    engine::{Action, Created, Error, Event, Happened},
    model::{Driver, Id, State, Timestamp, request},
};

/// An engine that holds the sample, and refuses or does as the names in the requests tell.
#[derive(Clone)]
struct Fake {
    state: Arc<State>,
    events: broadcast::Sender<Event>,
}

impl Networks for Fake {
    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn told(&self) -> Told {
        Told::default()
    }

    async fn create(&self, request: request::NetworkCreate) -> Result<Created, Error> {
        match request.name.as_str() {
            "" => Err(Error::invalid("invalid name: name is empty")),
            "bridge" => Err(Error::forbidden("operation is not permitted on predefined bridge network ")),
            "n1" => Err(Error::conflict("network with name n1 already exists")),
            "later" => Err(Error::not_implemented("not yet")),
            "broken" => panic!("a bug"),
            _ => {
                assert_eq!(request.options, BTreeMap::from([("k".into(), "v".into())]));
                let happened = Happened::Network {
                    action: Action::Create,
                    id: Id::new([7; 32]),
                    name: request.name,
                    driver: Driver::Bridge,
                    container: None,
                };
                let _ = self.events.send(Event { happened, time: Timestamp::now() });
                Ok(Created { id: Id::new([7; 32]), warning: String::new() })
            }
        }
    }

    async fn remove(&self, network: &str, _: bool) -> Result<(), Error> {
        self.state.find_network(network).map(drop)
    }

    async fn connect(&self, network: &str, request: request::NetworkConnect) -> Result<(), Error> {
        self.state.find_network(network)?;
        match request.container.as_str() {
            "netns:web" => Ok(()),
            other => Err(Error::not_found(format!("No such container: {other}"))),
        }
    }

    async fn disconnect(&self, network: &str, request: request::NetworkDisconnect) -> Result<(), Error> {
        self.state.find_network(network)?;
        match (request.container.as_str(), request.force) {
            ("netns:web", true) => Ok(()),
            ("netns:web", false) => {
                Err(Error::internal(format!("container web is not connected to network {network}")))
            }
            (other, _) => Err(Error::not_found(format!("No such container: {other}"))),
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn message(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/json");
        assert!(self.body.ends_with("}\n"), "{}", self.body);
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1);
        body["message"].as_str().unwrap().to_owned()
    }
}

fn router() -> Router {
    let fake = Fake { state: Arc::new(sample::state()), events: broadcast::Sender::new(4) };
    Api::new(fake, watch::channel(false).1).serve(docker())
}

async fn send(request: Request<Body>) -> Answer {
    let response = TowerToHyperService::new(router()).call(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn call(method: &str, path: &str) -> Answer {
    send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

async fn post(path: &str, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request = Request::builder().method("POST").uri(path);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn ping_tells_what_is_spoken_here() {
    for (method, path, body) in [
        ("HEAD", "/_ping", ""),
        ("GET", "/_ping", "OK"),
        ("GET", "/v1.24/_ping", "OK"),
        ("HEAD", "/v1.50/_ping", ""),
    ] {
        let answer = call(method, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, body), "{method} {path}");
        for (name, value) in [
            ("api-version", "1.50"),
            ("ostype", "linux"),
            ("docker-experimental", "false"),
            ("swarm", "inactive"),
            ("builder-version", "2"),
            ("server", "Docker/28.2.2 (linux)"),
            ("cache-control", "no-cache, no-store, must-revalidate"),
            ("pragma", "no-cache"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(answer.headers[name], value, "{method} {path}: {name}");
        }
    }
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    for (method, path) in [
        ("GET", "/networks"),
        ("GET", "/nope"),
        ("GET", "/v9.99/networks"),
        ("GET", "/version"),
        ("PUT", "/networks"),
    ] {
        let answer = call(method, path).await;
        for name in ["api-version", "docker-experimental", "ostype", "server"] {
            assert!(answer.headers.contains_key(name), "{method} {path}: {name}");
        }
        assert_eq!(answer.headers["content-type"], "application/json", "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_not_found() {
    for (method, path) in [
        ("GET", "/nope"),
        ("GET", "/"),
        ("GET", "/v1.50"),
        ("GET", "/v1.50/"),
        ("GET", "/vx/networks"),
        ("PUT", "/networks/create"),
        ("POST", "/networks/create/x"),
        ("POST", "/networks"),
        ("POST", "/networks/n1/rename"),
        ("DELETE", "/networks/"),
        ("PUT", "/v9.99/networks/create"),
        ("GET", "/v9.99/nope"),
        ("POST", "/containers/create"),
        ("PATCH", "/networks/bridge"),
    ] {
        let answer = call(method, path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        assert_eq!(answer.message(), "page not found", "{method} {path}");
    }
    assert_eq!(call("HEAD", "/networks").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn versions_that_are_not_spoken_are_refused() {
    let answer = call("GET", "/v9.99/networks").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.message(), "client version 9.99 is too new. Maximum supported API version is 1.50");
    let answer = call("GET", "/v1.1/networks").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer.message(),
        "client version 1.1 is too old. Minimum supported API version is 1.24, \
         please upgrade your client to a newer version"
    );
}

#[tokio::test]
async fn networks_are_listed_and_inspected() {
    for path in ["/networks", "/networks/", "/v1.28/networks", "/v1.50/networks?filters=%7B%7D"] {
        let answer = call("GET", path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let networks: Vec<serde_json::Value> = serde_json::from_str(&answer.body).unwrap();
        let names: Vec<_> = networks.iter().map(|network| network["Name"].as_str().unwrap()).collect();
        assert_eq!(names, ["bridge", "dev", "host", "n1", "none"]);
        assert!(networks.iter().all(|network| network["Containers"].as_object().unwrap().is_empty()));
    }
    let old: Vec<serde_json::Value> = serde_json::from_str(
        &call("GET", "/v1.27/networks?filters=%7B%22name%22%3A%5B%22n1%22%5D%7D").await.body,
    )
    .unwrap();
    assert_eq!(old[0]["Containers"].as_object().unwrap().len(), 1, "lists told of endpoints once");
    let by_filter = call("GET", "/networks?filters=%7B%22name%22%3A%7B%22%5En1%24%22%3Atrue%7D%7D").await;
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&by_filter.body).unwrap().len(), 1);
    for path in ["/networks/n1", "/networks/0202", "/networks/n%31?verbose=true&scope=local"] {
        let answer = call("GET", path).await;
        let network: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (answer.status, network["Containers"].as_object().unwrap().len()),
            (StatusCode::OK, 1),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_found_or_read_is_named() {
    for (path, status, message) in [
        ("/networks/nope", StatusCode::NOT_FOUND, "network nope not found"),
        ("/networks/test@%23$", StatusCode::NOT_FOUND, "network test@#$ not found"),
        ("/networks/a/b%2Fc", StatusCode::NOT_FOUND, "network a/b/c not found"),
        ("/v1.30/networks/create", StatusCode::NOT_FOUND, "network create not found"),
        ("/networks/n1/connect", StatusCode::NOT_FOUND, "network n1/connect not found"),
        ("/system/df?type=x", StatusCode::BAD_REQUEST, "unknown object type: x"),
        ("/networks/n1?scope=swarm", StatusCode::NOT_FOUND, "network n1 not found"),
        (
            "/networks/n1?verbose=maybe",
            StatusCode::BAD_REQUEST,
            "invalid value for verbose: maybe: strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "/networks?filters=%7B%22foo%22%3A%5B%22x%22%5D%7D",
            StatusCode::BAD_REQUEST,
            "invalid filter 'foo'",
        ),
        ("/networks?filters=x", StatusCode::BAD_REQUEST, "invalid filter"),
        (
            "/networks?filters=%7B%22type%22%3A%5B%22x%22%5D%7D",
            StatusCode::INTERNAL_SERVER_ERROR,
            "invalid filter: 'type'='x'",
        ),
        (
            "/events?since=2&until=1",
            StatusCode::BAD_REQUEST,
            "`since` time (2) cannot be after `until` time (1)",
        ),
    ] {
        let answer = call("GET", path).await;
        assert_eq!((answer.status, answer.message()), (status, message.to_owned()), "{path}");
    }
    for path in ["/networks/%ff", "/networks?filters=%ff", "/networks?filters=x&filters=y&filters"] {
        let answer = call("GET", path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.message().starts_with("invalid "), "{path}");
    }
}

#[tokio::test]
async fn malformed_bodies_are_refused_before_anything_is_done() {
    for path in ["/networks/create", "/networks/bridge/connect", "/networks/bridge/disconnect"] {
        let json = Some("application/json");
        let answer = post(path, Some("text/plain"), "{}").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(
            answer.message(),
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        let answer = post(path, None, "{}").await;
        assert!(answer.message().starts_with("malformed Content-Type header"), "{path}");
        for bad in
            ["{invalid json", "{", "[1", "\"", "nul", "{\"Name\":tru", "[]", "{\"Container\":1,\"Name\":1}"]
        {
            let answer = post(path, json, bad).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {bad}");
            assert!(answer.message().starts_with("invalid JSON: "), "{path} {bad}: {}", answer.message());
        }
        let answer = post(path, json, "{} trailing content").await;
        assert_eq!(
            (answer.status, &*answer.message()),
            (StatusCode::BAD_REQUEST, "unexpected content after JSON")
        );
        let answer = post(path, json, vec![b' '; body::LIMIT + 1]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let answer = post(path, None, "").await;
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.body);
        answer.message();
    }
}

#[tokio::test]
async fn requests_reach_the_engine_and_its_answers_the_client() {
    let json = Some("application/json");
    let ok =
        post("/v1.50/networks/create", json, r#"{"Name":"n9","Options":{"k":"v"},"CheckDuplicate":true}"#)
            .await;
    assert_eq!(ok.status, StatusCode::CREATED);
    assert_eq!(ok.body, format!("{{\"Id\":\"{}\",\"Warning\":\"\"}}\n", "07".repeat(32)));
    for (method, path, body, status, message) in [
        (
            "POST",
            "/networks/create",
            r#"{"Name":""}"#,
            StatusCode::BAD_REQUEST,
            "invalid name: name is empty",
        ),
        (
            "POST",
            "/networks/create",
            r#"{"Name":"bridge"}"#,
            StatusCode::FORBIDDEN,
            "operation is not permitted on predefined bridge network ",
        ),
        (
            "POST",
            "/networks/create",
            r#"{"Name":"n1"}"#,
            StatusCode::CONFLICT,
            "network with name n1 already exists",
        ),
        ("POST", "/networks/create", r#"{"Name":"later"}"#, StatusCode::NOT_IMPLEMENTED, "not yet"),
        (
            "POST",
            "/networks/create",
            r#"{"Name":"broken"}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
            "POST /networks/create: netd failed; the cause is in its log",
        ),
        ("DELETE", "/networks/nope", "", StatusCode::NOT_FOUND, "network nope not found"),
        ("POST", "/networks/nope/connect", "{}", StatusCode::NOT_FOUND, "network nope not found"),
        (
            "POST",
            "/networks/n1/connect",
            r#"{"Container":"c"}"#,
            StatusCode::NOT_FOUND,
            "No such container: c",
        ),
        (
            "POST",
            "/networks/n1/disconnect",
            r#"{"Container":"netns:web"}"#,
            StatusCode::INTERNAL_SERVER_ERROR,
            "container web is not connected to network n1",
        ),
    ] {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer = send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!((answer.status, answer.message()), (status, message.to_owned()), "{method} {path} {body}");
    }
    for (path, body) in [
        (
            "/networks/n1/connect",
            r#"{"Container":"netns:web","EndpointConfig":{"Links":null,"IPAMConfig":{}}}"#,
        ),
        ("/networks/n1/disconnect", r#"{"Container":"netns:web","Force":true}"#),
    ] {
        let answer = post(path, json, body).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""), "{path}");
    }
    let answer = call("DELETE", "/networks/dev").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::NO_CONTENT, ""));
}

#[tokio::test]
async fn pruning_takes_unused_networks_alone() {
    for (path, deleted) in [
        ("/networks/prune", r#"{"NetworksDeleted":["dev"]}"#),
        ("/networks/prune?filters=%7B%22label%22%3A%5B%22x%22%5D%7D", r#"{"NetworksDeleted":null}"#),
        ("/networks/prune?filters=%7B%22label!%22%3A%5B%22x%22%5D%7D", r#"{"NetworksDeleted":["dev"]}"#),
        (
            "/networks/prune?filters=%7B%22until%22%3A%5B%222020-01-01T00%3A00%3A00Z%22%5D%7D",
            r#"{"NetworksDeleted":null}"#,
        ),
    ] {
        let answer = call("POST", path).await;
        assert_eq!((answer.status, answer.body), (StatusCode::OK, format!("{deleted}\n")), "{path}");
    }
    let answer = call("POST", "/networks/prune?filters=%7B%22name%22%3A%5B%22x%22%5D%7D").await;
    assert_eq!((answer.status, &*answer.message()), (StatusCode::BAD_REQUEST, "invalid filter 'name'"));
}

#[tokio::test]
async fn a_client_that_listens_is_told_at_once_and_let_go_at_the_end() {
    let fake = Fake { state: Arc::new(sample::state()), events: broadcast::Sender::new(4) };
    let (ending, ended) = watch::channel(false);
    let router = TowerToHyperService::new(Api::new(fake.clone(), ended).serve(docker()));
    let listen = Request::builder().uri("/events?filters=%7B%22event%22%3A%5B%22create%22%5D%7D");
    let mut body = router.call(listen.body(Body::empty()).unwrap()).await.unwrap().into_body();
    let create = request::NetworkCreate {
        name: "n9".into(),
        options: BTreeMap::from([("k".into(), "v".into())]),
        ..request::NetworkCreate::default()
    };
    fake.create(create).await.unwrap();
    let line = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(
        line.starts_with(br#"{"Type":"network","Action":"create""#) && line.ends_with(b"}\n"),
        "{line:?}"
    );
    ending.send_replace(true);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn version_and_info_are_objects_with_true_values() {
    let version: serde_json::Value = serde_json::from_str(&call("GET", "/version").await.body).unwrap();
    assert_eq!(
        (version["ApiVersion"].as_str(), version["MinAPIVersion"].as_str()),
        (Some("1.50"), Some("1.24"))
    );
    assert_eq!(version["Components"][0]["Name"], "Engine");
    let info: serde_json::Value = serde_json::from_str(&call("GET", "/info").await.body).unwrap();
    assert_eq!((info["OSType"].as_str(), info["Containers"].as_u64()), (Some("linux"), Some(1)));
    assert_eq!(info["FirewallBackend"], serde_json::json!({"Driver": "ebpf"}));
    let older: serde_json::Value = serde_json::from_str(&call("GET", "/v1.48/info").await.body).unwrap();
    assert!(older.get("FirewallBackend").is_none() && older.get("DefaultAddressPools").is_none());
    assert!(info["MemTotal"].as_u64().unwrap() > 0 && info["NCPU"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_stream_of_events_ends_where_it_is_asked_to() {
    let answer = call("GET", "/events?since=1&until=2").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
    assert_eq!(answer.headers["content-type"], "application/json");
}

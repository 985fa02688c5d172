//! Who speaks here, and which versions of the API.

use crate::daemon;

/// What every answer says of the daemon.
const HEADERS: [(&str, &str); 4] = [
    ("api-version", "1.50"),
    ("docker-experimental", "false"),
    ("ostype", "linux"),
    ("server", "Docker/28.2.2 (linux)"),
];

#[test]
fn t03_routes_and_versions() {
    let host = daemon();
    let too_new = "client version 9.99 is too new. Maximum supported API version is 1.50";
    let too_old = "client version 1.1 is too old. Minimum supported API version is 1.24, please upgrade your client \
                   to a newer version";
    for (method, path, status, says) in [
        ("HEAD", "/_ping", 200, None),
        ("GET", "/_ping", 200, None),
        ("GET", "/v1.24/_ping", 200, None),
        ("GET", "/v9.99/networks", 400, Some(too_new)),
        ("GET", "/v1.1/networks", 400, Some(too_old)),
        ("GET", "/nope", 404, Some("page not found")),
        ("PUT", "/networks/create", 404, Some("page not found")),
    ] {
        let answer = host.send(method, path, &[], &[]);
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        for (name, value) in HEADERS {
            assert_eq!(answer.header(name), Some(value), "{method} {path}: {answer:?}");
        }
        match says {
            Some(message) => assert_eq!(answer.message(), message, "{method} {path}"),
            None => assert_eq!(answer.body, if method == "HEAD" { "" } else { "OK" }, "{method} {path}"),
        }
    }
}

#[test]
fn t04_the_command_line_negotiates_a_version() {
    let host = daemon();
    let server = "version --format {{.Server.APIVersion}}";
    assert_eq!(host.docker().ok(server), "1.50\n");
    let old = host.docker().with("DOCKER_API_VERSION", "1.43");
    assert_eq!(old.ok(server), "1.50\n");
    let new = host.docker().with("DOCKER_API_VERSION", "1.51");
    assert_eq!(
        new.fails("network ls"),
        "Error response from daemon: client version 1.51 is too new. Maximum supported API version is 1.50"
    );
}

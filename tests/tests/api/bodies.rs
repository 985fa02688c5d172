//! Bodies that are not what they should be.

use serde_json::json;

use crate::daemon;

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

#[test]
fn t01_bodies_that_are_no_json() {
    let host = daemon();
    let before = host.get("/networks");
    for path in ["/networks/create", "/networks/bridge/connect", "/networks/bridge/disconnect"] {
        let post = |headers: &[(&str, &str)], body: &[u8]| host.send("POST", path, headers, body);
        let refused = post(&[("Content-Type", "text/plain")], b"{}");
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(
            refused.message(),
            "unsupported Content-Type header (text/plain): must be 'application/json'",
            "{path}"
        );
        let refused = post(&JSON, b"{invalid json");
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.message().starts_with("invalid JSON: "), "{path}: {refused:?}");
        let refused = post(&JSON, b"{} trailing content");
        assert_eq!((refused.status, &*refused.message()), (400, "unexpected content after JSON"), "{path}");
        for headers in [&[][..], &JSON] {
            let refused = post(headers, b"");
            assert!(refused.status < 500, "{path}: {refused:?}");
            refused.message();
        }
        assert_eq!(post(&[], b"{}").status, 400, "a body of no type");
        assert!(
            post(&[("Content-Type", "application/json; charset=utf-8")], b"{")
                .message()
                .starts_with("invalid JSON")
        );
    }
    assert_eq!(host.get("/networks"), before);
}

#[test]
fn fields_are_read_as_go_reads_them() {
    let host = daemon();
    let body = json!({
        "name": "n1", "LABELS": {"A": "b"}, "internal": true, "Options": null, "IPAM": {"config": null}, "CheckDuplicate": true,
        "Unknown": [1]
    });
    let created = host.call("POST", "/networks/create", Some(&body));
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.json()["Warning"], "");
    let network = host.call("GET", "/networks/n1", None).json();
    assert_eq!((&network["Labels"], &network["Internal"]), (&json!({"A": "b"}), &json!(true)));
    // Nothing said of addresses at all, and a list of them with nothing in it, are told apart.
    assert_eq!(network["IPAM"]["Options"], json!(null));
    let body = json!({"Name": "n2", "IPAM": {"Options": {}}});
    assert_eq!(host.call("POST", "/networks/create", Some(&body)).status, 201);
    assert_eq!(host.call("GET", "/networks/n2", None).json()["IPAM"]["Options"], json!({}));
    let refused = host.call("POST", "/networks/create", Some(&json!({"Name": "n3", "Internal": "yes"})));
    assert_eq!(
        (refused.status, refused.message().starts_with("invalid JSON: Internal: ")),
        (400, true),
        "{refused:?}"
    );
}

#[test]
fn a_body_that_is_too_large_is_refused() {
    let host = daemon();
    let body = format!(r#"{{"Name":"{}"}}"#, "n".repeat(2 << 20));
    let refused = host.send("POST", "/networks/create", &JSON, body.as_bytes());
    assert_eq!(refused.status, 413, "{}", refused.message());
    assert_eq!(host.get("/_ping"), Some((200, "OK".to_owned())));
}

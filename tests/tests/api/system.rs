//! The commands that are not about networks, and what they find.

use netd_tests::lab::Host;
use serde_json::{Value, json};

use crate::{daemon, now, refusal};

#[test]
fn version_tells_who_answers() {
    let host = daemon();
    let docker = host.docker();
    let version = docker.json("version --format '{{json .Server}}'");
    assert_eq!(version["Platform"], json!({"Name": "netd"}));
    assert_eq!((&version["ApiVersion"], &version["MinAPIVersion"]), (&json!("1.50"), &json!("1.24")));
    assert_eq!(version["Version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["Components"].as_array().map(Vec::len), Some(1));
    assert_eq!(version["Components"][0]["Name"], "Engine");
    let text = docker.ok("version");
    assert!(text.contains("Server: netd\n Engine:\n  Version:          0.1.0\n  API version:      1.50 (minimum version 1.24)\n"), "{text}");
}

#[test]
fn there_are_no_containers_images_volumes_or_plugins() {
    let host = daemon();
    let docker = host.docker();
    assert_eq!(docker.ok("ps"), "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n");
    assert_eq!(docker.ok("ps -aq"), "");
    assert_eq!(docker.ok("plugin ls"), "ID        NAME      DESCRIPTION   ENABLED\n");
    assert_eq!(docker.ok("ps -q --filter status=running --filter network=bridge"), "");
    for command in ["ps", "plugin ls"] {
        assert_eq!(docker.fails(&format!("{command} --filter foo=bar")), refusal("invalid filter 'foo'"));
    }
    assert_eq!(
        docker.ok("system df"),
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
         Images          0         0         0B        0B\n\
         Containers      0         0         0B        0B\n\
         Local Volumes   0         0         0B        0B\n\
         Build Cache     0         0         0B        0B\n"
    );
    docker.ok("system df -v");
    let usage = |path| host.call("GET", path, None);
    let lists = json!({"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []});
    assert_eq!(usage("/system/df").json(), lists);
    assert_eq!(usage("/v1.41/system/df?type=volume").json(), lists);
    assert_eq!(
        usage("/system/df?type=volume&type=image").json(),
        json!({"LayersSize": 0, "Images": [], "Containers": null, "Volumes": [], "BuildCache": null})
    );
    let refused = usage("/system/df?type=x");
    assert_eq!((refused.status, &*refused.message()), (400, "unknown object type: x"));
}

#[test]
fn what_needs_an_engine_is_not_found() {
    let host = daemon();
    let docker = host.docker();
    let said = docker.run("run busybox");
    assert_eq!(said.status.code(), Some(125));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("Error response from daemon: page not found"), "{said}");
    for line in ["pull busybox", "volume ls", "swarm init"] {
        assert_eq!(docker.fails(line).lines().next(), Some(&*refusal("page not found")), "{line}");
    }
}

#[test]
fn system_prune_removes_unused_networks() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    assert_eq!(docker.ok("system prune -f"), "Deleted Networks:\nn1\n\nTotal reclaimed space: 0B\n");
    assert_eq!(docker.ok("system prune -f"), "Total reclaimed space: 0B\n");
    docker.ok("system prune -f --volumes");
    for (path, body) in [
        ("/containers/prune", r#"{"ContainersDeleted":null,"SpaceReclaimed":0}"#),
        ("/images/prune", r#"{"ImagesDeleted":null,"SpaceReclaimed":0}"#),
        ("/volumes/prune", r#"{"VolumesDeleted":null,"SpaceReclaimed":0}"#),
        ("/build/prune?filters=", r#"{"CachesDeleted":null,"SpaceReclaimed":0}"#),
        ("/networks/prune", r#"{"NetworksDeleted":null}"#),
    ] {
        let answer = host.call("POST", path, None);
        assert_eq!((answer.status, answer.body.trim_end()), (200, body), "{path}");
    }
    let kinds =
        docker.ok(&format!("events --since 1 --until {} --filter event=prune --format {{{{.Type}}}}", now()));
    for kind in ["container", "network", "image", "volume", "builder"] {
        assert!(kinds.lines().any(|line| line == kind), "{kind} in {kinds}");
    }
}

#[test]
fn the_shell_completes_the_names_of_networks() {
    let host = daemon();
    let docker = host.docker();
    docker.ok("network create n1");
    for command in ["inspect", "rm", "connect", "disconnect"] {
        let output = docker.run(&format!("__complete network {command} ''"));
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        // Older clients know no names; the shell asks for a list instead.
        let names = if names == ":0\n" {
            docker.ok("network ls --no-trunc --filter type=custom --format {{.Name}}")
        } else {
            names
        };
        assert!(names.lines().any(|line| line == "n1"), "{command}: {names}");
    }
}

#[test]
fn info_tells_of_the_host_and_what_the_daemon_was_told() {
    let host = Host::new();
    host.configure(
        r#"{
            "labels": ["a=b", "c=d"],
            "default-address-pools": [{"base": "10.64.0.0/16", "size": 24}, {"base": "fd00:64::/48", "size": 64}]
        }"#,
    );
    host.start(&[
        "--host",
        &format!("unix://{}", host.socket().display()),
        "--host",
        "tcp://0.0.0.0:2375",
        "--tls=false",
    ]);
    let docker = host.docker();
    let output = docker.run("info --format '{{json .}}'");
    let info: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(info["ServerVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["IPv4Forwarding"], true);
    assert_eq!(info["LiveRestoreEnabled"], true);
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert_eq!(info["Plugins"]["Network"], json!(["bridge", "host", "null"]));
    // Older clients do not ask for it.
    assert_eq!(host.call("GET", "/info", None).json()["FirewallBackend"], json!({"Driver": "ebpf"}));
    assert_eq!(info["Labels"], json!(["a=b", "c=d"]));
    let pools = json!([{"Base": "10.64.0.0/16", "Size": 24}, {"Base": "fd00:64::/48", "Size": 64}]);
    assert_eq!(info["DefaultAddressPools"], pools);
    assert_eq!(info["DockerRootDir"], host.state_dir().to_str().expect("text"));
    assert!(info["NCPU"].as_u64() > Some(0) && info["MemTotal"].as_u64() > Some(1 << 20), "{info}");
    for field in ["ID", "Name", "OperatingSystem", "KernelVersion", "Architecture", "SystemTime"] {
        assert!(info[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {info}");
    }
    let warning = info["Warnings"][0].as_str().expect("a warning").to_owned();
    assert!(
        warning.starts_with("WARNING: API is accessible on http://0.0.0.0:2375 without encryption."),
        "{warning}"
    );

    let shown = docker.run("info");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for line in [
        " Server Version: 0.1.0",
        " Labels:\n  a=b\n  c=d",
        "   Base: 10.64.0.0/16, Size: 24\n   Base: fd00:64::/48, Size: 64",
        " Live Restore Enabled: true",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let warned = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert_eq!(warned.trim_end(), warning, "a warning is for those who look at it");

    let id = info["ID"].clone();
    host.stop();
    host.start(&["--host", &format!("unix://{}", host.socket().display())]);
    assert_eq!(docker.json("info --format '{{json .ID}}'"), id, "it survives a restart");
    assert_eq!(docker.json("info --format '{{json .Warnings}}'"), json!(null));
}

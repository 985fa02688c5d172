//! Where the daemon listens, and who gets in.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Stdio};

use netd_tests::lab::{Authority, Host, PATIENCE, netd_binary, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// `docker` with TLS, verified, and the certificates of a directory.
fn docker(host: &Host, certificates: &Path, line: &str) -> Result<String, String> {
    let docker = host.docker_at("tcp://127.0.0.1:2376").with("DOCKER_TLS_VERIFY", "1");
    let output = docker.with("DOCKER_CERT_PATH", certificates.to_str().expect("a path of text")).run(line);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// A configuration with the daemon's own socket, `more`, and TLS by the files of a directory.
fn with_tls(host: &Host, certificates: &Path, more: &str) -> String {
    let (socket, certificates) = (host.socket(), certificates.display());
    let socket = socket.display();
    format!(
        r#"{{"hosts": ["unix://{socket}", "tcp://127.0.0.1"], {more} "tlscacert": "{certificates}/ca.pem",
             "tlscert": "{certificates}/cert.pem", "tlskey": "{certificates}/key.pem"}}"#
    )
}

#[test]
fn t22_tls_asks_for_certificates() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (daemon, client) = (ours.daemon(), ours.client(&ours));
    let host = Host::new();
    host.configure(&with_tls(&host, daemon.path(), r#""tls": true, "group": "4242","#));
    host.start(&[]);

    let names = docker(&host, client.path(), "network ls --format {{.Name}}");
    assert_eq!(names.unwrap(), "bridge\nhost\nnone\n");
    let error = docker(&host, ours.stranger().path(), "network ls").unwrap_err();
    assert!(error.contains("remote error: tls: certificate required"), "{error}");
    let error = docker(&host, theirs.client(&ours).path(), "network ls").unwrap_err();
    // The daemon says whose certificates it takes, so the client does not show the one that it has.
    assert!(error.contains("remote error: tls: certificate required"), "{error}");
    let error = docker(&host, ours.client(&theirs).path(), "network ls").unwrap_err();
    assert!(error.contains("x509: certificate signed by unknown authority"), "{error}");
    assert_eq!(
        host.docker_at("tcp://127.0.0.1:2376").fails("network ls"),
        "Error response from daemon: Client sent an HTTP request to an HTTPS server."
    );

    let socket = fs::metadata(host.socket()).unwrap();
    assert_eq!((socket.permissions().mode() & 0o7777, socket.uid(), socket.gid()), (0o660, 0, 4242));
    assert!(!host.log().contains("ASKS NOBODY"), "{}", host.log());
}

#[test]
fn t22_a_socket_in_the_clear_is_no_socket_of_tls() {
    let authority = Authority::new();
    let host = Host::new();
    host.configure(&format!(
        r#"{{"hosts": ["unix://{}", "tcp://127.0.0.1:2376"]}}"#,
        host.socket().display()
    ));
    host.start(&[]);
    let error = docker(&host, authority.client(&authority).path(), "network ls").unwrap_err();
    assert!(error.contains("tls: first record does not look like a TLS handshake"), "{error}");
    assert_eq!(host.docker_at("tcp://127.0.0.1:2376").ok("network ls -q").lines().count(), 3);
    assert!(!host.log().contains("IN THE CLEAR"), "the loopback is nobody else's: {}", host.log());
}

#[test]
fn a_socket_that_asks_nobody_is_warned_of() {
    let authority = Authority::new();
    let daemon = authority.daemon();
    let host = Host::new();
    let unix = format!("unix://{}", host.socket().display());
    host.start(&["--host", &unix, "--host", "tcp://0.0.0.0", "--tls=false"]);
    assert!(host.log().contains("THE API AT tcp://0.0.0.0:2375 IS IN THE CLEAR"), "{}", host.log());
    assert!(!host.log().contains("goes on in"), "{}", host.log());
    host.stop();

    let file = |name: &str| daemon.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let tls = ["--tlsverify=false", "--tlscert", &cert, "--tlskey", &key];
    host.start(&[&["--host", &unix, "--host", "tcp://0.0.0.0"], &tls[..]].concat());
    assert!(host.log().contains("THE API AT tcp://0.0.0.0:2376 ASKS NOBODY"), "{}", host.log());
    let names = docker(&host, authority.stranger().path(), "network ls --format {{.Name}}").unwrap();
    assert_eq!(names, "bridge\nhost\nnone\n", "no certificate is asked for");
}

#[test]
fn a_start_that_nobody_may_have_meant_can_still_be_stopped() {
    let host = Host::new();
    host.configure("{}");
    let mut command = host.daemon_command(&["--host", "tcp://0.0.0.0"]);
    let mut daemon = Service(command.stderr(Stdio::piped()).spawn().expect("starting netd"));
    let mut lines = BufReader::new(daemon.0.stderr.take().expect("piped")).lines();
    let held_up = lines.by_ref().any(|line| line.expect("a line").contains("the daemon goes on in 15 s"));
    assert!(held_up, "the start is not held up");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.0.wait().expect("waiting for netd").success());
    assert!(!host.ns.ip("link show").contains("netd0"), "nothing was begun");
    assert_eq!(fs::read_dir(host.state_dir()).expect("the state").count(), 1, "the lock alone");
}

#[test]
fn netds_own_command_line_speaks_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (daemon, client, stranger) = (ours.daemon(), ours.client(&ours), ours.stranger());
    let mistaken = ours.client(&theirs);
    let host = Host::new();
    host.configure(&with_tls(&host, daemon.path(), r#""tlsverify": true,"#));
    host.start(&[]);
    let run = |certificates: &Path, arguments: &str| {
        let mut netd = host.client(arguments);
        netd.env("NETD_HOST", "tcp://localhost").env("NETD_CERT_PATH", certificates);
        let output = netd.output().expect("running netd");
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.success(), said)
    };
    for (certificates, arguments, works, says) in [
        (client.path(), "network ls --tlsverify", true, "bridge"),
        (client.path(), "network ls --tls", true, "bridge"),
        (mistaken.path(), "network ls --tls", true, "bridge"),
        (mistaken.path(), "network ls --tlsverify", false, "UnknownIssuer"),
        (stranger.path(), "network ls --tlsverify", false, "CertificateRequired"),
        (
            client.path(),
            "network ls --host tcp://127.0.0.1:2376",
            false,
            "Client sent an HTTP request to an HTTPS server.",
        ),
        (client.path(), "network ls --tlsverify --tlscert /no/such", false, "/no/such"),
    ] {
        let (worked, said) = run(certificates, arguments);
        assert!(worked == works && said.contains(says), "{arguments}: {said}");
    }
    let mut netd = host.client("network ls");
    netd.env("NETD_HOST", "tcp://localhost").env("NETD_CERT_PATH", client.path()).env("NETD_TLS_VERIFY", "1");
    assert!(netd.output().expect("running netd").status.success());
}

#[test]
fn certificates_are_read_again_at_a_hangup() {
    let (old, new) = (Authority::new(), Authority::new());
    let (daemon, next) = (old.daemon(), new.daemon());
    let host = Host::new();
    host.configure(&with_tls(&host, daemon.path(), r#""tlsverify": true,"#));
    host.start(&[]);
    let (old_client, new_client) = (old.client(&old), new.client(&new));
    docker(&host, old_client.path(), "network ls").unwrap();

    // One that is not whole changes nothing.
    fs::write(daemon.path().join("cert.pem"), "nothing of the kind").unwrap();
    host.hang_up();
    until("the bad certificate is told of", || host.log().contains("the configuration stays as it was"));
    docker(&host, old_client.path(), "network ls").unwrap();

    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(next.path().join(name), daemon.path().join(name)).unwrap();
    }
    host.hang_up();
    until("the new certificates are in force", || docker(&host, new_client.path(), "network ls").is_ok());
    docker(&host, old_client.path(), "network ls").unwrap_err();
}

#[test]
fn what_cannot_be_listened_at_stops_the_start() {
    let host = Host::new();
    host.configure("{}");
    for (arguments, says) in [
        (
            vec!["--host", "tcp://:5555/"],
            "invalid bind address (tcp://:5555/): should not contain a path element",
        ),
        (vec!["--host", "tcp://:p"], "invalid port \":p\" after host"),
        (vec!["--host", "gopher://x"], "unsupported proto 'gopher'"),
        (vec!["--host", "fd://"], "no sockets found via socket activation"),
        (vec!["--group", "no-such-group"], "group no-such-group not found"),
        (
            vec!["--host", "tcp://127.0.0.1", "--tlsverify", "--tlscert", "/no/such"],
            "could not load X509 key pair",
        ),
    ] {
        let output = host.daemon_ends(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(says), "{arguments:?}: {said}");
    }
}

/// Connections at TCP that a client began and does not go on with.
fn half_open(host: &Host, count: usize, begin: &[u8]) -> Vec<TcpStream> {
    let connect = || {
        let mut stream = host.ns.enter(|| TcpStream::connect("127.0.0.1:2375")).expect("connecting");
        // The daemon may have closed it to make room before this is sent.
        let _ = stream.write_all(begin);
        stream
    };
    (0..count).map(|_| connect()).collect()
}

#[test]
fn slow_clients_keep_nobody_out() {
    let host = Host::new();
    let unix = format!("unix://{}", host.socket().display());
    host.start(&["--host", &unix, "--host", "tcp://127.0.0.1"]);
    // More than there is room for.
    let _silent = half_open(&host, 200, b"");
    let _head = half_open(&host, 200, b"GET /networks HTTP/1.1\r\nhost: a\r\nx-slow: ");
    let body = b"POST /networks/create HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let _body = half_open(&host, 200, body);
    for server in [unix.as_str(), "tcp://127.0.0.1"] {
        assert_eq!(host.docker_at(server).ok("network ls -q").lines().count(), 3, "{server}");
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let host = Host::new();
    host.start(&[]);
    let json = ("Content-Type", "application/json");
    let answer = host.send("POST", "/networks/create", &[json], &vec![b' '; 2 << 20]);
    assert_eq!((answer.status, &*answer.message()), (413, "request body is larger than 1048576 bytes"));
    let long = "y".repeat(128 << 10);
    assert_eq!(host.send("GET", "/networks", &[("x", &long)], &[]).status, 431);
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    stream.write_all(b"\x16\x03\x01\x00\x00 nonsense\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(host.send("GET", "/networks", &[], &[]).status, 200);
}

/// A daemon that a service manager has started, ended with this.
struct Service(Child);

impl Service {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).expect("signalling netd");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_manager_hands_over_a_socket_and_is_told_how_it_goes() {
    let host = Host::new();
    host.configure("{}");
    let socket = host.ns.enter(|| TcpListener::bind("127.0.0.1:5555")).expect("listening");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let told = UnixDatagram::bind(directory.path().join("notify")).expect("a socket");
    told.set_read_timeout(Some(PATIENCE)).expect("setting a timeout");
    let word = || {
        let mut bytes = [0; 256];
        let length = told.recv(&mut bytes).expect("word of the daemon");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };

    let mut command = host.command("sh");
    let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 0</dev/null";
    command.args(["-c", script, "sh"]).arg(netd_binary());
    command.args(host.daemon_command(&["--host", "fd://"]).get_args());
    command.env("NOTIFY_SOCKET", directory.path().join("notify"));
    command.stdin(Stdio::from(OwnedFd::from(socket))).stderr(Stdio::null());
    let mut service = Service(command.spawn().expect("starting netd"));
    // The kernel takes connections from the start: this one waits until it is served.
    assert_eq!(host.docker_at("tcp://127.0.0.1:5555").ok("network ls -q").lines().count(), 3);
    assert_eq!(word(), "READY=1\n");
    service.signal(Signal::SIGHUP);
    assert!(word().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(word(), "READY=1\n");
    service.signal(Signal::SIGTERM);
    assert_eq!(word(), "STOPPING=1\n");
    assert!(service.0.wait().expect("waiting for netd").success());
}

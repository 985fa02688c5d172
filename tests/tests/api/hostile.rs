//! Clients that are slow, or talk nonsense, or never listen: they get what they deserve, and nobody else notices.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use netd_tests::lab::{Host, http_read};

use crate::daemon;

/// The daemon serves, and is what it was.
fn serves(host: &Host, before: &(String, Option<(u16, String)>)) {
    assert_eq!(host.get("/_ping"), Some((200, "OK".to_owned())));
    assert_eq!(&(host.ns.configuration(), host.get("/networks")), before);
}

/// Numbers that are the same in each run (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn nonsense_is_answered_or_hung_up_on() {
    let host = daemon();
    let before = (host.ns.configuration(), host.get("/networks"));
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    for round in 0..200 {
        let mut bytes: Vec<u8> = match round % 4 {
            0 => Vec::new(),
            1 => b"POST /networks/create HTTP/1.1\r\nHost: netd\r\nContent-Type: application/json\r\nContent-Length: 64\r\n\r\n".to_vec(),
            2 => b"GET /networks/".to_vec(),
            _ => b"DELETE /networks?filters=%7B HTTP/1.1\r\n".to_vec(),
        };
        bytes.extend((0..64).map(|_| noise.next() as u8));
        let mut stream = host.dial();
        // The daemon may have hung up before it has heard all.
        let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        if !answer.is_empty() {
            let answer = http_read(&String::from_utf8_lossy(&answer)).expect("an answer, if any");
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    serves(&host, &before);
}

#[test]
fn heads_without_end_and_bodies_without_end_are_cut_short() {
    let host = daemon();
    let before = (host.ns.configuration(), host.get("/networks"));
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: netd\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /_ping HTTP/1.1\r\nHost: netd\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /_ping HTTP/1.1\r\nHost: netd\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
    ] {
        let mut stream = host.dial();
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text:.200}");
    }
    // A body in chunks does not say how long it is.
    let mut stream = host.dial();
    let head = "POST /networks/create HTTP/1.1\r\nHost: netd\r\nConnection: close\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("sending");
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..64 {
        if stream.write_all(chunk.as_bytes()).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    serves(&host, &before);
}

#[test]
fn slow_clients_hold_nobody_up() {
    let host = daemon();
    let before = (host.ns.configuration(), host.get("/networks"));
    let slow: Vec<_> = (0..200)
        .map(|number| {
            let mut stream = host.dial();
            let begun: &[u8] = if number % 2 == 0 {
                b"GET /netw"
            } else {
                b"POST /networks/create HTTP/1.1\r\nHost: netd\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            };
            stream.write_all(begun).expect("sending");
            stream
        })
        .collect();
    serves(&host, &before);
    assert_eq!(host.docker().ok("network ls -q").lines().count(), 3);
    drop(slow);
    serves(&host, &before);
}

/// Reads lines until one has `text`.
fn await_line(reader: &mut BufReader<UnixStream>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(reader.read_line(&mut line).expect("a line"), 0, "{text} never came");
    }
}

#[test]
fn who_never_reads_events_is_cut_off_and_holds_nobody_up() {
    /// More than a socket's buffers, the server's own and the daemon's memory of events hold.
    const EVENTS: usize = 3_000;
    let host = daemon();
    let listen = || {
        let mut stream = host.dial();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: netd\r\n\r\n").expect("sending");
        let mut reader = BufReader::new(stream);
        await_line(&mut reader, "application/json");
        reader
    };
    let mut deaf = listen();
    let mut alert = listen();
    let mut stream = BufReader::new(host.dial());
    for _ in 0..EVENTS {
        let request = b"POST /containers/prune HTTP/1.1\r\nHost: netd\r\nContent-Length: 0\r\n\r\n";
        stream.get_mut().write_all(request).expect("sending");
        await_line(&mut stream, "\"SpaceReclaimed\"");
        await_line(&mut alert, "\"prune\"");
    }
    // What is left of the stream of him who did not read ends, though nothing in his request says so: with its last chunk,
    // after which the connection waits for another request, or because the daemon hung up.
    let (mut heard, mut line) = (0, String::new());
    while line != "0\r\n" {
        line.clear();
        match deaf.read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => heard += line.matches("\"prune\"").count(),
        }
    }
    assert!(heard < EVENTS, "{heard}");
    assert_eq!(host.get("/_ping"), Some((200, "OK".to_owned())));
}

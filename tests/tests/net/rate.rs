//! Bandwidth of endpoints, in each direction and on each way.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netd_tests::lab::{Container, Family, Lab, Namespace, at, bound, connect, udp};
use socket2::SockRef;

/// What may go at once has gone by then.
const SETTLE: Duration = Duration::from_millis(400);
const TIME: Duration = Duration::from_millis(1500);
/// No such time may bring more than the limit; that it can be reached shows in the first in which the machine leaves the sender alone.
const WINDOWS: usize = 10;
/// Of the limit.
const LEAST: f64 = 0.95;

/// A packet, and the frame that it makes.
const MTU: usize = 1500;
const FRAME: usize = MTU + 14;

/// Bytes of a full packet that are payload; TCP has its timestamps.
const fn payload(family: Family, transport: usize) -> usize {
    MTU - transport - if matches!(family, Family::V4) { 20 } else { 40 }
}

/// A container with its limits, in Mbit/s.
fn limited(lab: &Lab, role: &str, ingress: u32, egress: u32) -> Container {
    let ns = Namespace::new(role);
    let options =
        format!("--driver-opt netd.rate.ingress={ingress}mbit --driver-opt netd.rate.egress={egress}mbit");
    lab.host.netd(&format!("network connect {options} dual netns:{}", ns.name()));
    Container::of(ns)
}

/// Who sends to whom, and the limit on the way in Mbit/s.
struct Flow<'a> {
    way: &'static str,
    from: &'a Namespace,
    to: &'a Namespace,
    address: SocketAddr,
    limit: u32,
}

#[derive(Clone, Copy, Debug)]
enum Protocol {
    Tcp,
    Udp,
}

impl Flow<'_> {
    /// The part of the limit that its frames take.
    fn part(&self, protocol: Protocol) -> f64 {
        match protocol {
            Protocol::Tcp => self.tcp(),
            Protocol::Udp => self.udp(),
        }
    }

    fn family(&self) -> Family {
        if self.address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// One stream.
    fn tcp(&self) -> f64 {
        let listener = bound(self.to, self.family().any(self.address.port()), TcpListener::bind);
        let mut near = connect(self.from, 0, self.address).unwrap_or_else(|e| panic!("{}: {e}", self.way));
        let (mut far, _) = listener.accept().expect("a connection");
        far.set_nonblocking(true).expect("a socket's mode");
        // Its end is that of the other side.
        let sender = thread::spawn(move || while near.write_all(&[0; 65536]).is_ok() {});
        let mut buffer = vec![0; 65536];
        let segment = payload(self.family(), 32);
        let part = self.measure(|| Some(far.read(&mut buffer).ok()? as f64 / segment as f64));
        drop(far);
        sender.join().expect("no panic in the sender");
        part
    }

    /// Datagrams, twice as fast as the limit.
    fn udp(&self) -> f64 {
        let receiver = udp(self.to, self.family(), self.address.port());
        receiver.set_nonblocking(true).expect("a socket's mode");
        SockRef::from(&receiver).set_recv_buffer_size(4 << 20).expect("a socket's buffer");
        let sender = udp(self.from, self.family(), 0);
        SockRef::from(&sender).set_send_buffer_size(4 << 20).expect("a socket's buffer");
        let (address, size) = (self.address, payload(self.family(), 8));
        let rate = f64::from(self.limit) * 2e6 / 8.0;
        let done = Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let sender = thread::spawn(move || {
            let (begun, mut sent) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                if sent as f64 > begun.elapsed().as_secs_f64() * rate {
                    thread::sleep(Duration::from_micros(500));
                    continue;
                }
                // What the limit drops is no error of the sender's.
                let _ = sender.send_to(&vec![0; size], address);
                sent += FRAME;
            }
        });
        let mut buffer = [0; MTU];
        let part = self.measure(|| receiver.recv(&mut buffer).ok().map(|_| 1.0));
        done.store(true, Ordering::Relaxed);
        sender.join().expect("no panic in the sender");
        part
    }

    /// What comes in a time, at whose beginning and end nothing waits to be read. `read` returns frames, or none if none is there.
    fn measure(&self, mut read: impl FnMut() -> Option<f64>) -> f64 {
        let mut come = |time: Duration| {
            let (begun, mut frames) = (Instant::now(), 0.0);
            while begun.elapsed() < time {
                thread::sleep(Duration::from_millis(1));
                while let Some(more) = read() {
                    frames += more;
                }
            }
            (frames, begun.elapsed())
        };
        come(SETTLE);
        let mut part = 0.0;
        for _ in 0..WINDOWS {
            let (frames, time) = come(TIME);
            part = frames * (FRAME * 8) as f64 / time.as_secs_f64() / (f64::from(self.limit) * 1e6);
            if part >= LEAST {
                break;
            }
        }
        part
    }
}

fn assert_held(what: &str, part: f64) {
    assert!((LEAST..=1.05).contains(&part), "{what}: {part:.3} of the limit");
}

/// Frames that the programs dropped for a limit.
fn dropped(lab: &Lab) -> u64 {
    let metrics = lab.host.metrics();
    let line =
        metrics.lines().find(|line| line.contains("reason=\"rate\"")).expect("a metric of each reason");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// The root queue of each link of a namespace.
fn queues(ns: &Namespace) -> String {
    let output = ns.command("tc").args(["qdisc", "show"]).output().expect("tc");
    String::from_utf8(output.stdout).expect("tc's output")
}

fn remove_queue(ns: &Namespace, link: &str) {
    let status = ns.command("tc").args(["qdisc", "del", "dev", link, "root"]).status().expect("tc");
    assert!(status.success(), "{link} has no queue");
}

/// Five limited containers, each with a flow of its own, all at the same time, over both families.
fn assert_all_ways(lab: &Lab, protocol: Protocol, ingress: u32, egress: u32, published: u16) {
    let free = lab.container("free");
    let slow: Vec<_> = (0..5).map(|n| limited(lab, &format!("slow{n}"), ingress, egress)).collect();
    let name = format!("{protocol:?}").to_lowercase();
    lab.host.netd(&format!("publish netns:{} {published}:{published}/{name}", slow[4].ns.name()));
    for family in Family::BOTH {
        let (out, own) = (at(free.address(family), 5000), |n: usize| at(slow[n].address(family), 5003));
        let (outside, published) = (at(family.outside(), 5002), at(family.host(), published));
        let flow = |way, from, to, address, limit| Flow { way, from, to, address, limit };
        let flows = [
            flow("to a neighbour", &slow[0].ns, &free.ns, out, egress),
            flow("from a neighbour", &free.ns, &slow[1].ns, own(1), ingress),
            flow("to the outside", &slow[2].ns, &lab.outside, outside, egress),
            flow("from the host", &lab.host.ns, &slow[3].ns, own(3), ingress),
            flow("from the outside", &lab.outside, &slow[4].ns, published, ingress),
        ];
        thread::scope(|scope| {
            let measured = flows.each_ref().map(|flow| scope.spawn(move || (flow.way, flow.part(protocol))));
            for measured in measured {
                let (way, part) = measured.join().expect("a measurement");
                assert_held(&format!("{protocol:?} over {family:?} {way}"), part);
            }
        });
    }
    assert_eq!(dropped(lab), 0, "who keeps to the rate is not dropped for it");
}

#[test]
fn streams_keep_to_the_rates_and_use_them() {
    assert_all_ways(&Lab::new(), Protocol::Tcp, 60, 100, 5004);
}

/// Slower than streams: what datagrams there are waits in few buffers, and they must last while a busy machine lets nobody
/// send or read.
#[test]
fn datagrams_keep_to_the_rates_and_use_them() {
    assert_all_ways(&Lab::new(), Protocol::Udp, 10, 15, 5004);
}

#[test]
fn a_container_that_takes_its_queue_away_is_held_to_its_rate() {
    let lab = Lab::new();
    let (slow, free) = (limited(&lab, "slow", 100, 20), lab.container("free"));
    remove_queue(&slow.ns, "eth0");
    let address = at(free.address(Family::V4), 5001);
    let flow = Flow { way: "without a queue", from: &slow.ns, to: &free.ns, address, limit: 20 };
    assert_held(flow.way, flow.udp());
    assert!(dropped(&lab) > 0);
}

#[test]
fn limits_outlive_the_daemon_and_go_with_the_endpoint() {
    let lab = Lab::new();
    let (slow, free) = (limited(&lab, "slow", 20, 40), lab.container("free"));
    let limited_link = || {
        let queues = queues(&lab.host.ns);
        let mut limited = queues.lines().filter(|line| line.starts_with("qdisc tbf"));
        limited.next().map(|line| line.split(' ').nth(4).expect("a link's name").to_owned())
    };
    let veth = limited_link().expect("a queue towards the container");
    let into = Flow {
        way: "without a daemon",
        from: &free.ns,
        to: &slow.ns,
        address: at(slow.address(Family::V4), 5001),
        limit: 20,
    };
    lab.host.kill();
    assert_held(into.way, into.udp());
    // What is missing is put back, at either end.
    remove_queue(&lab.host.ns, &veth);
    remove_queue(&slow.ns, "eth0");
    lab.host.start(&[]);
    assert_held("with the next daemon", into.udp());
    let own = queues(&slow.ns);
    assert!(own.contains("qdisc tbf") && own.contains("rate 40Mbit"), "{own}");
    lab.host.netd(&format!("network disconnect dual netns:{}", slow.ns.name()));
    let again = lab.container("again");
    assert_eq!((limited_link(), queues(&again.ns).contains("tbf")), (None, false));
    let address = at(again.address(Family::V4), 5001);
    // Far more is sent than must come: on a busy machine neither end has its whole time.
    let more = 4;
    let part = Flow { to: &again.ns, address, limit: more * into.limit, ..into }.udp() * f64::from(more);
    assert!(part > 1.5, "the next endpoint is as free as any: {part}");
}

#[test]
fn bad_rates_are_refused() {
    let lab = Lab::new();
    let ns = Namespace::new("a");
    for (option, complaint) in [
        ("netd.rate.ingress=fast", "failed to parse netd.rate.ingress value: fast"),
        ("netd.rate.egress_burst=1mbit", "option netd.rate.egress_burst needs netd.rate.egress"),
        ("netd.rate.up=1mbit", "unknown option netd.rate.up"),
    ] {
        let connect = format!("network connect --driver-opt {option} dual netns:{}", ns.name());
        let error = lab.host.netd_fails(&connect);
        assert!(error.contains(complaint), "{error}");
    }
}

//! What it takes to attach containers, as a runtime does by CNI, with a published port each: netd, and the reference plugins
//! bridge, host-local and portmap.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::{Cni, Host, Lab, Losses, Namespace, UdpEcho, UdpStream, at};

/// Calls of one verb, in their order.
pub struct Calls {
    /// `ADD` or `DEL`.
    pub verb: &'static str,
    /// Who was called, and among how many.
    pub plugin: String,
    /// How long each took.
    pub times: Vec<Duration>,
}

/// A host full of endpoints.
pub struct Crowd {
    /// How many.
    pub endpoints: usize,
    /// The daemon's resident memory with them, in bytes.
    pub memory: u64,
    /// From the start of the next daemon, the last one killed, until it answers.
    pub restart: Duration,
    /// Datagrams between two of them that were lost meanwhile.
    pub lost: u64,
    /// And how many there were.
    pub sent: u64,
}

/// Attaches `count` containers to a network of each, in turn, and takes them off again; and, before that, as many more as make
/// `crowd` to netd's alone, of which the last `count` are timed.
pub fn attachments(count: usize, crowd: usize) -> (Vec<Calls>, Crowd) {
    let (lab, wired) = (Lab::new(), Lab::wired());
    let netd = Cni::new(&lab.host, network("netd"));
    let reference = Reference::new(&wired.host);
    let namespaces = |host: &str| (0..count).map(|_| Namespace::new(host)).collect::<Vec<_>>();
    let (ours, theirs) = (namespaces("ours"), namespaces("theirs"));
    let mut times = [const { Vec::new() }; 6];
    let mut last = Value::Null;
    for (index, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        times[0].push(timed(|| last = mapped(&netd, index).add(our.name(), our)));
        times[1].push(timed(|| reference.add(index, their)));
    }
    let more: Vec<_> = (count..crowd).map(|_| Namespace::new("more")).collect();
    let full = more.len().saturating_sub(count);
    for (index, ns) in more.iter().enumerate() {
        let call = timed(|| drop(mapped(&netd, count + index).add(ns.name(), ns)));
        if index >= full {
            times[4].push(call);
        }
    }
    let address = last["ips"][0]["address"].as_str().and_then(|net| net.split_once('/'));
    let address: IpAddr = address.expect("CIDR").0.parse().expect("an address");
    let observed = observe(&lab, crowd, &ours[0], &ours[count - 1], address);
    for (index, ns) in more.iter().enumerate().rev() {
        let call = timed(|| mapped(&netd, count + index).del(ns.name(), Some(ns)));
        if index >= full {
            times[5].push(call);
        }
    }
    for (index, (our, their)) in ours.iter().zip(&theirs).enumerate() {
        times[2].push(timed(|| mapped(&netd, index).del(our.name(), Some(our))));
        times[3].push(timed(|| reference.del(index, their)));
    }
    let full = format!("netd, the last of {crowd}");
    let [ours, theirs] = ["netd", "reference"].map(str::to_owned);
    let names = [
        ("ADD", ours.clone()),
        ("ADD", theirs.clone()),
        ("DEL", ours),
        ("DEL", theirs),
        ("ADD", full.clone()),
        ("DEL", full),
    ];
    let calls = names.into_iter().zip(times);
    (calls.map(|((verb, plugin), times)| Calls { verb, plugin, times }).collect(), observed)
}

/// Kills the daemon under a stream between two of its endpoints, and starts the next.
fn observe(lab: &Lab, endpoints: usize, from: &Namespace, to: &Namespace, address: IpAddr) -> Crowd {
    let memory = lab.host.resident();
    let echo = UdpEcho::new(to, at(address, 5001));
    let stream = UdpStream::start(from, echo.address);
    stream.run_on(1000);
    lab.host.kill();
    let restart = timed(|| lab.host.start(&[]));
    stream.run_on(1000);
    let Losses { sent, lost } = stream.stop();
    Crowd { endpoints, memory, restart, lost, sent }
}

fn network(kind: &str) -> Value {
    let ranges = json!([[{"subnet": "10.50.0.0/16"}]]);
    json!({"cniVersion": "1.0.0", "name": "bench", "isGateway": true, "ipMasq": true,
        "ipam": {"type": kind, "ranges": ranges}})
}

fn ports(index: usize) -> Value {
    json!({"portMappings": [{"hostPort": 20_000 + index, "containerPort": 80, "protocol": "tcp"}]})
}

fn mapped<'a>(plugin: &Cni<'a>, index: usize) -> Cni<'a> {
    plugin.with(json!({"runtimeConfig": ports(index)}))
}

/// The chain of reference plugins.
struct Reference<'a> {
    bridge: Cni<'a>,
    portmap: Cni<'a>,
}

impl<'a> Reference<'a> {
    fn new(host: &'a Host) -> Self {
        let mut config = network("host-local");
        config["bridge"] = "cni0".into();
        config["ipam"]["dataDir"] = host.run_dir().join("leases").to_str().expect("UTF-8").into();
        config["type"] = "bridge".into();
        let portmap = json!({"cniVersion": "1.0.0", "name": "bench", "type": "portmap"});
        Self {
            bridge: Cni::reference(host, "bridge", config),
            portmap: Cni::reference(host, "portmap", portmap),
        }
    }

    fn add(&self, index: usize, ns: &Namespace) {
        let result = self.bridge.add(ns.name(), ns);
        self.portmap.with(json!({"runtimeConfig": ports(index), "prevResult": result})).add(ns.name(), ns);
    }

    fn del(&self, index: usize, ns: &Namespace) {
        self.portmap.with(json!({"runtimeConfig": ports(index)})).del(ns.name(), Some(ns));
        self.bridge.del(ns.name(), Some(ns));
    }
}

fn timed(action: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    action();
    begun.elapsed()
}

//! The floor: the ways that netd's packets take, with programs of four instructions that redirect whatever comes. What this
//! is slower than a direct pair is the way itself, two devices more and the kernel's redirect; no program can win it back.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::net::if_::if_nametoindex;

use super::{Ends, Route, Setup};
use crate::lab::{Container, Family, Namespace};

/// The kernel's numbers of the helpers that redirect: to a device, and to the far end of a veth.
const REDIRECT: u8 = 23;
const REDIRECT_PEER: u8 = 155;

/// Two namespaces, and a host between them whose programs put into one what comes from the other.
struct Wire {
    _host: Namespace,
    client: Container,
    server: Container,
    /// The programs go with them.
    _links: [OwnedFd; 2],
}

impl Wire {
    /// `there` and `back` are the helpers that take a packet to the server and to the client.
    fn new(there: u8, back: u8) -> Self {
        let (host, client, server) =
            (Namespace::new("host"), Namespace::new("client"), Namespace::new("server"));
        let ends = [(&client, "client", 1), (&server, "server", 2)];
        for (ns, port, address) in ends {
            ns.ip(&format!("link add eth0 type veth peer name {port} netns {}", host.name()));
            ns.ip(&format!("address add 10.8.0.{address}/24 dev eth0"));
            ns.ip(&format!("address add fd00:8::{address}/64 dev eth0 nodad"));
            ns.ip("link set eth0 up");
            host.ip(&format!("link set {port} up"));
        }
        let links = host.enter(|| [redirect("client", "server", there), redirect("server", "client", back)]);
        for (ns, port, _) in ends {
            ns.await_carrier("eth0");
            host.await_carrier(port);
        }
        Self { _host: host, client: Container::of(client), server: Container::of(server), _links: links }
    }
}

/// Redirects all that comes in by an interface of the calling thread's namespace to another, by a helper.
fn redirect(from: &str, to: &str, helper: u8) -> OwnedFd {
    let index = |name: &str| if_nametoindex(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    attach(index(from), &load(index(to), helper))
}

/// `return helper(to, 0)`.
fn load(to: u32, helper: u8) -> OwnedFd {
    // Operation, registers, offset and immediate of each instruction, as the kernel lays them out.
    let program: [u64; 4] = [
        0x01b7 | u64::from(to) << 32,     // r1 = to
        0x02b7,                           // r2 = 0
        0x0085 | u64::from(helper) << 32, // call helper
        0x0095,                           // exit
    ];
    let order = Load {
        program_type: 3, // BPF_PROG_TYPE_SCHED_CLS
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        licence: c"GPL".as_ptr() as u64,
    };
    const BPF_PROG_LOAD: i32 = 5;
    bpf(BPF_PROG_LOAD, &order)
}

fn attach(interface: u32, program: &OwnedFd) -> OwnedFd {
    const BPF_LINK_CREATE: i32 = 28;
    const BPF_TCX_INGRESS: u32 = 46;
    let program = program.as_raw_fd() as u32;
    bpf(BPF_LINK_CREATE, &Attach { program, interface, kind: BPF_TCX_INGRESS, flags: 0 })
}

/// The beginning of what BPF_PROG_LOAD is told; the kernel takes the rest for zeroes.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    licence: u64,
}

/// The beginning of what BPF_LINK_CREATE is told.
#[repr(C)]
struct Attach {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
}

/// A bpf(2) command that returns a descriptor.
fn bpf<T>(command: i32, order: &T) -> OwnedFd {
    // SAFETY: the kernel reads the order, of the size that it is told, and what it points to, which outlives the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *order, size_of::<T>()) };
    assert!(descriptor >= 0, "bpf(2) command {command}: {}", io::Error::last_os_error());
    // SAFETY: a descriptor that is nobody else's yet.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// A redirect and nothing else, on the ways of the routes through the host.
pub struct Floor {
    bridge: Wire,
    masquerade: Wire,
    published: Wire,
}

impl Floor {
    /// Makes the wires.
    pub fn new() -> Self {
        Self {
            bridge: Wire::new(REDIRECT_PEER, REDIRECT_PEER),
            masquerade: Wire::new(REDIRECT, REDIRECT_PEER),
            published: Wire::new(REDIRECT_PEER, REDIRECT),
        }
    }
}

impl Default for Floor {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup for Floor {
    fn name(&self) -> &'static str {
        "redirect alone"
    }

    fn routes(&self) -> &'static [Option<Route>] {
        super::setup::ROUTES
    }

    fn ends(&self, family: Family, route: Option<Route>) -> Ends<'_> {
        let wire = match route {
            Some(Route::Masquerade) => &self.masquerade,
            Some(Route::Published) => &self.published,
            _ => &self.bridge,
        };
        Ends::plain(&wire.client.ns, &wire.server.ns, wire.server.address(family))
    }
}

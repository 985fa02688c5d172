//! A lab of namespaces in which netd can be watched at work: an outside host, a host that runs netd, two containers.
//!
//! Nothing of it touches this machine's own network, and all of it is removed at the end, after Ctrl-C as well.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netd_tests::lab::{DUAL, Family, Lab, Ping, UdpEcho, UdpStream, at, ping, transfer};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// How long the datagrams flow.
const WATCH: Duration = Duration::from_secs(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupted(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn main() {
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { sigaction(signal, &action) }.expect("a signal handler");
    }
    // From here on a signal ends the demo at the next step, and the lab with it.
    if show().is_none() {
        eprintln!("\ninterrupted");
    }
    eprintln!("the lab is removed");
}

/// `None` once a signal has come.
fn go_on() -> Option<()> {
    (!INTERRUPTED.load(Ordering::Relaxed)).then_some(())
}

fn title(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

fn command(lab: &Lab, arguments: &str) {
    println!("$ netd {arguments}\n{}", lab.host.netd(arguments).trim_end());
}

fn show() -> Option<()> {
    title("A host that runs netd, with an uplink to the outside; two containers on its network");
    let lab = Lab::new();
    go_on()?;
    let (a, b) = (lab.container("a"), lab.container("b"));
    command(&lab, "network ls");
    command(&lab, &format!("network inspect {DUAL}"));
    command(&lab, "fdb ls");
    go_on()?;

    title("From container to container, past the kernel's bridge");
    for family in Family::BOTH {
        let to = b.address(family);
        println!("ping {to}: {}", if ping(&a.ns, to, Ping::default()) { "answered" } else { "no answer" });
    }
    go_on()?;
    timed(500, || transfer(&a.ns, &b.ns, at(b.ipv4, 5001), 500_000_000));

    title("From a container to the outside, which sees the host's address");
    for family in Family::BOTH {
        go_on()?;
        let echo = UdpEcho::new(&lab.outside, at(family.outside(), 5300));
        let stream = UdpStream::start(&a.ns, echo.address);
        stream.run_on(1);
        println!("{} > {}, seen there as {}", a.address(family), echo.address, echo.peers()[0]);
    }
    go_on()?;
    timed(500, || transfer(&a.ns, &lab.outside, at(Family::V4.outside(), 5001), 500_000_000));

    title("The NAT table, while datagrams flow");
    let echoes = Family::BOTH.map(|family| UdpEcho::new(&lab.outside, at(family.outside(), 5301)));
    let streams = echoes.each_ref().map(|echo| UdpStream::start(&a.ns, echo.address));
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        command(&lab, "nat ls");
        // As often as a reader can follow.
        thread::sleep(Duration::from_secs(1));
        go_on()?;
    }

    title("The daemon is killed, and started again; the datagrams flow on");
    lab.host.kill();
    streams.iter().for_each(|stream| stream.run_on(10_000));
    go_on()?;
    lab.host.start(&[]);
    streams.iter().for_each(|stream| stream.run_on(10_000));
    for stream in streams {
        let losses = stream.stop();
        println!("{} datagrams sent, {} lost", losses.sent, losses.lost);
    }
    command(&lab, "stats");
    go_on()
}

/// Runs a transfer of so many megabytes each way.
fn timed(megabytes: u32, transfer: impl FnOnce()) {
    let start = Instant::now();
    transfer();
    let seconds = start.elapsed().as_secs_f64();
    println!("{megabytes} MB each way over TCP in {seconds:.2} s, compared byte by byte");
}

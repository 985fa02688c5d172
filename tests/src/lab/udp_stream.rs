//! A stream of numbered datagrams to an echo server, which counts what does not come back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Family, Namespace};

/// Datagrams under way at a time: far below what any queue on the way holds, so that none is lost for want of room.
const WINDOW: u64 = 32;
/// After this long without an answer, what is under way is lost.
const SILENCE: Duration = Duration::from_secs(1);

/// What became of a stream's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that never came back.
    pub lost: u64,
}

/// A running stream, as fast as its answers come back.
pub struct UdpStream {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<Losses>>,
}

impl UdpStream {
    /// Starts to send from a namespace to a `UdpEcho`.
    pub fn start(from: &Namespace, to: SocketAddr) -> Self {
        let any = if to.is_ipv4() { Family::V4 } else { Family::V6 }.any(0);
        let socket = from.enter(|| UdpSocket::bind(any)).expect("a UDP socket");
        socket.connect(to).and_then(|()| socket.set_read_timeout(Some(SILENCE))).expect("a connected socket");
        let (stop, answered, lost) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let thread = thread::spawn({
            let (stop, answered, lost) = (stop.clone(), answered.clone(), lost.clone());
            move || run(&socket, &stop, &answered, &lost)
        });
        Self { stop, answered, lost, thread }
    }

    /// Datagrams that have come back so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Datagrams given up so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until `more` datagrams have come back from now on.
    pub fn run_on(&self, more: u64) {
        let goal = self.answered() + more;
        super::until(&format!("{more} more datagrams"), || self.answered() >= goal);
    }

    /// Ends the stream and counts.
    pub fn stop(self) -> Losses {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .expect("no panic in the stream")
            .unwrap_or_else(|e| panic!("a datagram stream: {e}"))
    }
}

fn run(socket: &UdpSocket, stop: &AtomicBool, answered: &AtomicU64, lost: &AtomicU64) -> io::Result<Losses> {
    let mut losses = Losses::default();
    // Datagrams answered or given up, and the number of the first that was not given up.
    let (mut settled, mut first, mut number) = (0, 0, [0; 8]);
    loop {
        while !stop.load(Ordering::Relaxed) && losses.sent - settled < WINDOW {
            socket.send(&losses.sent.to_be_bytes())?;
            losses.sent += 1;
        }
        if settled == losses.sent {
            return Ok(losses);
        }
        match socket.recv(&mut number) {
            Ok(_) if u64::from_be_bytes(number) < first => {}
            Ok(_) => {
                settled += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                losses.lost += losses.sent - settled;
                lost.store(losses.lost, Ordering::Relaxed);
                (settled, first) = (losses.sent, losses.sent);
            }
            Err(e) => return Err(e),
        }
    }
}

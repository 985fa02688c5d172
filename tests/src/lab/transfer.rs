//! Servers that say who spoke to them, and streams compared byte by byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Namespace, PATIENCE, socket::bound};

/// How often a server looks whether it shall end.
const TICK: Duration = Duration::from_millis(20);

/// Sends each datagram back to where it came from.
pub struct UdpEcho {
    /// Where it listens.
    pub address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Serves an address in a namespace.
    pub fn new(ns: &Namespace, address: SocketAddr) -> Self {
        let socket = bound(ns, address, UdpSocket::bind);
        socket.set_read_timeout(Some(TICK)).expect("a socket's timeout");
        let address = socket.local_addr().expect("a bound socket");
        let (peers, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (seen, stopped) = (peers.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !stopped.load(Ordering::Relaxed) {
                // Errors are timeouts, and the ICMP errors that a test provokes.
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                seen.lock().expect("no panic beside").push(peer);
                let _ = socket.send_to(&buffer[..length], peer);
            }
        });
        Self { address, peers, stop, thread: Some(thread) }
    }

    /// Who has spoken to it, once for each datagram.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().expect("no panic beside").clone()
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Sends back what each connection sends, until its end.
pub struct TcpEcho {
    /// Where it listens.
    pub address: SocketAddr,
    peers: Arc<Mutex<Vec<SocketAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpEcho {
    /// Serves an address in a namespace.
    pub fn new(ns: &Namespace, address: SocketAddr) -> Self {
        let listener = bound(ns, address, TcpListener::bind);
        listener.set_nonblocking(true).expect("a socket's mode");
        let address = listener.local_addr().expect("a bound socket");
        let (peers, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (seen, stopped) = (peers.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((stream, peer)) = listener.accept() else {
                    thread::sleep(TICK);
                    continue;
                };
                seen.lock().expect("no panic beside").push(peer);
                thread::spawn(move || echo(stream));
            }
        });
        Self { address, peers, stop, thread: Some(thread) }
    }

    /// Who has connected to it.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.peers.lock().expect("no panic beside").clone()
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 65536];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Opens one connection, sends `bytes` each way at the same time, and compares what arrives byte by byte.
/// Panics if it differs, or if nothing moves for [`PATIENCE`].
pub fn transfer(client: &Namespace, server: &Namespace, address: SocketAddr, bytes: usize) {
    let listener = bound(server, address, TcpListener::bind);
    let connect = || TcpStream::connect_timeout(&address, PATIENCE);
    let near = client.enter(connect).unwrap_or_else(|e| panic!("connecting to {address}: {e}"));
    let (far, _) = listener.accept().expect("a connection");
    let chunks = bytes.div_ceil(CHUNK) as u64;
    thread::scope(|scope| {
        for (stream, salt_out, salt_in) in [(&near, 1, 2), (&far, 2, 1)] {
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket's timeout");
            stream.set_write_timeout(Some(PATIENCE)).expect("a socket's timeout");
            scope.spawn(move || send(stream, chunks, salt_out).unwrap_or_else(|e| panic!("sending: {e}")));
            scope.spawn(move || compare(stream, chunks, salt_in));
        }
    });
}

const CHUNK: usize = 64 * 1024;

/// Chunk `number` of a stream that repeats nowhere: noise from a moving offset, and the number itself.
fn chunk(number: u64, salt: u64, into: &mut [u8; CHUNK]) {
    const PERIOD: usize = 4093;
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let draw = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        std::iter::repeat_with(draw).take(CHUNK + PERIOD).collect()
    });
    let offset = (number.wrapping_mul(31).wrapping_add(salt) % PERIOD as u64) as usize;
    into.copy_from_slice(&NOISE[offset..offset + CHUNK]);
    into[..8].copy_from_slice(&number.to_be_bytes());
}

fn send(mut stream: &TcpStream, chunks: u64, salt: u64) -> io::Result<()> {
    let mut buffer = Box::new([0; CHUNK]);
    for number in 0..chunks {
        chunk(number, salt, &mut buffer);
        stream.write_all(&buffer[..])?;
    }
    stream.shutdown(Shutdown::Write)
}

fn compare(mut stream: &TcpStream, chunks: u64, salt: u64) {
    let (mut expected, mut received) = (Box::new([0; CHUNK]), Box::new([0; CHUNK]));
    for number in 0..chunks {
        chunk(number, salt, &mut expected);
        stream
            .read_exact(&mut received[..])
            .unwrap_or_else(|e| panic!("receiving chunk {number} of {chunks}: {e}"));
        if received != expected {
            let differs = received.iter().zip(expected.iter()).position(|(a, b)| a != b);
            panic!("byte {differs:?} of chunk {number} is not what was sent");
        }
    }
    let end = stream.read(&mut received[..]).unwrap_or_else(|e| panic!("receiving the end: {e}"));
    assert_eq!(end, 0, "bytes after the end of the stream");
}

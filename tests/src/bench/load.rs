//! The loads. Client and server are processes, as real ones are, pinned to one core, in namespaces of their own.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use clap::ValueEnum;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use socket2::SockRef;

use super::Ends;
use crate::lab::{Family, Namespace};

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Load {
    /// One byte there, one byte back, over one TCP connection.
    TcpRequest,
    /// Connect, one byte there, one byte back, close.
    TcpConnect,
    /// One byte there, one byte back, over UDP.
    UdpRequest,
    /// One TCP stream.
    TcpStream,
}

/// A datagram that ends the server, as the end of a connection does.
const END: &[u8] = b"end";
/// Runs before the clock does.
const WARM_UP: Duration = Duration::from_millis(100);
/// After this much longer than it should take, a load has stalled.
const STALLED: Duration = Duration::from_secs(10);

impl Load {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TcpRequest, Self::TcpConnect, Self::UdpRequest, Self::TcpStream];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpRequest => "TCP request/response",
            Self::TcpConnect => "TCP connect/request/close",
            Self::UdpRequest => "UDP request/response",
            Self::TcpStream => "TCP stream",
        }
    }

    /// Runs it for a time and returns transactions a second, or bits a second for a stream.
    ///
    /// # Panics
    /// If an end fails, or the path lets nothing through.
    pub fn run(self, ends: &Ends<'_>, time: Duration, core: usize) -> f64 {
        let spawn = |role, ns, at| {
            Process::spawn(&End { load: self, role, at, seconds: time.as_secs_f64(), core }, ns)
        };
        let at = ends.dial;
        let mut server = spawn(Role::Server, ends.server, ends.listen);
        assert_eq!(server.line(STALLED), READY, "the server of {} at {}", self.name(), ends.listen);
        let mut client = spawn(Role::Client, ends.client, at);
        let mut rate = 0.0;
        for end in [&mut client, &mut server] {
            let line = end.line(WARM_UP + time + STALLED);
            rate += line.parse::<f64>().unwrap_or_else(|_| panic!("{} to {at}: {line:?}", self.name()));
        }
        rate
    }
}

/// What a server says when it can be spoken to.
const READY: &str = "ready";

/// One end of a load: what this program is told when it starts itself as that.
#[derive(clap::Args)]
pub struct End {
    load: Load,
    role: Role,
    at: SocketAddr,
    seconds: f64,
    core: usize,
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Client,
    Server,
}

impl End {
    /// Is this end, and says on standard output what it measured.
    pub fn run(&self) -> io::Result<()> {
        pin(self.core);
        let (at, time) = (self.at, Duration::from_secs_f64(self.seconds));
        let rate = match (self.load, self.role) {
            (Load::UdpRequest, Role::Server) => answer_datagrams(&ready(UdpSocket::bind(at)?))?,
            (Load::UdpRequest, Role::Client) => ask_by_datagram(at, time)?,
            (Load::TcpRequest, Role::Server) => answer(&ready(TcpListener::bind(at)?).accept()?.0)?,
            (Load::TcpRequest, Role::Client) => ask(at, time)?,
            (Load::TcpConnect, Role::Server) => answer_once_each(&ready(TcpListener::bind(at)?))?,
            (Load::TcpConnect, Role::Client) => connect_and_ask(at, time)?,
            (Load::TcpStream, Role::Server) => sink(ready(TcpListener::bind(at)?).accept()?.0, time)?,
            (Load::TcpStream, Role::Client) => source(at)?,
        };
        println!("{rate}");
        Ok(())
    }

    fn words(&self) -> [String; 5] {
        let name = |value: Option<clap::builder::PossibleValue>| {
            value.expect("none is hidden").get_name().to_owned()
        };
        [
            name(self.load.to_possible_value()),
            name(self.role.to_possible_value()),
            self.at.to_string(),
            self.seconds.to_string(),
            self.core.to_string(),
        ]
    }
}

fn ready<S>(socket: S) -> S {
    println!("{READY}");
    socket
}

/// An end as a process; it does not outlive its handle.
struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    fn spawn(end: &End, ns: &Namespace) -> Self {
        let mut command =
            ns.command(env::current_exe().expect("this program's file").to_str().expect("UTF-8"));
        command.arg("end").args(end.words()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting an end");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line that it prints; empty if it ends or stalls first.
    fn line(&mut self, patience: Duration) -> String {
        self.lines.recv_timeout(patience).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core).unwrap_or_else(|e| panic!("core {core}: {e}"));
    sched_setaffinity(Pid::from_raw(0), &cores).unwrap_or_else(|e| panic!("pinning to core {core}: {e}"));
}

/// Repeats a transaction until the time is over; returns how many there were in a second.
fn rate(time: Duration, mut transaction: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        transaction()?;
    }
    let (start, mut count) = (Instant::now(), 0_u32);
    loop {
        for _ in 0..16 {
            transaction()?;
        }
        count += 16;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(f64::from(count) / elapsed.as_secs_f64());
        }
    }
}

fn ask(at: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_nodelay(true)?;
    rate(time, || {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])
    })
}

fn answer(mut stream: &TcpStream) -> io::Result<f64> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(0.0)
}

fn connect_and_ask(at: SocketAddr, time: Duration) -> io::Result<f64> {
    let rate = rate(time, || {
        let mut stream = TcpStream::connect(at)?;
        stream.write_all(&[1])?;
        // The answer, and then the end: the server closes first and keeps TIME_WAIT, so the client's ports do not
        // run out.
        stream.read_exact(&mut [0])?;
        stream.read(&mut [0]).map(drop)
    });
    // A connection without a request ends the server.
    TcpStream::connect(at)?;
    rate
}

fn answer_once_each(listener: &TcpListener) -> io::Result<f64> {
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(0.0);
        }
        stream.write_all(&byte)?;
    }
}

fn ask_by_datagram(at: SocketAddr, time: Duration) -> io::Result<f64> {
    let any = if at.is_ipv4() { Family::V4 } else { Family::V6 }.any(0);
    let socket = UdpSocket::bind(any)?;
    socket.connect(at)?;
    let rate = rate(time, || {
        socket.send(&[1])?;
        socket.recv(&mut [0]).map(drop)
    });
    socket.send(END)?;
    rate
}

fn answer_datagrams(socket: &UdpSocket) -> io::Result<f64> {
    let mut buffer = [0; 16];
    loop {
        let (length, from) = socket.recv_from(&mut buffer)?;
        if &buffer[..length] == END {
            return Ok(0.0);
        }
        socket.send_to(&buffer[..length], from)?;
    }
}

/// Sends until the receiver has enough.
fn source(at: SocketAddr) -> io::Result<f64> {
    let mut stream = TcpStream::connect(at)?;
    let block = vec![0; 128 * 1024];
    while stream.write_all(&block).is_ok() {}
    Ok(0.0)
}

fn sink(mut stream: TcpStream, time: Duration) -> io::Result<f64> {
    let mut block = vec![0; 128 * 1024];
    let warm = Instant::now() + WARM_UP;
    while Instant::now() < warm {
        stream.read_exact(&mut block)?;
    }
    let (start, mut bytes) = (Instant::now(), 0);
    while start.elapsed() < time {
        bytes += stream.read(&mut block)?;
    }
    let rate = bytes as f64 * 8.0 / start.elapsed().as_secs_f64();
    // The sender is to stop at once, not to fill a buffer that nobody reads.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(rate)
}

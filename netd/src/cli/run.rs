//! `netd run`: a command in a network namespace of its own, attached to a network for as long as it runs.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    thread,
};

use anyhow::Context as _;
use clap::Args;
use hyper::StatusCode;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgrp, tcgetpgrp},
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    client::{Client, Error, escape},
    network::Interface,
    publish,
    resolv_conf::ResolvConf,
};
use crate::model::{
    Sandbox,
    request::{NetworkConnect, NetworkDisconnect, PUBLISH},
};

/// The exit status if it is netd that failed, and not the command.
const FAILED: u8 = 125;
/// The exit status if the command cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// The exit status if there is no such command.
const NOT_FOUND: u8 = 127;

/// Signals that are the command's to act on.
const FORWARDED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

#[derive(Debug, Args)]
#[group(skip)]
#[command(after_help = "The exit status is the command's own, or 128 + N if signal N ended it; \
                        125 if netd failed, 126 if the command cannot be executed, 127 if there is none.")]
pub(super) struct Run {
    /// The network to attach it to
    #[arg(long, default_value = "bridge")]
    network: String,
    /// Name of the namespace and of the endpoint [default: one of its own]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    interface: Interface,
    /// Make ports of the host lead to it: [hostIP:][hostPort[-range]:]ctrPort[-range][/tcp|udp|sctp]
    #[arg(long, short, value_name = "SPEC", value_parser = publish::spec)]
    publish: Vec<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub(super) command: Vec<String>,
}

/// Runs the command; its exit status is the result: 128 + N if signal N ended it, 125 if netd failed, 126 and 127 if the
/// command cannot be executed.
///
/// Nothing is left behind however it ends, but for SIGKILL, of which nobody learns.
pub(super) async fn execute(client: &Client, run: Run) -> anyhow::Result<ExitCode> {
    match attached(client, run).await {
        Ok(code) => Ok(code),
        Err(error) => {
            eprintln!("{error:#}");
            Ok(ExitCode::from(FAILED))
        }
    }
}

async fn attached(client: &Client, run: Run) -> anyhow::Result<ExitCode> {
    // From here on a signal ends nothing by itself.
    let mut signals = signals()?;
    let name = run.name.unwrap_or_else(|| format!("run-{}", std::process::id()));
    let namespace = Namespace::create(&name)?;
    let container = format!("netns:{name}");
    let path = |verb| format!("/networks/{}/{verb}", escape(&run.network));
    let mut config = run.interface.request();
    if !run.publish.is_empty() {
        config.driver_opts.insert(PUBLISH.to_owned(), run.publish.join(","));
    }
    let connect = NetworkConnect { container: container.clone(), endpoint_config: Some(config) };
    client.post(&path("connect"), &connect).await?;
    let outcome = match ResolvConf::of(client, &run.network).await {
        Ok(resolv_conf) => supervise(&namespace, resolv_conf.as_ref(), &run.command, &mut signals).await,
        Err(error) => Err(error),
    };
    let disconnect = NetworkDisconnect { container, force: true };
    match client.post(&path("disconnect"), &disconnect).await {
        // Somebody has disconnected it meanwhile, or removed the network.
        Ok(_) | Err(Error::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
        Err(error) => eprintln!("netd: endpoint {name} of network {} may be left: {error}", run.network),
    }
    outcome
}

/// Runs the command in the namespace, passes signals on, and waits for its end.
async fn supervise(
    namespace: &Namespace,
    resolv_conf: Option<&ResolvConf>,
    command: &[String],
    signals: &mut mpsc::Receiver<Signal>,
) -> anyhow::Result<ExitCode> {
    // One that came while the namespace was being set up.
    if let Ok(signal) = signals.try_recv() {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    let mut child = match namespace.spawn(command, resolv_conf)? {
        Ok(child) => child,
        Err(error) => {
            eprintln!("netd: {}: {error}", command[0]);
            let is_missing = error.kind() == io::ErrorKind::NotFound;
            return Ok(ExitCode::from(if is_missing { NOT_FOUND } else { NOT_EXECUTABLE }));
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => return Ok(ExitCode::from(code(status.context("waiting for the command")?))),
            Some(signal) = signals.recv() => forward(signal, &child),
        }
    }
}

/// Passes `signal` on to the command, unless the terminal has sent it there already.
fn forward(signal: Signal, child: &Child) {
    let is_of_terminal = matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
    if is_of_terminal && is_in_foreground() {
        return;
    }
    // The child has no id any more once it was waited for: no other process can get the signal.
    if let Some(id) = child.id() {
        // It may have ended just now.
        let _ = kill(Pid::from_raw(id.cast_signed()), signal);
    }
}

/// Whether this process's group is the one that the terminal's keys send signals to.
fn is_in_foreground() -> bool {
    fs::File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(terminal) == Ok(getpgrp()))
}

/// What a shell would tell as the status.
fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128 + signal.unwrap_or_default() as u8,
    }
}

/// The signals of [`FORWARDED`] as they come, instead of what they would do. Those that netd was started to ignore, as by
/// nohup(1), it ignores, and so does the command.
fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(16);
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    for number in FORWARDED.into_iter().filter(|number| ignored & 1 << (*number as i32 - 1) == 0) {
        let mut stream = signal(SignalKind::from_raw(number as i32))?;
        let sender = sender.clone();
        tokio::spawn(
            async move { while stream.recv().await.is_some() && sender.send(number).await.is_ok() {} },
        );
    }
    Ok(receiver)
}

/// The signals that the process of this status (proc(5)) ignores: signal N is bit N - 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// A network namespace with a name under /run/netns, both gone when this is dropped.
#[derive(Debug)]
struct Namespace {
    path: PathBuf,
}

impl Namespace {
    fn create(name: &str) -> anyhow::Result<Self> {
        let path = Sandbox::parse(&format!("netns:{name}"))
            .map_err(|_| {
                anyhow::anyhow!("`{name}` cannot be the name of a namespace: it has to be one part of a path")
            })?
            .path;
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        fs::File::create_new(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                anyhow::anyhow!("a network namespace named {name} exists already")
            }
            _ => anyhow::Error::new(error).context(format!("cannot make {}", path.display())),
        })?;
        let namespace = Self { path };
        // A namespace is a thread's; this thread ends with it, and the mount keeps the namespace.
        let target = namespace.path.clone();
        let made = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        made.join()
            .expect("the thread calls nothing that panics")
            .with_context(|| format!("cannot make network namespace {name} (this takes root)"))?;
        Ok(namespace)
    }

    /// Starts the command in the namespace. The inner error is about the command.
    fn spawn(
        &self,
        command: &[String],
        resolv_conf: Option<&ResolvConf>,
    ) -> anyhow::Result<io::Result<Child>> {
        let file =
            fs::File::open(&self.path).with_context(|| format!("cannot open {}", self.path.display()))?;
        let runtime = Handle::current();
        // A child is born into the namespace of the thread that makes it.
        thread::scope(|scope| {
            let spawn = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                if let Some(resolv_conf) = resolv_conf {
                    resolv_conf.show()?;
                }
                let _guard = runtime.enter();
                Ok(Command::new(&command[0]).args(&command[1..]).spawn())
            });
            let spawned: nix::Result<_> = spawn.join().expect("the thread calls nothing that panics");
            spawned.with_context(|| format!("cannot enter {}", self.path.display()))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Not mounted if it could not be made.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("netd: {} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_a_shell_would_tell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(Signal::SIGTERM as i32)), 143);
    }

    #[test]
    fn options_stand_before_the_command_and_its_own_behind_it() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            run: Run,
        }
        let command = |line: &str| {
            let words = ["run"].into_iter().chain(line.split(' '));
            <Line as clap::Parser>::try_parse_from(words).map(|line| line.run.command)
        };
        assert_eq!(command("--name a ping -c1 --network x").unwrap(), ["ping", "-c1", "--network", "x"]);
        assert_eq!(command("-- -odd --name").unwrap(), ["-odd", "--name"]);
        for mistyped in ["--networks foo -- true", "-it -- bash"] {
            assert!(command(mistyped).unwrap_err().to_string().contains("unexpected argument"), "{mistyped}");
        }
    }

    #[test]
    fn ignored_signals_are_a_mask() {
        assert_eq!(ignored("SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!(ignored("Name:\tnetd\n"), 0);
    }

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for name in ["", ".", "..", "a/b", "/etc/passwd", "../x"] {
            let error = Namespace::create(name).unwrap_err().to_string();
            assert!(error.contains("cannot be the name of a namespace"), "{error}");
        }
    }
}

//! A real Docker Engine on the host under test: with its network namespace and mounts, beside its netd.
//!
//! As on a host of Debian's, containerd is a daemon of its own that the engine finds by its socket, and stays when the
//! engine ends or is killed. An engine can start one itself, but dials it once: where that falls between bind(2) and
//! listen(2), the engine never starts.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{Docker, Host, Namespace, comes_true, control_group::ControlGroups, http, image, namespace};

/// Where an engine looks for plugins, and nowhere else for a socket.
const PLUGINS: &str = "/run/docker/plugins";
/// The socket of its containerd, in the engine's directory.
const CONTAINERD: &str = "containerd.sock";
/// How long an engine or containerd takes to start, at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine with a data directory of its own and one image, `busybox`.
///
/// It, its containerd and the shims are in one control group, and its containers in another: what is in there when this
/// goes is killed.
pub struct Engine<'a> {
    host: &'a Host,
    groups: ControlGroups,
    directory: TempDir,
    arguments: Vec<String>,
    containerd: Option<Child>,
    daemon: Option<Child>,
}

impl Host {
    /// Starts Docker Engine here, where it finds netd's plugin.
    pub fn engine(&self, arguments: &[&str]) -> Engine<'_> {
        self.within_mounts(|| mount_plugins(&self.plugin_socket()));
        let directory = tempfile::Builder::new().prefix(&namespace::prefix()).tempdir();
        let directory = directory.expect("a temporary directory");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let groups = ControlGroups::of(directory.path());
        let mut engine = Engine { host: self, groups, directory, arguments, containerd: None, daemon: None };
        engine.start_containerd();
        fs::write(engine.path("daemon.json"), "{}").expect("writing the engine's configuration");
        engine.start();
        engine.import();
        engine
    }
}

impl Engine<'_> {
    /// Starts it where it has ended, and waits until it answers.
    pub fn start(&mut self) {
        let mut command = self.host.command("dockerd");
        command.arg("--config-file").arg(self.path("daemon.json"));
        command.arg("--containerd").arg(self.path(CONTAINERD));
        command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("exec"));
        command.arg("--pidfile").arg(self.path("pid")).arg("--host").arg(self.server());
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &self.groups.path()]);
        command.args(&self.arguments);
        let child = self.spawn(&mut command);
        let earlier = self.daemon.replace(child);
        assert!(earlier.is_none(), "it runs already");
        let started = comes_true(PATIENCE, || {
            let ended = self.daemon.as_mut().expect("started above").try_wait().expect("waiting for dockerd");
            assert!(ended.is_none(), "dockerd ended while it started: {ended:?}");
            self.answers()
        });
        assert!(started, "dockerd does not answer within {PATIENCE:?}");
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// Kills it where it stands. Its containers go on.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// The engine's command line, of the engine's own version.
    pub fn docker(&self) -> Docker<'_> {
        let shipped = Path::new("/usr/bin/docker");
        let docker = self.host.docker_at(&self.server());
        if shipped.exists() { docker.of(shipped) } else { docker }
    }

    /// Runs a container that does nothing, with more arguments to `docker run`, and enters its network namespace.
    pub fn container(&self, name: &str, arguments: &str) -> Namespace {
        self.docker()
            .ok(&format!("run --detach --name {name} --stop-timeout 0 {arguments} busybox sleep 3600"));
        self.namespace_of(name)
    }

    /// The network namespace of a container that runs.
    pub fn namespace_of(&self, name: &str) -> Namespace {
        let pid = self.docker().ok(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        Namespace::of_process(name, pid.trim().parse().expect("a process id"))
    }

    fn end(&mut self, signal: Signal) {
        let mut child = self.daemon.take().expect("it does not run");
        signal::kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signalling dockerd");
        child.wait().expect("waiting for dockerd");
    }

    /// Starts containerd, and waits until it listens.
    fn start_containerd(&mut self) {
        // What it does for Kubernetes is not wanted, nor a place for more programs outside its directories.
        let configuration = "version = 2\n\
                             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n";
        fs::write(self.path("containerd.toml"), configuration).expect("writing containerd's configuration");
        let mut command = self.host.command("containerd");
        command.arg("--config").arg(self.path("containerd.toml")).arg("--address").arg(self.path(CONTAINERD));
        command.arg("--root").arg(self.path("images")).arg("--state").arg(self.path("tasks"));
        let mut child = self.spawn(&mut command);
        let listens = comes_true(PATIENCE, || {
            let ended = child.try_wait().expect("waiting for containerd");
            assert!(ended.is_none(), "containerd ended while it started: {ended:?}");
            UnixStream::connect(self.path(CONTAINERD)).is_ok()
        });
        self.containerd = Some(child);
        assert!(listens, "containerd does not listen within {PATIENCE:?}");
    }

    /// Starts a daemon in the control group, that prints into the log.
    fn spawn(&self, command: &mut Command) -> Child {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("opening the log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("duplicating a descriptor")).stderr(log);
        // SAFETY: between fork and exec only write(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(self.groups.entrance()) };
        let child = command.spawn();
        child.unwrap_or_else(|e| panic!("{command:?}, which `cargo xtask setup` installs: {e}"))
    }

    fn answers(&self) -> bool {
        let answer = UnixStream::connect(self.path("docker.sock"));
        answer.and_then(|stream| http::get(stream, "/_ping")).is_ok_and(|(status, _)| status == 200)
    }

    fn import(&self) {
        let image = image::build(&self.path("image"));
        self.docker().ok(&format!("import {} busybox", image.display()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn server(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        for mut child in self.daemon.take().into_iter().chain(self.containerd.take()) {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains("level=info")).collect();
            eprintln!(
                "---- dockerd and containerd on {} ----\n{}\n----",
                self.host.ns.name(),
                lines.join("\n")
            );
        }
    }
}

/// Gives the calling thread's mounts an empty /run/docker, in which the engine finds the plugin.
fn mount_plugins(socket: &Path) {
    const NONE: Option<&str> = None;
    let run = Path::new(PLUGINS).parent().expect("it is two levels deep");
    // It stays, empty: another engine's may be mounted there.
    fs::create_dir_all(run).expect("making /run/docker");
    mount(Some("tmpfs"), run, Some("tmpfs"), MsFlags::empty(), NONE).expect("mounting /run/docker");
    fs::create_dir(PLUGINS).expect("making the engine's plugin directory");
    symlink(socket, Path::new(PLUGINS).join("netd.sock")).expect("linking the plugin's socket");
}

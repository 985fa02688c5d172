//! A real podman on the host under test, with its network namespace and mounts, whose containers netd attaches as a plugin
//! of CNI.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use super::{Host, Namespace, control_group::ControlGroups, docker, image, namespace};

/// The runtime that knows how to do without control groups of its own.
const RUNTIME: &str = "/usr/bin/crun";
/// Where libcni remembers results, wherever else everything is.
const CNI_CACHE: &str = "/var/lib/cni";
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Limits low enough to be had everywhere: podman would raise them, which not everywhere root may.
const LIMITS: &str = "\"nofile=1024:1024\", \"nproc=4096:4096\"";

/// podman with storage and configuration of its own, and one image, `busybox`.
pub struct Podman<'a> {
    host: &'a Host,
    groups: ControlGroups,
    directory: TempDir,
}

impl Host {
    /// podman here, with the network `pods` of netd's as its default.
    pub fn podman(&self, install: &str) -> Podman<'_> {
        self.within_mounts(furnish_mounts);
        let directory = tempfile::Builder::new().prefix(&namespace::prefix()).tempdir();
        let directory = directory.expect("a temporary directory");
        let groups = ControlGroups::of(directory.path());
        let podman = Podman { host: self, groups, directory };
        podman.configure();
        let (bin, conf) = (podman.path("bin"), podman.path("net.d"));
        self.netd(&format!(
            "cni install --name pods --bin-dir {} --conf-dir {} --socket unix://{} {install}",
            bin.display(),
            conf.display(),
            self.socket().display()
        ));
        let image = image::build(&podman.path("image"));
        podman.ok(&format!("import {} busybox", image.display()));
        podman
    }
}

impl Podman<'_> {
    /// Runs `podman` with the arguments in `line`, as in a shell, to its end.
    pub fn run(&self, line: &str) -> Output {
        let mut command = self.command(line);
        command.output().unwrap_or_else(|e| panic!("podman, which `cargo xtask setup` installs: {e}"))
    }

    /// Runs it, which must succeed, and returns what it printed.
    pub fn ok(&self, line: &str) -> String {
        namespace::run(&mut self.command(line))
    }

    /// Runs it, which must succeed and print JSON.
    pub fn json(&self, line: &str) -> serde_json::Value {
        let text = self.ok(line);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("podman {line} printed no JSON: {e}: {text}"))
    }

    /// Runs a container that does nothing, with more arguments to `podman run`, and enters its network namespace.
    pub fn container(&self, name: &str, arguments: &str) -> Namespace {
        self.ok(&format!("run --detach --name {name} {arguments} busybox sleep 3600"));
        self.namespace_of(name)
    }

    /// The network namespace of a container that runs.
    pub fn namespace_of(&self, name: &str) -> Namespace {
        let pid = self.ok(&format!("inspect --format {{{{.State.Pid}}}} {name}"));
        Namespace::of_process(name, pid.trim().parse().expect("a process id"))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.host.command("podman");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.directory.path());
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
        command.args(docker::words(line)).stdin(Stdio::null());
        // SAFETY: between fork and exec only write(2) is called, which is async-signal-safe.
        unsafe { command.pre_exec(self.groups.entrance()) };
        command
    }

    fn configure(&self) {
        let shown = |name: &str| self.path(name).display().to_string();
        let engine = format!(
            "[containers]\ncgroups = \"disabled\"\ndefault_ulimits = [{LIMITS}]\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\n\
             events_logger = \"file\"\nlock_type = \"file\"\n\
             runtime = \"crun\"\nstatic_dir = \"{}\"\ntmp_dir = \"{}\"\nvolume_path = \"{}\"\n\
             [engine.runtimes]\ncrun = [\"{RUNTIME}\"]\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"{}\"\ncni_plugin_dirs = [\"{}\"]\n\
             default_network = \"pods\"\n",
            shown("storage/libpod"),
            shown("tmp"),
            shown("volumes"),
            shown("net.d"),
            shown("bin")
        );
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            shown("storage"),
            shown("run")
        );
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fs::create_dir_all(self.path(".config/containers")).expect("making podman's directories");
        for (name, text) in [
            ("containers.conf", &*engine),
            ("storage.conf", &storage),
            ("registries.conf", ""),
            (".config/containers/policy.json", policy),
        ] {
            fs::write(self.path(name), text).expect("writing podman's configuration");
        }
    }

    /// What it makes in places that it shares with others goes by its own hand.
    fn remove_all(&self) {
        for line in ["pod rm --force --all", "rm --force --all --time 0"] {
            let removed = self.run(line);
            if !removed.status.success() {
                eprintln!("podman {line}: {}", String::from_utf8_lossy(&removed.stderr));
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.remove_all();
    }
}

/// Gives the calling thread's mounts a cache of results of its own, and control groups of version 2 alone, where the
/// machine has both: the runtime has no use for a mixture.
fn furnish_mounts() {
    const NONE: Option<&str> = None;
    // The directory itself stays, as for every user of CNI.
    fs::create_dir_all(CNI_CACHE).expect("making libcni's directory");
    let mounted = mount(Some("tmpfs"), CNI_CACHE, Some("tmpfs"), MsFlags::empty(), NONE);
    mounted.expect("mounting libcni's cache");
    if !Path::new(CONTROL_GROUPS).join("cgroup.controllers").exists() {
        let mounted = mount(Some("cgroup2"), CONTROL_GROUPS, Some("cgroup2"), MsFlags::empty(), NONE);
        mounted.expect("mounting control groups of version 2");
    }
}

//! A container runtime's side of CNI: the plugin, called as a runtime calls it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Container, Host, Namespace, netd_binary};

/// Where Debian's package has the reference plugins.
pub const REFERENCE_PLUGINS: &str = "/usr/lib/cni";

/// A plugin on a host, and the configuration of one network.
pub struct Cni<'a> {
    host: &'a Host,
    plugin: PathBuf,
    /// `CNI_PATH`
    plugins: PathBuf,
    /// What the plugin gets on its standard input.
    pub config: Value,
}

/// What a call is about.
#[derive(Clone, Copy, Default)]
pub struct Call<'a> {
    /// `CNI_CONTAINERID`
    pub container: &'a str,
    /// `CNI_NETNS`; not set if empty.
    pub netns: &'a str,
    /// `CNI_IFNAME`
    pub interface: &'a str,
    /// `CNI_ARGS`
    pub args: &'a str,
}

impl<'a> Cni<'a> {
    /// netd as the plugin of the network that `config` describes, told where the host's daemon is.
    pub fn new(host: &'a Host, mut config: Value) -> Self {
        config["type"] = "netd".into();
        config["socket"] = format!("unix://{}", host.socket().display()).into();
        Self { host, plugin: netd_binary().to_owned(), plugins: REFERENCE_PLUGINS.into(), config }
    }

    /// A reference plugin with a configuration of its own.
    pub fn reference(host: &'a Host, name: &str, config: Value) -> Self {
        let plugin = Path::new(REFERENCE_PLUGINS).join(name);
        assert!(plugin.exists(), "there is no {}: containernetworking-plugins has it", plugin.display());
        Self { host, plugin, plugins: REFERENCE_PLUGINS.into(), config }
    }

    /// The same with other plugins to delegate to than the reference ones.
    pub fn with_plugins_in(self, directory: &Path) -> Self {
        Self { plugins: directory.to_owned(), ..self }
    }

    /// The same with other keys.
    pub fn with(&self, keys: Value) -> Self {
        let mut config = self.config.clone();
        let Value::Object(keys) = keys else { panic!("keys are an object") };
        keys.into_iter().for_each(|(key, value)| config[&key] = value);
        Self { host: self.host, plugin: self.plugin.clone(), plugins: self.plugins.clone(), config }
    }

    /// Calls the plugin. A failure is the object that it printed.
    pub fn call(&self, verb: &str, call: Call<'_>) -> Result<Value, Value> {
        self.call_with(verb, call, self.config.to_string().as_bytes())
    }

    /// Calls the plugin with any bytes for a configuration.
    pub fn call_with(&self, verb: &str, call: Call<'_>, input: &[u8]) -> Result<Value, Value> {
        let mut command = self.host.command(&self.plugin);
        // The iptables of some reference plugins is looked for there.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("CNI_COMMAND", verb).env("CNI_PATH", &self.plugins);
        let variables = [
            ("CNI_CONTAINERID", call.container),
            ("CNI_NETNS", call.netns),
            ("CNI_IFNAME", call.interface),
            ("CNI_ARGS", call.args),
        ];
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            command.env(name, value);
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{}: {e}", self.plugin.display()));
        // One that fails early does not read its input.
        let _ = child.stdin.take().expect("piped").write_all(input);
        let output = child.wait_with_output().expect("waiting for the plugin");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let value = match text.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&text).unwrap_or_else(|e| panic!("{verb}: {e}: {text}")),
        };
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "",
            "{verb} {}: what is wrong is told on standard output",
            self.plugin.display()
        );
        if output.status.success() { Ok(value) } else { Err(value) }
    }

    /// ADD of eth0, which must succeed.
    pub fn add(&self, container: &str, ns: &Namespace) -> Value {
        self.try_add(container, ns).unwrap_or_else(|error| panic!("ADD {container}: {error}"))
    }

    /// ADD of eth0.
    pub fn try_add(&self, container: &str, ns: &Namespace) -> Result<Value, Value> {
        let path = ns.path();
        let netns = path.to_str().expect("UTF-8");
        self.call("ADD", Call { container, netns, interface: "eth0", ..Call::default() })
    }

    /// DEL of eth0, which must succeed.
    pub fn del(&self, container: &str, ns: Option<&Namespace>) {
        self.try_del(container, ns).unwrap_or_else(|error| panic!("DEL {container}: {error}"));
    }

    /// DEL of eth0.
    pub fn try_del(&self, container: &str, ns: Option<&Namespace>) -> Result<Value, Value> {
        let path = ns.map(Namespace::path).unwrap_or_default();
        let netns = path.to_str().expect("UTF-8");
        self.call("DEL", Call { container, netns, interface: "eth0", ..Call::default() })
    }

    /// CHECK of eth0 against a result.
    pub fn check(&self, container: &str, ns: &Namespace, result: &Value) -> Result<Value, Value> {
        let path = ns.path();
        let netns = path.to_str().expect("UTF-8");
        let call = Call { container, netns, interface: "eth0", ..Call::default() };
        self.with(json!({ "prevResult": result })).call("CHECK", call)
    }

    /// A new container with an eth0 from this plugin. Its id is its namespace's name.
    pub fn container(&self, role: &str) -> Container {
        let ns = Namespace::new(role);
        self.add(ns.name(), &ns);
        Container::of(ns)
    }
}

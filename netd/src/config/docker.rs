//! Keys of Docker's that ask nothing of netd: accepted, so that one file serves both daemons, with a word for each.

/// Why a key says nothing to netd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is about containers, images or clusters.
    Engine,
    /// It is about netfilter's rules, or the proxy beside them.
    Netfilter,
    /// It is about what is written into a container's files.
    Files,
}

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Bool,
    Int,
    Text,
    Texts,
    /// An object, or something that Docker itself takes in several forms.
    Any,
}

use Foreign::{Engine, Files, Netfilter};
use Shape::{Any, Bool, Int, Text, Texts};

/// Every such key, in the order of the alphabet.
pub(super) const KEYS: &[(&str, Foreign, Shape)] = &[
    ("add-runtime", Engine, Any),
    ("allow-direct-routing", Netfilter, Bool),
    ("allow-nondistributable-artifacts", Engine, Texts),
    ("api-cors-header", Engine, Text),
    ("authorization-plugins", Engine, Texts),
    ("bridge-accept-fwmark", Netfilter, Text),
    ("builder", Engine, Any),
    ("cdi-spec-dirs", Engine, Texts),
    ("cgroup-parent", Engine, Text),
    ("cluster-advertise", Engine, Text),
    ("cluster-store", Engine, Text),
    ("cluster-store-opts", Engine, Any),
    ("containerd", Engine, Text),
    ("containerd-namespace", Engine, Text),
    ("containerd-plugin-namespace", Engine, Text),
    ("containerd-plugins-namespace", Engine, Text),
    ("cpu-rt-period", Engine, Int),
    ("cpu-rt-runtime", Engine, Int),
    ("cri-containerd", Engine, Bool),
    ("data-root", Engine, Text),
    ("default-cgroupns-mode", Engine, Text),
    ("default-init", Engine, Bool),
    ("default-ipc-mode", Engine, Text),
    ("default-runtime", Engine, Text),
    ("default-shm-size", Engine, Any),
    ("default-ulimits", Engine, Any),
    ("deprecated-key-path", Engine, Text),
    ("exec-opts", Engine, Texts),
    ("exec-root", Engine, Text),
    ("experimental", Engine, Bool),
    ("features", Engine, Any),
    ("firewall-backend", Netfilter, Text),
    ("graph", Engine, Text),
    ("host-gateway-ip", Files, Text),
    ("host-gateway-ips", Files, Any),
    ("http-proxy", Engine, Text),
    ("https-proxy", Engine, Text),
    ("init", Engine, Bool),
    ("init-path", Engine, Text),
    ("insecure-registries", Engine, Texts),
    ("ip6tables", Netfilter, Bool),
    ("iptables", Netfilter, Bool),
    ("log-driver", Engine, Text),
    ("log-opts", Engine, Any),
    ("max-concurrent-downloads", Engine, Int),
    ("max-concurrent-uploads", Engine, Int),
    ("max-download-attempts", Engine, Int),
    ("min-api-version", Engine, Text),
    ("network-control-plane-mtu", Engine, Int),
    ("network-diagnostic-port", Engine, Int),
    ("no-new-privileges", Engine, Bool),
    ("no-proxy", Engine, Text),
    ("node-generic-resources", Engine, Texts),
    ("oom-score-adjust", Engine, Int),
    ("pidfile", Engine, Text),
    ("proxies", Engine, Any),
    ("raw-logs", Engine, Bool),
    ("registry-mirrors", Engine, Texts),
    ("resolv-conf", Files, Text),
    ("rootless", Engine, Bool),
    ("runtimes", Engine, Any),
    ("seccomp-profile", Engine, Text),
    ("selinux-enabled", Engine, Bool),
    ("shutdown-timeout", Engine, Int),
    ("storage-driver", Engine, Text),
    ("storage-opts", Engine, Texts),
    ("swarm-default-advertise-addr", Engine, Text),
    ("userland-proxy", Netfilter, Bool),
    ("userland-proxy-path", Netfilter, Text),
    ("userns-remap", Engine, Text),
];

impl Foreign {
    /// What the user is told, once for each key.
    pub(super) fn warning(self, key: &str) -> String {
        match self {
            Engine => format!("the key `{key}` belongs to Docker's engine and says nothing to netd"),
            Netfilter => {
                format!("the key `{key}` is about netfilter and says nothing to netd, which needs no rules")
            }
            Files => format!("the key `{key}` says nothing to netd, which writes no container's files"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_stands_once() {
        assert!(KEYS.is_sorted_by(|(a, ..), (b, ..)| a < b));
    }
}

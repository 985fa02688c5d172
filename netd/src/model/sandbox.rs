//! How a user names a network namespace.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::Error;

/// The directory of named network namespaces.
const NAMED: &str = "/run/netns";

/// A network namespace, as it was named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sandbox {
    /// How it was named.
    pub kind: SandboxKind,
    /// Where it can be opened.
    pub path: PathBuf,
    /// Inode of the namespace that was opened there, so that another one at the same path is not taken for it;
    /// 0 before it was opened.
    pub inode: u64,
}

/// How a namespace was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxKind {
    /// `netns:NAME`, under /run/netns.
    Named,
    /// An absolute path.
    Path,
    /// `pid:N`, the namespace of a process.
    Pid,
}

impl Sandbox {
    /// Reads `netns:NAME`, `pid:N` or an absolute path. Anything else names no container that netd could know.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::invalid("invalid name or ID supplied: \"\""));
        }
        let unknown = || Error::not_found(format!("No such container: {text}"));
        let (kind, path) = if let Some(name) = text.strip_prefix("netns:") {
            let mut components = Path::new(name).components();
            match (components.next(), components.next()) {
                (Some(Component::Normal(part)), None) if part == name => {}
                _ => return Err(unknown()),
            }
            (SandboxKind::Named, Path::new(NAMED).join(name))
        } else if let Some(pid) = text.strip_prefix("pid:") {
            let pid: u32 = pid.parse().map_err(|_| unknown())?;
            (SandboxKind::Pid, PathBuf::from(format!("/proc/{pid}/ns/net")))
        } else if text.starts_with('/') && Path::new(text).file_name().is_some() {
            (SandboxKind::Path, PathBuf::from(text))
        } else {
            return Err(unknown());
        };
        Ok(Self { kind, path, inode: 0 })
    }

    /// The endpoint's name: NAME, the pid, or the path's last part.
    pub fn name(&self) -> String {
        let part = match self.kind {
            SandboxKind::Named | SandboxKind::Path => self.path.file_name(),
            SandboxKind::Pid => self.path.iter().nth(2),
        };
        part.unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SandboxKind::Named => write!(f, "netns:{}", self.name()),
            SandboxKind::Path => write!(f, "{}", self.path.display()),
            SandboxKind::Pid => write!(f, "pid:{}", self.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read() {
        for (text, path, name) in [
            ("netns:red", "/run/netns/red", "red"),
            ("pid:42", "/proc/42/ns/net", "42"),
            ("/var/run/docker/netns/0123", "/var/run/docker/netns/0123", "0123"),
        ] {
            let sandbox = Sandbox::parse(text).unwrap();
            assert_eq!(
                (sandbox.path.to_str(), &*sandbox.name(), sandbox.to_string()),
                (Some(path), name, text.into())
            );
        }
    }

    #[test]
    fn other_texts_are_no_container() {
        for text in
            ["web", "netns:", "netns:..", "netns:a/b", "netns:a/", "pid:", "pid:-1", "pid:x", "/", "./x"]
        {
            let error = Sandbox::parse(text).unwrap_err();
            assert_eq!(error, Error::not_found(format!("No such container: {text}")));
        }
        assert_eq!(Sandbox::parse(""), Err(Error::invalid("invalid name or ID supplied: \"\"")));
    }
}

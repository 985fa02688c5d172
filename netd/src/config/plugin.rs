//! Where Docker Engine's plugin protocol is served.

use std::path::PathBuf;

/// Where an engine looks for the plugin `netd`.
const DEFAULT: &str = "/run/docker/plugins/netd.sock";

/// The socket of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginSocket {
    /// Where an engine looks for it; if it cannot be had there, nowhere.
    Default(PathBuf),
    /// Just there.
    At(PathBuf),
    /// Nowhere.
    None,
}

impl PluginSocket {
    /// Reads a path, or `none`.
    pub(super) fn read(text: Option<&str>) -> Result<Self, String> {
        match text {
            None => Ok(Self::Default(DEFAULT.into())),
            Some("none") => Ok(Self::None),
            Some(path) if path.starts_with('/') => Ok(Self::At(path.into())),
            Some(other) => {
                Err(format!("invalid plugin socket {other:?}: it is neither an absolute path nor `none`"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_none() {
        assert_eq!(PluginSocket::read(None), Ok(PluginSocket::Default(DEFAULT.into())));
        assert_eq!(PluginSocket::read(Some("none")), Ok(PluginSocket::None));
        assert_eq!(PluginSocket::read(Some("/a/b.sock")), Ok(PluginSocket::At("/a/b.sock".into())));
        for bad in ["", "netd.sock", "unix:///a"] {
            assert!(PluginSocket::read(Some(bad)).unwrap_err().contains("neither an absolute path"), "{bad}");
        }
    }
}

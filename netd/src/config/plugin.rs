//! Where Docker Engine's plugin protocol is served.

use std::path::PathBuf;

use super::settings::{Invalid, Settings};

/// The key, which is netd's own.
const KEY: &str = "plugin-socket";

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
    pub(super) fn read(settings: &Settings) -> Result<Self, Invalid> {
        match settings.text(KEY)? {
            None => Ok(Self::Default(DEFAULT.into())),
            Some("none") => Ok(Self::None),
            Some(path) if path.starts_with('/') => Ok(Self::At(path.into())),
            Some(other) => {
                let reason =
                    format!("invalid plugin socket {other:?}: it is neither an absolute path nor `none`");
                Err(Invalid::new(KEY, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_none() {
        let read = |json: &str| PluginSocket::read(&Settings::parse(json.as_bytes()).unwrap());
        assert_eq!(read("{}"), Ok(PluginSocket::Default(DEFAULT.into())));
        assert_eq!(read(r#"{"plugin-socket": "none"}"#), Ok(PluginSocket::None));
        assert_eq!(read(r#"{"plugin-socket": "/a/b.sock"}"#), Ok(PluginSocket::At("/a/b.sock".into())));
        for bad in ["netd.sock", "unix:///a"] {
            let error = read(&format!(r#"{{"plugin-socket": "{bad}"}}"#)).unwrap_err();
            assert!(error.reason.contains("neither an absolute path"), "{bad}");
        }
    }
}

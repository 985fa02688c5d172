//! Listening sockets: of the file system, of TCP, and those that the service manager hands over.

use std::{
    fs,
    io::{self, Write as _},
    net,
    os::{
        fd::OwnedFd,
        unix::{
            self,
            fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        },
    },
    path::{Path, PathBuf},
};

use nix::unistd::Gid;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs, UnixListener, UnixStream};

/// Those who may speak to the daemon: its user and its group. Whoever may speak to it is root in effect.
const MODE: u32 = 0o660;

/// A listening socket. One of the file system takes its file along when it goes.
#[derive(Debug)]
pub(super) enum Listener {
    Unix { listener: UnixListener, _file: Option<SocketFile> },
    Tcp(TcpListener),
}

/// The file of a listening socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// An accepted connection, before anything was said.
#[derive(Debug)]
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Listens at a socket of the file system, whose file is of `group` if there is one. The file of a socket that nobody
    /// listens at any more is replaced.
    pub(super) async fn unix(path: &Path, group: Option<Gid>) -> io::Result<Self> {
        remove_stale(path).await?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let listener = UnixListener::bind(path)?;
        let file = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
        if let Some(group) = group {
            chown(path, None, Some(group.as_raw()))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        Ok(Self::Unix { listener, _file: Some(file) })
    }

    /// Listens at an address of TCP.
    pub(super) async fn tcp(address: impl ToSocketAddrs) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// A socket that somebody else made and listens at.
    pub(super) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        let socket = unix::net::UnixListener::from(socket);
        // Its address is none of a Unix socket's if it is a socket of another kind.
        if socket.local_addr().is_ok() {
            socket.set_nonblocking(true)?;
            return Ok(Self::Unix { listener: UnixListener::from_std(socket)?, _file: None });
        }
        let socket = net::TcpListener::from(OwnedFd::from(socket));
        socket.local_addr()?;
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(socket)?))
    }

    /// Whether strangers may be able to reach it: a socket of TCP at an address that is not of the loopback.
    pub(super) fn is_exposed(&self) -> bool {
        match self {
            Self::Unix { .. } => false,
            Self::Tcp(listener) => !listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
        }
    }

    pub(super) const fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
        }
    }
}

impl Accepted {
    /// Says that there is no room, as far as that can be said at once.
    pub(super) fn refuse(self, tls: bool) {
        let words = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
            {\"message\":\"all connections of this socket are busy\"}\n";
        let said = match self {
            Self::Unix(stream) => stream.into_std().and_then(|mut stream| stream.write(words)),
            // Who expects a handshake would not understand it.
            Self::Tcp(_) if tls => Ok(0),
            Self::Tcp(stream) => stream.into_std().and_then(|mut stream| stream.write(words)),
        };
        log::warn!("all connections of a socket are busy: one more was refused");
        if let Err(error) = said {
            log::debug!("connection: {error}");
        }
    }
}

/// Removes the file of a socket at `path` unless somebody listens there. What is no socket is left alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, format!("{} {what}", path.display()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(in_use("is there and is not a socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(in_use("is the socket of a process that listens there")),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another daemon may have put its own in this one's place.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("{} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/netd.sock");
        let listener = Listener::unix(&path, None).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let error = Listener::unix(&path, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("is the socket of a process that listens there"));
        drop(listener);
        assert!(!path.exists());
        // A socket closed without its file removed is what a killed daemon leaves.
        drop(unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::unix(&path, None).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        fs::write(&path, "mine").unwrap();
        let error = Listener::unix(&path, None).await.unwrap_err();
        assert!(error.to_string().contains("is not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn the_file_of_another_listener_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let first = Listener::unix(&path, None).await.unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let second = Listener::unix(&path, None).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn sockets_of_both_kinds_are_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let file = unix::net::UnixListener::bind(&path).unwrap();
        let tcp = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let unix = Listener::adopt(file.into()).unwrap();
        let tcp = Listener::adopt(tcp.into()).unwrap();
        assert!(!unix.is_tcp() && tcp.is_tcp() && !tcp.is_exposed());
        let (_a, _b) =
            (UnixStream::connect(&path).await.unwrap(), TcpStream::connect(address).await.unwrap());
        assert!(matches!(unix.accept().await.unwrap(), Accepted::Unix(_)));
        assert!(matches!(tcp.accept().await.unwrap(), Accepted::Tcp(_)));
        drop(unix);
        assert!(path.exists(), "the file belongs to whoever made it");
    }
}

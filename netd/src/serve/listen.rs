//! Listening sockets, of the file system and of TCP.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::config::Host;

/// Those who may speak to the daemon: its user and its group. Whoever may speak to it is root in effect.
const MODE: u32 = 0o660;

/// A listening socket. One of the file system takes its file along when it goes.
#[derive(Debug)]
pub(super) enum Listener {
    Unix { listener: UnixListener, _file: SocketFile },
    Tcp(TcpListener),
}

/// The file of a listening socket.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Listener {
    /// Listens at `host`. The file of a socket that nobody listens at any more is replaced.
    pub(super) async fn bind(host: &Host) -> io::Result<Self> {
        match host {
            Host::Unix(path) => {
                remove_stale(path).await?;
                if let Some(directory) = path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let listener = UnixListener::bind(path)?;
                let _file = SocketFile { path: path.clone(), inode: fs::symlink_metadata(path)?.ino() };
                fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
                Ok(Self::Unix { listener, _file })
            }
            Host::Tcp { host, port } => Ok(Self::Tcp(TcpListener::bind((host.as_str(), *port)).await?)),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
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

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/netd.sock");
        let host = Host::Unix(path.clone());
        let listener = Listener::bind(&host).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let error = Listener::bind(&host).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("is the socket of a process that listens there"));
        drop(listener);
        assert!(!path.exists());
        // A socket closed without its file removed is what a killed daemon leaves.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&host).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        fs::write(&path, "mine").unwrap();
        let error = Listener::bind(&Host::Unix(path.clone())).await.unwrap_err();
        assert!(error.to_string().contains("is not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn the_file_of_another_listener_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netd.sock");
        let first = Listener::bind(&Host::Unix(path.clone())).await.unwrap();
        fs::rename(&path, directory.path().join("moved")).unwrap();
        let second = Listener::bind(&Host::Unix(path.clone())).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
        drop(second);
    }
}

//! Notifies systemd that the service is up, if it is of `Type=notify`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// systemd's socket: a path, or an abstract name behind an `@`.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";

pub fn ready() {
    let Some(socket) = env::var_os(SOCKET) else { return };
    if let Err(error) = send(&socket, b"READY=1") {
        tracing::warn!(%error, "cannot notify systemd, which may time out and stop this process: {error}");
    }
}

fn send(socket: &OsStr, what: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(what, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_by_either_kind_of_socket() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let name = format!("hookledger-test-{}", std::process::id());
        let by_path = (UnixDatagram::bind(&path).expect("a socket"), path.into_os_string());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = (UnixDatagram::bind_addr(&address).expect("a socket"), format!("@{name}").into());
        for (systemd, socket) in [by_path, by_name] {
            send(&socket, b"READY=1").expect("the socket is open");
            let mut heard = [0; 16];
            let length = systemd.recv(&mut heard).expect("a message");
            assert_eq!(&heard[..length], b"READY=1");
        }
        assert!(send(OsStr::new("/missing"), b"READY=1").is_err());
    }
}

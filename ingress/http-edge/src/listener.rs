//! The listening socket: our own, or one that another process holds for us, so that a restart refuses no connection.
//!
//! The holder (systemd, or `ingress --hold`) announces it in `LISTEN_FDS`, as systemd does. New connections wait in
//! the socket's backlog, which outlives us.

use std::net::{SocketAddr, TcpListener};
use std::{fs, io};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Linux caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const BACKLOG_CAP: &str = "/proc/sys/net/core/somaxconn";

/// The socket that was handed to us, else one of our own on this address.
pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    warn_if_capped();
    let Some(held) = held()? else { return bind(address) };
    let held_on = held.local_addr()?;
    if held_on != address && address.port() != 0 {
        tracing::warn!(%held_on, %address, "the socket that was handed to us listens on {held_on}; the address that is set, {address}, is not used");
    }
    // The holder may have asked for a shorter backlog.
    SockRef::from(&held).listen(BACKLOG)?;
    Ok(held)
}

/// Whether another process announces a socket: its address, not the one in the settings, is then used.
pub fn is_handed_over() -> bool {
    std::env::var_os("LISTEN_FDS").is_some()
}

fn held() -> io::Result<Option<TcpListener>> {
    let mut fds = ListenFd::from_env();
    match fds.len() {
        0 => Ok(None),
        1 => fds.take_tcp_listener(0),
        count => {
            Err(io::Error::other(format!("LISTEN_FDS brings {count} sockets, but there is one port for webhooks")))
        }
    }
}

/// A cap that cannot be read is ignored: other systems keep it elsewhere.
fn warn_if_capped() {
    let cap = fs::read_to_string(BACKLOG_CAP).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(cap) = cap.filter(|cap| *cap < BACKLOG) {
        tracing::warn!(
            cap,
            "the system lets {cap} connections wait where we ask for {BACKLOG}: more than that during a restart are slowed down; \
             raise net.core.somaxconn"
        );
    }
}

pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The last run's connections may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// A program that another test starts has all our sockets, from its fork to its first instruction.
    const LEFT_WITHIN: Duration = Duration::from_secs(30);

    #[test]
    fn a_port_that_was_just_left_is_taken_again() {
        let first = listener(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = first.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("a connection");
        // Whoever closes first is the one that waits.
        drop(first.accept().expect("the connection"));
        drop((first, client));
        let began = Instant::now();
        let again = loop {
            match listener(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < LEFT_WITHIN => {
                    thread::sleep(Duration::from_millis(1));
                }
                taken => break taken,
            }
        };
        assert_eq!(again.and_then(|again| again.local_addr()).expect("the same port"), address);
    }

    #[test]
    fn a_port_that_somebody_has_is_refused() {
        let first = listener(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = first.local_addr().expect("an address");
        let second = listener(address).expect_err("taken");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }
}

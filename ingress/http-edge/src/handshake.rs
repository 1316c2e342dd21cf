//! The steps before HTTP: the PROXY protocol and TLS, where enabled.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use actix_web::HttpRequest;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::connections::Guard;
use crate::networks::Networks;
use crate::observer::Ended;
use crate::proxy;
use crate::throttled_stream::Line;
use crate::tls::BUFFER_BYTES_MAX;

#[derive(Clone)]
pub(super) struct Handshake {
    /// Every connection must begin with a PROXY header of one of these.
    pub(super) named_by: Option<Networks>,
    pub(super) tls: Option<TlsAcceptor>,
}

impl Handshake {
    /// Determines the client's address and sets up the stream for HTTP.
    pub(super) async fn perform(&self, mut socket: TcpStream, guard: &Guard) -> Result<(Line, SocketAddr), Ended> {
        let mut peer = socket.peer_addr().map_err(|_| Ended::Gone)?;
        if let Some(proxies) = &self.named_by {
            if !proxies.contains(peer.ip()) {
                return Err(Ended::NoProxy);
            }
            match read_header(&mut socket).await? {
                Some(client) => {
                    guard.comes_from(client.ip());
                    peer = client;
                }
                None => guard.connection.set_proxys_own(),
            }
        }
        let Some(acceptor) = &self.tls else { return Ok((Line::Plain(socket), peer)) };
        let bounded = |session: &mut tokio_rustls::rustls::ServerConnection| {
            session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        };
        match acceptor.accept_with(socket, bounded).await {
            Ok(session) => Ok((Line::Tls(Box::new(session)), peer)),
            Err(_) => Err(Ended::NoTls),
        }
    }
}

/// Reads exactly the PROXY header, with the client's address.
async fn read_header(socket: &mut TcpStream) -> Result<Option<SocketAddr>, Ended> {
    let mut bytes = vec![0; proxy::FIXED_BYTES];
    let mut have = 0;
    loop {
        let read = socket.read(&mut bytes[have..]).await.map_err(|_| Ended::Gone)?;
        have += read;
        match proxy::parse(&bytes[..have]).map_err(|_| Ended::NoProxy)? {
            Some(header) => return Ok(header.source),
            None if read == 0 => return Err(Ended::NoProxy),
            None if have == proxy::FIXED_BYTES => bytes.resize(proxy::whole_bytes(&bytes), 0),
            None => {}
        }
    }
}

/// The address of the client, also behind proxies that speak the PROXY protocol.
pub fn peer(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|address| address.ip().to_canonical())
}

/// Whether a proxy opened the connection for itself, by its PROXY header (`LOCAL`, or a client of no known family): a
/// health check. It forwards no client then, so its headers about one are not trusted.
pub fn is_proxys_own(request: &HttpRequest) -> bool {
    request.conn_data::<Rc<Guard>>().is_some_and(|guard| guard.connection.is_proxys_own())
}

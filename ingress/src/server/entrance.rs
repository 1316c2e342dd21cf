//! What comes before HTTP: who it is, where a proxy tells, and TLS, where we speak it.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::crowd::Member;
use super::proxy;
use super::tls::BUFFER_BYTES_MAX;
use super::wire::Line;
use crate::metrics::Ended;
use crate::proxies::Proxies;

/// How connections are greeted. Cheap to clone.
#[derive(Clone)]
pub(super) struct Entrance {
    /// Where set, every connection begins with the word of one of these proxies.
    pub(super) told_by: Option<Proxies>,
    /// Where set, TLS is spoken.
    pub(super) tls: Option<TlsAcceptor>,
}

impl Entrance {
    /// Finds out who it is and makes what HTTP is spoken over.
    pub(super) async fn greet(&self, mut socket: TcpStream, member: &Member) -> Result<(Line, SocketAddr), Ended> {
        let mut peer = socket.peer_addr().map_err(|_| Ended::Gone)?;
        if let Some(proxies) = &self.told_by {
            if !proxies.trusts(peer.ip()) {
                return Err(Ended::NoProxy);
            }
            if let Some(client) = told(&mut socket).await? {
                member.comes_from(client.ip());
                peer = client;
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

/// The client's address as a proxy tells it, and not a byte more of what comes.
async fn told(socket: &mut TcpStream) -> Result<Option<SocketAddr>, Ended> {
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

/// Who is at the other end, be it through proxies that speak the PROXY protocol.
pub fn peer(request: &HttpRequest) -> Option<IpAddr> {
    request.peer_addr().map(|address| address.ip().to_canonical())
}

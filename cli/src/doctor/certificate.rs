//! The certificate chain that a server shows, verified as a client does it, and the day on which it ends.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

const WAIT_MAX: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// No certificate lasts longer from now.
const DAYS_MAX: u32 = 40 * 365;

/// Verifies chains with certificates that are trusted.
pub struct Trusted {
    verifier: Arc<WebPkiServerVerifier>,
    pub certificates: Option<Vec<CertificateDer<'static>>>,
}

impl Trusted {
    /// Those of a file, else Mozilla's.
    pub fn read(file: Option<&Path>) -> anyhow::Result<Self> {
        let certificates = file.map(certificates_of).transpose()?;
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(certificates) = &certificates {
            roots.roots.clear();
            for certificate in certificates {
                roots.add(certificate.clone()).context("a certificate of --ca-file")?;
            }
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Self { verifier, certificates })
    }

    /// For how many whole days the chain that this server shows is valid; an error if it is not.
    pub fn days_left(&self, address: SocketAddr, host: &str) -> Result<u32, Broken> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Broken::Handshake("it is no name".into()))?;
        let shown = shown_by(address, &name)?;
        let valid_in = |days: u32| {
            let at = UnixTime::since_unix_epoch(now() + DAY * days);
            let (first, others) = shown.split_first().ok_or(Error::NoCertificatesPresented)?;
            self.verifier.verify_server_cert(first, others, &name, &[], at).map(drop)
        };
        valid_in(0).map_err(|error| Broken::Chain(explain(&error)))?;
        let (mut valid, mut over) = (0, DAYS_MAX);
        while over - valid > 1 {
            let middle = u32::midpoint(valid, over);
            if valid_in(middle).is_ok() { valid = middle } else { over = middle }
        }
        Ok(valid)
    }
}

/// Why a chain cannot be relied on.
pub enum Broken {
    Connect(io::Error),
    Handshake(String),
    /// What is wrong, and the remedy.
    Chain((String, &'static str)),
}

fn certificates_of(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || anyhow::Ok(CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?);
    let certificates = read().with_context(|| format!("read certificates from {}", file.display()))?;
    anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate as PEM", file.display());
    Ok(certificates)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The chain as the server sends it, whatever it is worth.
fn shown_by(address: SocketAddr, name: &ServerName<'static>) -> Result<Vec<CertificateDer<'static>>, Broken> {
    let recorder = Arc::new(Recorder { shown: Mutex::default(), provider: provider() });
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Broken::Handshake(error.to_string()))?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::clone(&recorder) as _).with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), name.clone());
    let mut connection = connection.map_err(|error| Broken::Handshake(error.to_string()))?;
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        Ok(stream)
    };
    let mut stream = connect().map_err(Broken::Connect)?;
    let finished = connection.complete_io(&mut stream);
    let shown = std::mem::take(&mut *recorder.shown.lock().unwrap_or_else(PoisonError::into_inner));
    match finished {
        Err(error) if shown.is_empty() => Err(Broken::Handshake(error.to_string())),
        // The server may want more of a client than a look at its certificate.
        Ok(_) | Err(_) => Ok(shown),
    }
}

/// Records a chain and trusts it: nothing is sent to that server.
#[derive(Debug)]
struct Recorder {
    shown: Mutex<Vec<CertificateDer<'static>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(first).chain(others).map(|certificate| certificate.clone().into_owned()).collect();
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, schemes)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "rustls adds reasons")]
fn explain(error: &Error) -> (String, &'static str) {
    let Error::InvalidCertificate(reason) = error else {
        return (error.to_string(), "look at the proxy's certificate");
    };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("the certificate has expired".to_owned(), "renew it, and see why that was not done by itself")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("the certificate is not valid yet".to_owned(), "see the clock of this machine and when it was issued")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ("the certificate is for other names".to_owned(), "get one for the name of --url, or correct --url")
        }
        CertificateError::UnknownIssuer => (
            "the certificate's issuer is not known: it signed itself, or the chain lacks an intermediate".to_owned(),
            "give the server the whole chain (fullchain.pem), of a public certificate authority",
        ),
        other => (format!("the certificate is not accepted: {other}"), "look at the proxy's certificate"),
    }
}

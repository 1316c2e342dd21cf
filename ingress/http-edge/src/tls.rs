//! TLS with certificate and key from files, read again when they change, so that a renewal needs no restart.
//!
//! An unusable file changes nothing: the former certificate stays in use, and a warning is logged.

use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::expiry::expires_at_s;

/// The interval of checks for changed files.
pub(super) const RELOAD_WAIT: Duration = Duration::from_secs(5);
/// Larger than any certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Bytes of output that the socket has not taken yet, for each connection.
pub(super) const BUFFER_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, our own certificate first, as PEM.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// The current certificate, and its files.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    shown: RwLock<Arc<CertifiedKey>>,
    /// The last texts, valid or not.
    read: Mutex<Pem>,
}

/// The texts of both files. Not to be printed: one of them is a secret.
#[derive(PartialEq, Eq)]
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}

impl Tls {
    pub(super) fn open(files: TlsFiles) -> anyhow::Result<Arc<Self>> {
        let read = files.read()?;
        let shown = certified(&read).with_context(|| files.named())?;
        Ok(Arc::new(Self { files, shown: RwLock::new(Arc::new(shown)), read: Mutex::new(read) }))
    }

    pub(super) fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("choose the versions of TLS")?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        let mut config = config;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Checks for changed files. Returns whether there is another certificate now.
    pub(super) fn reload(&self) -> bool {
        let Ok(now) = self.files.read() else {
            // A renewal may be half done.
            return false;
        };
        let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == now {
            return false;
        }
        let certified = certified(&now);
        *before = now;
        match certified {
            Ok(certified) => {
                *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                tracing::info!(file = %self.files.cert.display(), "the TLS certificate was renewed: new connections see the new one");
                true
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(
                    file = %self.files.cert.display(),
                    why,
                    "the new TLS certificate or its key cannot be used, the old one stays in use: {why}. Replace the \
                     certificate and its key before the old one expires"
                );
                false
            }
        }
    }

    /// In seconds of Unix time.
    pub(super) fn expires_at_s(&self) -> Option<i64> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        expires_at_s(shown.cert.first()?)
    }
}

impl ResolvesServerCert for Tls {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl TlsFiles {
    /// Whether the files can be used now.
    pub fn check(&self) -> anyhow::Result<()> {
        certified(&self.read()?).map(drop).with_context(|| self.named())
    }

    fn read(&self) -> anyhow::Result<Pem> {
        let read = |path: &PathBuf| {
            let length = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.len();
            anyhow::ensure!(length <= FILE_BYTES_MAX, "{} is too large for a certificate or key", path.display());
            fs::read(path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Pem { cert: read(&self.cert)?, key: read(&self.key)? })
    }

    fn named(&self) -> String {
        format!("use the certificate {} with the key {}", self.cert.display(), self.key.display())
    }
}

fn certified(pem: &Pem) -> anyhow::Result<CertifiedKey> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&pem.cert).collect::<Result<_, _>>().context("read the certificate")?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in the file");
    // The reason might repeat a part of the file.
    let key =
        PrivateKeyDer::from_pem_slice(&pem.key).map_err(|_| anyhow::anyhow!("there is no private key in the file"))?;
    // Compares the key with the certificate where it can.
    CertifiedKey::from_der(chain, key, &ring::default_provider()).context("use them together")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key, as PEM.
    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_that_cannot_be_used_change_nothing_and_are_told_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let put = |cert: &str, key: &str| {
            fs::write(&files.cert, cert).expect("a file");
            fs::write(&files.key, key).expect("a file");
        };
        let ((cert, key), (other_cert, other_key)) = (made(), made());
        put(&cert, &key);
        let tls = Tls::open(files.clone()).expect("a certificate and its key");
        let shown = || tls.shown.read().expect("no panic").cert[0].to_vec();
        let first = shown();
        assert!(!tls.reload(), "nothing has changed");
        for (cert, key) in [(&*cert, &*other_key), (&*other_cert, "no key"), ("", ""), ("no certificate", &*key)] {
            put(cert, key);
            assert!(!tls.reload());
            assert!(!tls.reload(), "looked at once");
            assert_eq!(shown(), first);
        }
        fs::remove_file(&files.key).expect("a file");
        assert!(!tls.reload());
        put(&other_cert, &other_key);
        assert!(tls.reload());
        assert_ne!(shown(), first);
    }

    #[test]
    fn a_start_with_files_that_do_not_fit_says_so_without_showing_the_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
        let (cert, _) = made();
        fs::write(&files.cert, cert).expect("a file");
        let secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        fs::write(&files.key, secret).expect("a file");
        let error = format!("{:#}", Tls::open(files).expect_err("no key"));
        assert!(error.contains("cert.pem") && error.contains("key.pem"), "{error}");
        assert!(!error.contains("c2VjcmV0") && !error.contains("secret"), "{error}");
    }
}

//! TLS: whom we trust and what we show, per host.
//!
//! `certs.d/<host[:port]>/` as docker has it: every `*.crt` is a certificate authority trusted for this host beside the
//! system's, every `NAME.cert` with its `NAME.key` is a client certificate. The provider is ring, given explicitly, so
//! that no other crate's features can change it.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::error::Error;

/// Makes and keeps the TLS settings of each host.
#[derive(Debug)]
pub(super) struct TlsSettings {
    cert_dirs: Vec<PathBuf>,
    verify: bool,
    provider: Arc<CryptoProvider>,
    /// The system's authorities: read when the first certificate is to be verified, which for a registry that speaks
    /// plain http on loopback is never.
    system: Arc<OnceLock<Vec<CertificateDer<'static>>>>,
    hosts: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl TlsSettings {
    pub(super) fn new(cert_dirs: &[PathBuf], verify: bool) -> Self {
        Self {
            cert_dirs: cert_dirs.to_vec(),
            verify,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            system: Arc::default(),
            hosts: Mutex::default(),
        }
    }

    /// The settings for `authority` (`host[:port]`).
    pub(super) fn of(&self, authority: &str) -> Result<Arc<ClientConfig>, Error> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = hosts.get(authority) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(authority)?);
        hosts.insert(authority.to_owned(), config.clone());
        Ok(config)
    }

    fn build(&self, authority: &str) -> Result<ClientConfig, Error> {
        let files = HostFiles::read(&self.cert_dirs, authority)?;
        let broken = |reason: String| Error::Untrusted { host: authority.to_owned(), reason };
        let builder = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(rustls::ALL_VERSIONS)
            .map_err(|error| broken(error.to_string()))?
            .dangerous();
        let builder = if self.verify {
            builder.with_custom_certificate_verifier(Arc::new(Verifier {
                own: files.authorities,
                system: self.system.clone(),
                provider: self.provider.clone(),
                webpki: OnceLock::new(),
            }))
        } else {
            builder.with_custom_certificate_verifier(Arc::new(NoVerifier(self.provider.clone())))
        };
        match files.client {
            None => Ok(builder.with_no_client_auth()),
            Some((certificates, key)) => {
                builder.with_client_auth_cert(certificates, key).map_err(|error| broken(error.to_string()))
            }
        }
    }
}

/// What lies in the `certs.d` directories for one host.
#[derive(Debug, Default)]
struct HostFiles {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl HostFiles {
    fn read(dirs: &[PathBuf], authority: &str) -> Result<Self, Error> {
        let mut files = Self::default();
        for dir in dirs.iter().map(|dir| dir.join(authority)) {
            let entries = match fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(bad(&dir, &error)),
            };
            let mut paths: Vec<PathBuf> = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
                .map_err(|error| bad(&dir, &error))?;
            paths.sort();
            for path in paths {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => files.authorities.extend(certificates(&path)?),
                    Some("cert") if files.client.is_none() => {
                        let key = path.with_extension("key");
                        let pem = PrivateKeyDer::from_pem_file(&key).map_err(|error| bad(&key, &error))?;
                        files.client = Some((certificates(&path)?, pem));
                    }
                    _ => {}
                }
            }
        }
        Ok(files)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| bad(path, &error))?;
    if found.is_empty() {
        return Err(bad(path, &"no certificate in it"));
    }
    Ok(found)
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Certificate { path: path.to_owned(), reason: error.to_string() }
}

/// Verifies as webpki does, with roots read on first use.
#[derive(Debug)]
struct Verifier {
    own: Vec<CertificateDer<'static>>,
    system: Arc<OnceLock<Vec<CertificateDer<'static>>>>,
    provider: Arc<CryptoProvider>,
    webpki: OnceLock<Result<Arc<WebPkiServerVerifier>, String>>,
}

impl Verifier {
    fn webpki(&self) -> Result<&Arc<WebPkiServerVerifier>, rustls::Error> {
        let made = self.webpki.get_or_init(|| {
            let system = self.system.get_or_init(|| {
                let loaded = rustls_native_certs::load_native_certs();
                for error in &loaded.errors {
                    log::warn!("system certificates: {error}");
                }
                loaded.certs
            });
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(self.own.iter().chain(system).cloned());
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|error| format!("no certificate authority to trust: {error}"))
        });
        made.as_ref().map_err(|reason| rustls::Error::General(reason.clone()))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki()?.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        // docker's manual makes registries' certificates that sign themselves and call themselves an authority. webpki
        // refuses an authority as a server, but only after it has checked the dates. One that the administrator has
        // put into certs.d as it stands is trusted for its own names.
        match &verified {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if format!("{other:?}").contains("CaUsedAsEndEntity") && self.own.contains(end_entity) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts anybody: for registries that the user called insecure.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate, in words.
pub(super) fn explain(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "it is signed by an authority we do not know".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it signs itself".into()
        }
        other => other.to_string(),
    }
}

//! Certificates: where they lie, and what is in the files.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::settings::{Invalid, Settings};

/// How TCP is served with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The daemon's own certificate, and those who vouch for its clients.
    pub files: CertificateFiles,
    /// Whether a client has to show a certificate that `files.ca` vouches for.
    pub verify: bool,
}

/// Files of one side of a connection, each in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Those who vouch for the other side.
    pub ca: PathBuf,
    /// This side's certificate, with those between it and its root.
    pub cert: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
}

impl Tls {
    /// `None` for no TLS. Whoever says anything of `tlsverify` wants TLS, as Docker has it.
    pub(super) fn read(settings: &Settings, directory: &Path) -> Result<Option<Self>, Invalid> {
        let (on, verify) = (settings.boolean("tls")?, settings.boolean("tlsverify")?);
        let file = |key: &str, name: &str| {
            Ok(settings.text(key)?.map_or_else(|| directory.join(name), PathBuf::from))
        };
        let files = CertificateFiles {
            ca: file("tlscacert", "ca.pem")?,
            cert: file("tlscert", "cert.pem")?,
            key: file("tlskey", "key.pem")?,
        };
        let on = verify.is_some() || on == Some(true);
        Ok(on.then(|| Self { files, verify: verify.unwrap_or(true) }))
    }
}

/// Where certificates are looked for that nobody named a file for: Docker's places, after netd's own variable.
pub fn certificate_directory(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    let named = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || named("HOME").unwrap_or_else(|| PathBuf::from("/root"));
    named("NETD_CERT_PATH").or_else(|| named("DOCKER_CERT_PATH")).unwrap_or_else(|| home().join(".docker"))
}

impl CertificateFiles {
    /// Those who vouch for the other side.
    ///
    /// # Errors
    /// Names the file.
    pub fn roots(&self) -> Result<RootCertStore, String> {
        let fail = |reason: &dyn std::fmt::Display| {
            format!("could not read CA certificate \"{}\": {reason}", self.ca.display())
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).map_err(|error| fail(&error))? {
            roots.add(certificate.map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
        }
        if roots.is_empty() { Err(fail(&"there is no certificate in it")) } else { Ok(roots) }
    }

    /// This side's certificate and its key.
    ///
    /// # Errors
    /// Names the files.
    pub fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let fail = |reason: &dyn std::fmt::Display| {
            let (cert, key) = (self.cert.display(), self.key.display());
            format!("could not load X509 key pair (cert: \"{cert}\", key: \"{key}\"): {reason}")
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.cert)
            .and_then(Iterator::collect)
            .map_err(|error| fail(&error))?;
        if chain.is_empty() {
            return Err(fail(&"there is no certificate in the first"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| fail(&error))?;
        Ok((chain, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Tls> {
        Tls::read(&Settings::parse(json.as_bytes()).unwrap(), Path::new("/certs")).unwrap()
    }

    #[test]
    fn tls_verifies_its_clients_unless_told_not_to() {
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"tls": false}"#), None);
        assert!(read(r#"{"tls": true}"#).unwrap().verify);
        assert!(read(r#"{"tlsverify": true}"#).unwrap().verify);
        assert!(!read(r#"{"tls": true, "tlsverify": false}"#).unwrap().verify);
        assert!(!read(r#"{"tlsverify": false}"#).unwrap().verify);
        let files = read(r#"{"tls": true, "tlskey": "/k"}"#).unwrap().files;
        assert_eq!((files.ca, files.key), (PathBuf::from("/certs/ca.pem"), PathBuf::from("/k")));
    }

    #[test]
    fn certificates_lie_where_dockers_do() {
        let directory = |set: &[(&str, &str)]| {
            let set: Vec<_> =
                set.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
            certificate_directory(|name| {
                set.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone())
            })
        };
        assert_eq!(directory(&[]), Path::new("/root/.docker"));
        assert_eq!(directory(&[("HOME", "/h"), ("NETD_CERT_PATH", "")]), Path::new("/h/.docker"));
        assert_eq!(directory(&[("HOME", "/h"), ("DOCKER_CERT_PATH", "/d")]), Path::new("/d"));
        assert_eq!(directory(&[("DOCKER_CERT_PATH", "/d"), ("NETD_CERT_PATH", "/n")]), Path::new("/n"));
    }

    #[test]
    fn files_that_are_not_there_or_hold_nothing_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let files = CertificateFiles { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") };
        assert!(files.roots().unwrap_err().contains("ca.pem"));
        assert!(files.identity().unwrap_err().contains("cert.pem"));
        for file in [&files.ca, &files.cert] {
            std::fs::write(file, "nothing of the kind").unwrap();
        }
        assert!(files.roots().unwrap_err().ends_with("there is no certificate in it"));
        assert!(files.identity().unwrap_err().ends_with("there is no certificate in the first"));
    }
}

//! Certificates of a made-up authority, laid out as Docker's command line looks for them.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// Somebody who vouches for daemons and clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// A new one, that nobody knows.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names are fine");
        // Who signed a certificate is looked up by name first: another authority must have another.
        let name =
            u64::from_be_bytes(key.public_key_raw()[1..9].try_into().expect("a key is longer than that"));
        parameters.distinguished_name.push(DnType::CommonName, format!("authority {name:x}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// A directory with `cert.pem` and `key.pem` of a daemon at the loopback, and `ca.pem` of those who vouch for its clients.
    pub fn daemon(&self) -> TempDir {
        self.directory(&["localhost", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth, self)
    }

    /// A directory with `cert.pem` and `key.pem` of a client, and `ca.pem` of those who vouch for `daemon`.
    pub fn client(&self, daemon: &Self) -> TempDir {
        self.directory(&["client"], ExtendedKeyUsagePurpose::ClientAuth, daemon)
    }

    /// A directory with nothing but `ca.pem`: a client that nobody vouches for.
    pub fn stranger(&self) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(directory.path(), "ca.pem", &self.certificate);
        directory
    }

    fn directory(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose, other: &Self) -> TempDir {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let directory = other.stranger();
        write(directory.path(), "cert.pem", &certificate.pem());
        write(directory.path(), "key.pem", &key.serialize_pem());
        directory
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("writing a certificate");
}

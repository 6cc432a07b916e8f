//! Our own key and certificate.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::files::{self, Lock, failed};
use super::{Fingerprint, PeerIdentity, TrustError};

/// A private key and its self-signed certificate.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    /// Wiped on drop.
    key: Zeroizing<PrivateKeyDer<'static>>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A new Ed25519 identity, in memory only.
    ///
    /// # Errors
    /// [`TrustError::Generate`] if the system has no randomness to give.
    pub fn generate() -> Result<Self, TrustError> {
        let (certificate, key) = generate_pair()?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|reason| TrustError::Tls(rustls::Error::General(reason.to_owned())))?;
        let key = Zeroizing::new(key);
        let fingerprint =
            PeerIdentity::from_certificate(certificate.der()).map_err(TrustError::Tls)?.fingerprint;
        Ok(Self { chain: vec![certificate.der().clone()], key, fingerprint })
    }

    /// The identity `name` in the directory `home` (files `<name>.crt` and `<name>.key`, PEM);
    /// generated, and the directory made, if neither file exists.
    ///
    /// Files of the original imux (RSA-2048 in PKCS#1) are used as they are: servers keep the key
    /// they are known by.
    ///
    /// # Errors
    /// If a file is missing, unreadable or unusable, or others may read a private key. Nothing is
    /// overwritten.
    pub fn load_or_create(home: &Path, name: &str) -> Result<Self, TrustError> {
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(TrustError::InvalidName(name.to_owned()));
        }
        let files = Paths::of(home, name);
        // Just reading needs no lock, which a read-only disk could not give.
        let unusable = match files.load_if_whole() {
            Ok(Some(identity)) => return Ok(identity),
            seen => seen.err(),
        };
        // Two processes started at once must end up with one identity, so look and write under one
        // lock. It also waits for any change of keys under way.
        let lock = files::create_dir(home).and_then(|()| Lock::take(&files.key));
        let _lock = lock.map_err(|unwritable| unusable.unwrap_or(unwritable))?;
        files.complete()?;
        files.load()
    }

    /// The identity `name`, if it has a key; creates none.
    ///
    /// # Errors
    /// As [`load_or_create`](Self::load_or_create).
    pub fn load(home: &Path, name: &str) -> Result<Option<Self>, TrustError> {
        let path = Paths::of(home, name).key;
        if path.try_exists().map_err(failed("look for", &path))? {
            Self::load_or_create(home, name).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The next key of the identity `name`, made by [`prepare_next`](Self::prepare_next).
    ///
    /// # Errors
    /// As [`load_or_create`](Self::load_or_create).
    pub fn load_next(home: &Path, name: &str) -> Result<Option<Self>, TrustError> {
        Self::load(home, &next_name(name))
    }

    /// Makes the next key of the identity `name`, unless it exists.
    ///
    /// # Errors
    /// As [`load_or_create`](Self::load_or_create).
    pub fn prepare_next(home: &Path, name: &str) -> Result<Self, TrustError> {
        Self::load_or_create(home, &next_name(name))
    }

    /// Replaces the key of the identity `name` by its next key, for good; `None` if there is no
    /// next one.
    ///
    /// # Errors
    /// As [`load_or_create`](Self::load_or_create). If interrupted, it can be called again.
    pub fn change_to_next(home: &Path, name: &str) -> Result<Option<Self>, TrustError> {
        if Self::load_next(home, name)?.is_none() {
            return Ok(None);
        }
        let (current, next) = (Paths::of(home, name), Paths::of(home, &next_name(name)));
        {
            let _lock = Lock::take(&current.key)?;
            // Certificates are made again from their keys: an interruption still leaves one whole
            // key.
            for certificate in [&current.crt, &next.crt] {
                match fs::remove_file(certificate) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed("remove", certificate)(error));
                    }
                    _ => {}
                }
            }
            fs::rename(&next.key, &current.key).map_err(failed("replace", &current.key))?;
        }
        Self::load_or_create(home, name).map(Some)
    }

    /// The fingerprint of the key, by which peers know us.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn certificate_chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    pub(super) fn private_key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// In the form TLS takes. The key's encoding is not copied.
    pub(super) fn certified_key(&self) -> Result<CertifiedKey, rustls::Error> {
        certified_key(self.chain.clone(), &self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn generate_pair() -> Result<(rcgen::Certificate, KeyPair), TrustError> {
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(TrustError::Generate)?;
    Ok((certify(&key)?, key))
}

fn certify(key: &KeyPair) -> Result<rcgen::Certificate, TrustError> {
    // Nobody reads the dates (rcgen's span 1975 to 4096): a key is valid until its owner or its
    // peer drops it.
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "imux");
    params.self_signed(key).map_err(TrustError::Generate)
}

/// A key with its certificate, if they match.
fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(key)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(error) => Err(error),
    }
}

struct Paths {
    crt: PathBuf,
    key: PathBuf,
}

fn next_name(name: &str) -> String {
    format!("{name}.next")
}

impl Paths {
    fn of(home: &Path, name: &str) -> Self {
        Self { crt: home.join(format!("{name}.crt")), key: home.join(format!("{name}.key")) }
    }

    /// Reads both files, if both exist.
    fn load_if_whole(&self) -> Result<Option<Identity>, TrustError> {
        let there = |path: &PathBuf| path.try_exists().map_err(failed("look for", path));
        if there(&self.crt)? && there(&self.key)? { self.load().map(Some) } else { Ok(None) }
    }

    /// Creates what is missing, as long as that changes no identity.
    fn complete(&self) -> Result<(), TrustError> {
        let there = |path: &PathBuf| path.try_exists().map_err(failed("look for", path));
        match (there(&self.crt)?, there(&self.key)?) {
            (true, true) => Ok(()),
            (false, false) => {
                let (certificate, key) = generate_pair()?;
                files::replace(&self.key, Zeroizing::new(key.serialize_pem()).as_bytes())?;
                files::replace(&self.crt, certificate.pem().as_bytes())
            }
            (false, true) => self.certify_again(),
            (true, false) => {
                let (present, missing) = (self.crt.clone(), self.key.clone());
                Err(TrustError::HalfIdentity { present, missing })
            }
        }
    }

    /// A crash between the two files leaves a key of ours without a certificate. An RSA key's
    /// certificate is not made again: the original's clients know a server by the certificate they
    /// have seen.
    fn certify_again(&self) -> Result<(), TrustError> {
        let pem = read_private(&self.key)?;
        let key = std::str::from_utf8(&pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
        match key {
            Some(key) if key.is_compatible(&PKCS_ED25519) => {
                files::replace(&self.crt, certify(&key)?.pem().as_bytes())
            }
            _ => {
                let (present, missing) = (self.key.clone(), self.crt.clone());
                Err(TrustError::HalfIdentity { present, missing })
            }
        }
    }

    fn load(&self) -> Result<Identity, TrustError> {
        let chain = self.load_chain()?;
        let key = self.load_key()?;
        let invalid = |path: &Path, what, reason: &dyn fmt::Display| TrustError::InvalidIdentity {
            path: path.to_owned(),
            what,
            reason: reason.to_string(),
        };
        // The chain is not empty, see load_chain.
        let identity = PeerIdentity::from_certificate(&chain[0])
            .map_err(|error| invalid(&self.crt, "certificate", &error))?;
        certified_key(chain.clone(), &key)
            .map_err(|error| invalid(&self.key, "private key", &error))?;
        Ok(Identity { chain, key, fingerprint: identity.fingerprint })
    }

    fn load_chain(&self) -> Result<Vec<CertificateDer<'static>>, TrustError> {
        let pem = fs::read(&self.crt).map_err(failed("read", &self.crt))?;
        let invalid = |reason: String| TrustError::InvalidIdentity {
            path: self.crt.clone(),
            what: "certificate",
            reason,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        if chain.is_empty() {
            return Err(invalid("no PEM section CERTIFICATE in it".to_owned()));
        }
        Ok(chain)
    }

    fn load_key(&self) -> Result<Zeroizing<PrivateKeyDer<'static>>, TrustError> {
        let pem = read_private(&self.key)?;
        PrivateKeyDer::from_pem_slice(&pem).map(Zeroizing::new).map_err(|error| {
            TrustError::InvalidIdentity {
                path: self.key.clone(),
                what: "private key",
                reason: error.to_string(),
            }
        })
    }
}

/// Reads a file that must be private. The permissions checked are those of the very file that is
/// read.
fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, TrustError> {
    let read = || -> io::Result<(u32, Zeroizing<Vec<u8>>)> {
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        // As long as the file: growing would move it and leave copies behind.
        let mut contents = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
        file.read_to_end(&mut contents)?;
        Ok((mode, contents))
    };
    let (mode, contents) = read().map_err(failed("read", path))?;
    if mode & 0o077 != 0 {
        return Err(TrustError::LoosePermissions { path: path.to_owned(), mode });
    }
    Ok(contents)
}

#[cfg(test)]
mod tests;

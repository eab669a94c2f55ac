//! The configuration file: what differs between machines, and nothing about the protocol.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// Where the configuration is read from unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/vouchsafe/config.toml";
/// Where the daemon's socket is unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vouchsafe/api.sock";

/// The configuration of a daemon.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The TPM: `device:/dev/tpmrm0`, or `swtpm:host=HOST,port=PORT` for a software TPM.
    pub tpm: String,
    /// Where to listen, host:port, for UDP (QUIC) and TCP.
    pub listen: String,
    /// Where other hosts reach this one, host:port. May be left out where `listen` names an address of this machine.
    pub address: Option<String>,
    /// Folder of the store.
    pub state: PathBuf,
    /// The local socket.
    pub socket: PathBuf,
    /// Group that may use the local socket: `vouchsafe` where there is one and nothing else is said.
    pub socket_group: Option<String>,
    /// Credentials that this machine reads: `get NAME` knows the owner's key from here.
    pub credential: Vec<Wanted>,
}

/// A credential that this machine reads.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its owner's SSH public key.
    pub client: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tpm: "device:/dev/tpmrm0".to_owned(),
            listen: "0.0.0.0:7420".to_owned(),
            address: None,
            state: PathBuf::from("/var/lib/vouchsafe"),
            socket: PathBuf::from(DEFAULT_SOCKET),
            socket_group: None,
            credential: Vec::new(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It does not parse.
    #[error("{0}: {1}")]
    Form(PathBuf, toml::de::Error),
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read or does not parse.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read(path.to_owned(), error))?;
        toml::from_str(&text).map_err(|error| ConfigError::Form(path.to_owned(), error))
    }

    /// Reads the file; where there is none, everything is as by default.
    ///
    /// # Errors
    /// Where it is there and cannot be read or does not parse.
    pub fn read_or_default(path: &Path) -> Result<Self, ConfigError> {
        match Self::read(path) {
            Err(ConfigError::Read(_, error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            other => other,
        }
    }
}

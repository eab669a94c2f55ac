//! Software TPMs: each its own chip, with endorsement certificates from one local CA.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::children;
use crate::mesh::TestnetError;

/// The local CA of a testnet and its set-up files.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Writes the set-up files. The CA itself is made with the first certificate.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn new(folder: &Path) -> Result<Self, TestnetError> {
        let ca = folder.join("ca");
        std::fs::create_dir_all(&ca).map_err(|error| TestnetError::File(ca.clone(), error))?;
        let (dir, ca) = (folder.display(), ca.display());
        let files = [
            (
                "setup.conf",
                format!(
                    "create_certs_tool= /usr/bin/swtpm_localca\ncreate_certs_tool_config = {dir}/localca.conf\n\
                     create_certs_tool_options = {dir}/localca.options\nactive_pcr_banks = sha256\n"
                ),
            ),
            (
                "localca.conf",
                format!(
                    "statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n\
                     certserial = {ca}/certserial\n"
                ),
            ),
            (
                "localca.options",
                "--platform-manufacturer Vouchsafe\n--platform-version 1.0\n--platform-model testnet\n".to_owned(),
            ),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| TestnetError::File(path, error))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// Certificates at which endorsement certificates end.
    pub fn roots(&self) -> [PathBuf; 2] {
        [self.folder.join("ca/issuercert.pem"), self.folder.join("ca/swtpm-localca-rootca-cert.pem")]
    }

    /// Makes a chip: keys, certificates, locked NV. A second or less each.
    ///
    /// # Errors
    /// What the set-up tool says.
    pub fn make_chip(&self, state: &Path) -> Result<(), TestnetError> {
        std::fs::create_dir_all(state).map_err(|error| TestnetError::File(state.to_owned(), error))?;
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256", "--not-overwrite"])
            .arg("--tpmstate")
            .arg(state)
            .arg("--config")
            .arg(self.folder.join("setup.conf"))
            .output()
            .map_err(|error| TestnetError::Start("swtpm_setup".to_owned(), error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(TestnetError::Tool("swtpm_setup", String::from_utf8_lossy(&said).into_owned()))
    }
}

/// Powers a chip on, by this command: commands at this port, control at the next.
///
/// # Errors
/// Where it does not start.
pub fn power_on(mut swtpm: Command, state: &Path, port: u16, log: &Path) -> Result<u32, TestnetError> {
    let file = std::fs::File::create(log).map_err(|error| TestnetError::File(log.to_owned(), error))?;
    let second = file.try_clone().map_err(|error| TestnetError::File(log.to_owned(), error))?;
    children::spawn(
        swtpm
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port}"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={}", port + 1))
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second),
    )
}

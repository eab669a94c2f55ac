//! The TPM: one thread owns it, everybody else asks through a bounded queue. The only place that names tss-esapi.
//!
//! Chips wedge, and a command under way cannot be called back. So each question has a deadline on the asker's side, and
//! few may wait: while the owner does not answer, further questions fail at once.

mod chip;
mod sessions;

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spec::attest::enroll::EkOffer;
use spec::host::{TpmReply, TpmRequest};
use spec::types::SecretBytes;
use thiserror::Error;
use tokio::sync::oneshot;

/// Questions that may wait for the chip: evidence, a joining, and what restarts of both leave behind.
const QUEUE: usize = 8;
/// A quote takes 0.2 to 0.6 s on real chips, an RSA operation a second or two; beyond this the chip is wedged.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// Making this host's keys takes longer where a chip has RSA alone: slow ones look for primes for half a minute, twice.
const PROVISION_DEADLINE: Duration = Duration::from_secs(300);

/// What went wrong with the TPM.
#[derive(Debug, Error)]
pub enum TpmError {
    /// The device or socket cannot be opened.
    #[error("cannot open the TPM at `{0}`: {1}; see `tpm` in the configuration")]
    Open(String, String),
    /// The chip refused a command.
    #[error("the TPM refused {0}: {1}")]
    Command(&'static str, String),
    /// The chip has no endorsement key that the mesh takes.
    #[error("the TPM has no RSA-2048 or P-384 endorsement key")]
    NoEndorsementKey,
    /// The chip does not answer.
    #[error("the TPM does not answer")]
    Wedged,
}

/// What this chip made for this host: useless on any other chip.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChipKeys {
    /// The endorsement keys as they were first read: who this host is does not hang on reading them well each time.
    pub eks: Vec<StoredEk>,
    /// Which endorsement key the attestation key is a child of.
    pub parent: EkKind,
    /// TPM2B_PRIVATE of the attestation key.
    #[serde(with = "hex")]
    pub ak_private: Vec<u8>,
    /// TPMT_PUBLIC of the attestation key.
    #[serde(with = "hex")]
    pub ak_public: Vec<u8>,
    /// The store key, sealed.
    pub store_key: Sealed,
    /// The secret from which the period key follows, sealed.
    pub tpm_bound: Sealed,
}

/// An endorsement key of the chip.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEk {
    /// Which.
    pub kind: EkKind,
    /// TPMT_PUBLIC.
    #[serde(with = "hex")]
    pub public: Vec<u8>,
    /// X.509 DER; empty where the chip holds none.
    #[serde(with = "hex")]
    pub certificate: Vec<u8>,
}

/// A sealed data object.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// TPM2B_PRIVATE.
    #[serde(with = "hex")]
    pub private: Vec<u8>,
    /// TPMT_PUBLIC.
    #[serde(with = "hex")]
    pub public: Vec<u8>,
}

/// The endorsement keys that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EkKind {
    /// P-384, TCG template H-3.
    EccP384,
    /// RSA-2048, TCG template L-1.
    Rsa2048,
}

/// What an opened chip gives.
pub struct Opened {
    /// Endorsement keys with their certificates.
    pub eks: Vec<EkOffer>,
    /// The store key.
    pub store_key: SecretBytes,
    /// The secret from which the period key follows.
    pub tpm_bound: SecretBytes,
}

/// A question for the owner thread.
enum Question {
    Provision { ak_auth: SecretBytes, answer: oneshot::Sender<Result<ChipKeys, TpmError>> },
    Open { keys: Box<ChipKeys>, answer: oneshot::Sender<Result<Opened, TpmError>> },
    UseAk { ak_auth: SecretBytes, answer: oneshot::Sender<Result<(), TpmError>> },
    Ask { request: TpmRequest, answer: oneshot::Sender<Result<TpmReply, TpmError>> },
}

/// The way to the owner thread.
#[derive(Clone)]
pub struct Tpm {
    questions: SyncSender<Question>,
}

impl Tpm {
    /// Opens the chip (`device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`) and starts its owner.
    ///
    /// # Errors
    /// Where the chip cannot be opened, or does not answer.
    pub fn start(name: &str) -> Result<Self, TpmError> {
        let (questions, receiver) = sync_channel(QUEUE);
        let (opened, wait) = sync_channel(1);
        let device = name.to_owned();
        // Opening is commands already: the owner's, so that a wedged chip cannot hold up who waits here.
        let owner = move || match chip::Chip::open(&device) {
            Ok(chip) if opened.send(Ok(())).is_ok() => own(chip, &receiver),
            Ok(_) => {}
            Err(error) => drop(opened.send(Err(error))),
        };
        let spawned = thread::Builder::new().name("tpm".to_owned()).spawn(owner);
        spawned.map_err(|error| TpmError::Open(name.to_owned(), error.to_string()))?;
        wait.recv_timeout(COMMAND_DEADLINE).map_err(|_| TpmError::Wedged)??;
        Ok(Self { questions })
    }

    async fn put<T>(
        &self,
        deadline: Duration,
        question: impl FnOnce(oneshot::Sender<Result<T, TpmError>>) -> Question,
    ) -> Result<T, TpmError> {
        let (answer, wait) = oneshot::channel();
        match self.questions.try_send(question(answer)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(TpmError::Wedged),
        }
        match tokio::time::timeout(deadline, wait).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(TpmError::Wedged),
        }
    }

    /// Makes this host's keys in the chip.
    ///
    /// # Errors
    /// Where the chip refuses.
    pub async fn provision(&self, ak_auth: SecretBytes) -> Result<ChipKeys, TpmError> {
        self.put(PROVISION_DEADLINE, |answer| Question::Provision { ak_auth, answer }).await
    }

    /// Opens what this chip sealed, and reads its endorsement keys.
    ///
    /// # Errors
    /// Where the chip refuses: the keys are another chip's.
    pub async fn open(&self, keys: ChipKeys) -> Result<Opened, TpmError> {
        self.put(COMMAND_DEADLINE, |answer| Question::Open { keys: Box::new(keys), answer }).await
    }

    /// From now on quotes are made: the attestation key's authorisation value is known.
    ///
    /// # Errors
    /// Where the owner is gone.
    pub async fn use_ak(&self, ak_auth: SecretBytes) -> Result<(), TpmError> {
        self.put(COMMAND_DEADLINE, |answer| Question::UseAk { ak_auth, answer }).await
    }

    /// Answers a request of the host.
    ///
    /// # Errors
    /// Where the chip refuses or does not answer.
    pub async fn ask(&self, request: TpmRequest) -> Result<TpmReply, TpmError> {
        self.put(COMMAND_DEADLINE, |answer| Question::Ask { request, answer }).await
    }
}

fn own(mut chip: chip::Chip, questions: &Receiver<Question>) {
    // An asker that gave up has dropped its end; the answer goes nowhere, and the next question is taken.
    while let Ok(question) = questions.recv() {
        match question {
            Question::Provision { ak_auth, answer } => drop(answer.send(chip.provision(&ak_auth))),
            Question::Open { keys, answer } => drop(answer.send(chip.open_keys(*keys))),
            Question::UseAk { ak_auth, answer } => {
                chip.use_ak(ak_auth);
                drop(answer.send(Ok(())));
            }
            Question::Ask { request, answer } if answer.is_closed() => drop((request, answer)),
            Question::Ask { request, answer } => {
                let result = chip.answer(&request);
                if let Err(error) = &result {
                    // One failed read or write leaves the library's context unusable for good: it gets a new one.
                    tracing::warn!(%error, "the TPM is opened anew");
                    chip.reopen();
                }
                drop(answer.send(result));
            }
        }
    }
}

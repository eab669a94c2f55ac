//! A joiner's side of enrolment: measure → hello → challenge → answer. It asks again until it is answered or its time is up.

use crate::attest::enroll::{EkOffer, JoinerKeys, answer_digest, member_record};
use crate::attest::tpm::EkPublic;
use crate::error::Check;
use crate::limits::{JOIN_RETRY_MS, JOIN_UNREACHABLE_MS};
use crate::ticket::{SignedTicket, Ticket};
use crate::types::{Digest, SecretBytes, Time};
use crate::wire::{Address, EnrolHello};

/// What a joiner waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its TPM's PCR values.
    AwaitingPcrs,
    /// The coordinator's challenge.
    AwaitingChallenge,
    /// Its TPM: the secrets inside the challenge.
    AwaitingSecrets,
    /// Its TPM: the quote that answers.
    AwaitingQuote,
    /// The coordinator's word.
    AwaitingAdmission,
}

/// A joining under way.
pub struct Joining {
    /// The ticket's content.
    pub ticket: Ticket,
    /// Where the coordinator is.
    pub address: Address,
    /// What it waits for.
    pub stage: Stage,
    /// When it is given up.
    pub deadline: Time,
    /// When it asks again.
    pub retry_at: Option<Time>,
    signed: SignedTicket,
    keys: Option<JoinerKeys>,
}

impl Joining {
    /// Begins.
    ///
    /// # Errors
    /// [`Check::TicketSignature`] where the file is no ticket.
    pub fn new(signed: SignedTicket, address: Address, deadline: Time) -> Result<Self, Check> {
        let ticket = signed.ticket().ok_or(Check::TicketSignature)?;
        Ok(Self { ticket, address, stage: Stage::AwaitingPcrs, deadline, retry_at: None, signed, keys: None })
    }

    /// The keys are complete: the first message.
    pub fn hello(&mut self, keys: JoinerKeys, now: Time) -> EnrolHello {
        self.keys = Some(keys.clone());
        self.stage = Stage::AwaitingChallenge;
        self.retry_at = Some(now.plus(JOIN_RETRY_MS));
        EnrolHello { ticket: self.signed.clone(), keys }
    }

    /// Asks again from the start: challenges are soft state of the coordinator.
    pub fn hello_again(&mut self, now: Time) -> Option<EnrolHello> {
        let keys = self.keys.clone()?;
        Some(self.hello(keys, now))
    }

    /// The challenge came.
    pub fn challenged(&mut self) -> bool {
        let expected = self.stage == Stage::AwaitingChallenge;
        if expected {
            self.stage = Stage::AwaitingSecrets;
            self.retry_at = None;
        }
        expected
    }

    /// The TPM gave up the secrets: what to quote over.
    pub fn opened(&mut self, secrets: &[SecretBytes]) -> Option<Digest> {
        let keys = self.keys.as_ref()?;
        if self.stage != Stage::AwaitingSecrets {
            return None;
        }
        let parse = |offer: &EkOffer| EkPublic::parse(&offer.public).ok();
        let eks: Vec<EkPublic> = keys.eks.iter().map(parse).collect::<Option<_>>()?;
        self.stage = Stage::AwaitingQuote;
        let mesh = &self.ticket.pins.mesh;
        Some(answer_digest(mesh, secrets, &member_record(&self.ticket, keys, &eks).digest(mesh)))
    }

    /// The coordinator cannot be reached: the person at the socket does not wait for all of the time that a slow chip
    /// may take.
    pub fn unreachable(&mut self, now: Time) {
        self.deadline = self.deadline.min(now.plus(JOIN_UNREACHABLE_MS));
    }

    /// The answer is on its way.
    pub fn answered(&mut self, now: Time) {
        self.stage = Stage::AwaitingAdmission;
        self.retry_at = Some(now.plus(JOIN_RETRY_MS));
    }
}

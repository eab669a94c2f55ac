//! The attester of a host: one quote per epoch, and the session keys that the quotes carry. Session keys live here, in
//! memory, and no longer than their round may be current.

use crate::attest::evidence::{Evidence, SignedEvidence, qualifying};
use crate::attest::quote::Quote;
use crate::beacon::EpochVerified;
use crate::limits::{EPOCHS_KEPT, QUOTE_RETRY_MS};
use crate::suite::Generator;
use crate::types::{Digest, HostId, HpkePublic, Now, Round, SecretBytes, Time};
use crate::view::View;

/// A session key of one round.
struct Session {
    round: Round,
    secret: SecretBytes,
}

/// A quote that was asked for.
struct Asked {
    round: Round,
    secret: SecretBytes,
    public: HpkePublic,
    /// As the quote covers it: the peers may unlock this host while its chip is at work.
    share_receiving: HpkePublic,
}

/// Who quotes, under which keys.
#[derive(Clone, Copy)]
pub struct AttesterKeys<'a> {
    /// This host.
    pub host: &'a HostId,
    /// Seed of its transport key.
    pub transport: &'a SecretBytes,
    /// What dealers seal to.
    pub share_receiving: HpkePublic,
}

/// The attester's state.
#[derive(Default)]
pub struct State {
    sessions: Vec<Session>,
    asked: Option<Asked>,
    newest: Option<SignedEvidence>,
    retry_at: Option<Time>,
}

impl State {
    /// A new epoch: the qualifying data to quote over.
    pub fn begin(
        &mut self,
        view: View<'_>,
        keys: AttesterKeys<'_>,
        generator: &mut Generator,
        epoch: &EpochVerified,
    ) -> Digest {
        let (secret, public) = view.suite.hpke_keys(&generator.secret(32));
        let digest = qualifying(
            view.mesh,
            epoch.round(),
            epoch.beacon(),
            keys.host,
            &Digest::ZERO,
            &Digest::ZERO,
            &public,
            &keys.share_receiving,
            &Digest::ZERO,
        );
        self.asked = Some(Asked { round: epoch.round(), secret, public, share_receiving: keys.share_receiving });
        self.retry_at = None;
        digest
    }

    /// The TPM answered. Gives the evidence to show.
    pub fn finish(&mut self, view: View<'_>, keys: AttesterKeys<'_>, quote: Quote) -> Option<SignedEvidence> {
        let asked = self.asked.take()?;
        let evidence = Evidence {
            round: asked.round,
            host: *keys.host,
            certificate: Digest::ZERO,
            statement: Digest::ZERO,
            session: asked.public,
            share_receiving: asked.share_receiving,
            nonce_root: Digest::ZERO,
            logs: Vec::new(),
            quote,
        };
        let signed = evidence.sign(view.suite, view.mesh, keys.transport)?;
        self.sessions.push(Session { round: asked.round, secret: asked.secret });
        let oldest = asked.round.0.saturating_sub(EPOCHS_KEPT);
        self.sessions.retain(|session| session.round.0 > oldest);
        self.newest = Some(signed.clone());
        Some(signed)
    }

    /// The TPM failed: when to ask again.
    pub fn failed(&mut self, now: Now) {
        self.asked = None;
        self.retry_at = Some(now.monotonic.plus(QUOTE_RETRY_MS));
    }

    /// Whether the TPM is at work on a quote.
    pub fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// A newer epoch waits: as soon as the TPM is free it is asked for that one.
    pub fn ask_again_at_once(&mut self) {
        self.retry_at = Some(Time(0));
    }

    /// When to ask the TPM again, if it failed or a newer epoch waits; none while it is at work.
    pub fn retry_at(&self) -> Option<Time> {
        self.retry_at.filter(|_| !self.is_waiting())
    }

    /// The newest evidence, if its epoch is current.
    pub fn current(&self, view: View<'_>) -> Option<&SignedEvidence> {
        self.newest
            .as_ref()
            .filter(|signed| view.epochs.current_at(view.calendar, view.now, signed.evidence.round).is_some())
    }

    /// The newest evidence, current or not.
    pub fn newest(&self) -> Option<&SignedEvidence> {
        self.newest.as_ref()
    }

    /// All session keys that live still.
    pub fn sessions(&self) -> Vec<&SecretBytes> {
        self.sessions.iter().map(|session| &session.secret).collect()
    }

    /// The session keys of a round: more than one where it quoted again after its peers unlocked it.
    pub fn sessions_of(&self, round: Round) -> impl Iterator<Item = &SecretBytes> {
        self.sessions.iter().filter(move |session| session.round == round).map(|session| &session.secret)
    }
}

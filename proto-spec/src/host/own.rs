//! This host's own keys, and what follows from them.

use super::Identity;
use crate::attest::enroll::host_id;
use crate::attest::tpm::EkPublic;
use crate::attester::AttesterKeys;
use crate::cms::committee::KeySetup;
use crate::founding::RestingShare;
use crate::holder::HolderKeys;
use crate::suite::{Suite, symmetric};
use crate::types::{BlsPublic, BlsSignature, HostId, HpkePublic, Purpose, SecretBytes, TransportKey};

/// What the unlock opened: lives in memory, never longer than the process.
pub(super) struct Unlocked {
    /// The period key.
    pub(super) period: SecretBytes,
    /// The share-receiving key.
    pub(super) receiving: (SecretBytes, HpkePublic),
}

/// Public parts of the identity and what follows from it.
pub(super) struct Own {
    pub(super) identity: Identity,
    pub(super) host: HostId,
    pub(super) transport: TransportKey,
    pub(super) vote: (BlsPublic, BlsSignature),
    /// None until peers have unlocked this host since its start.
    pub(super) unlocked: Option<Unlocked>,
}

impl Own {
    pub(super) fn new(suite: &dyn Suite, identity: Identity) -> Option<Self> {
        let eks: Vec<EkPublic> =
            identity.eks.iter().map(|offer| EkPublic::parse(&offer.public).ok()).collect::<Option<_>>()?;
        Some(Self {
            host: host_id(&eks),
            transport: suite.ed25519_public(&identity.transport)?,
            vote: (suite.bls_public(&identity.vote)?, suite.bls_prove(&identity.vote)?),
            unlocked: None,
            identity,
        })
    }

    /// The period key follows from the secret that is bound to this TPM and from the unlock, which the mesh alone gives:
    /// neither is enough.
    pub(super) fn unlock(&mut self, suite: &dyn Suite, unlock: &BlsSignature) {
        let period = symmetric::derive(&self.identity.tpm_bound, Purpose::Period, &[&unlock.0]);
        let material = symmetric::derive(&period, Purpose::ShareReceiving, &[]);
        self.unlocked = Some(Unlocked { receiving: suite.hpke_keys(&material), period });
    }

    pub(super) fn attester_keys(&self) -> AttesterKeys<'_> {
        const NONE_YET: &HpkePublic = &HpkePublic::ZERO;
        let share_receiving = self.unlocked.as_ref().map_or(NONE_YET, |unlocked| &unlocked.receiving.1);
        AttesterKeys { host: &self.host, transport: &self.identity.transport, share_receiving }
    }

    pub(super) fn holder_keys(&self) -> Option<HolderKeys<'_>> {
        let unlocked = self.unlocked.as_ref()?;
        Some(HolderKeys {
            host: &self.host,
            transport: &self.identity.transport,
            share_receiving: &unlocked.receiving.0,
            period: &unlocked.period,
        })
    }

    fn share_key(&self) -> SecretBytes {
        symmetric::derive(&self.identity.tpm_bound, Purpose::KeyShare, &[])
    }

    /// Seals a share of the mesh key. Each setup has a key of its own, so that no nonce is used twice.
    pub(super) fn seal_share(&self, setup: &KeySetup, share: &SecretBytes) -> Option<RestingShare> {
        let key = symmetric::derive(&self.share_key(), Purpose::KeyShare, &[&setup.digest().0]);
        let sealed = symmetric::seal(&key, [0; 12], &setup.digest().0, share.expose())?;
        Some(RestingShare { setup: setup.clone(), sealed })
    }

    /// Opens what `seal_share` sealed.
    pub(super) fn open_share(&self, resting: &RestingShare) -> Option<SecretBytes> {
        let digest = resting.setup.digest();
        let key = symmetric::derive(&self.share_key(), Purpose::KeyShare, &[&digest.0]);
        symmetric::open(&key, [0; 12], &digest.0, &resting.sealed)
    }
}

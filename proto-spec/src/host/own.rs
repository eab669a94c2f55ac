//! This host's own keys, and what follows from them.

use super::Identity;
use crate::attest::enroll::host_id;
use crate::attest::tpm::EkPublic;
use crate::attester::AttesterKeys;
use crate::cms::committee::KeySetup;
use crate::founding::RestingShare;
use crate::holder::HolderKeys;
use crate::period::Periods;
use crate::suite::{Suite, symmetric};
use crate::types::{BlsPublic, BlsSignature, HostId, Purpose, SecretBytes, TransportKey};

/// Public parts of the identity and what follows from it.
pub(super) struct Own {
    pub(super) identity: Identity,
    pub(super) host: HostId,
    pub(super) transport: TransportKey,
    pub(super) vote: (BlsPublic, BlsSignature),
    /// Empty until peers have unlocked this host since its start.
    pub(super) periods: Periods,
}

impl Own {
    pub(super) fn new(suite: &dyn Suite, identity: Identity) -> Option<Self> {
        let eks: Vec<EkPublic> =
            identity.eks.iter().map(|offer| EkPublic::parse(&offer.public).ok()).collect::<Option<_>>()?;
        Some(Self {
            host: host_id(&eks),
            transport: suite.ed25519_public(&identity.transport)?,
            vote: (suite.bls_public(&identity.vote)?, suite.bls_prove(&identity.vote)?),
            periods: Periods::default(),
            identity,
        })
    }

    /// The keys of an attester whose recorded unlock has this number.
    pub(super) fn attester_keys(&self, number: u64) -> AttesterKeys<'_> {
        let share_receiving = self.periods.receiving_public(number);
        AttesterKeys { host: &self.host, transport: &self.identity.transport, share_receiving }
    }

    /// `None` until peers have unlocked this host.
    pub(super) fn holder_keys(&self) -> Option<HolderKeys<'_>> {
        self.periods.newest()?;
        Some(HolderKeys { host: &self.host, transport: &self.identity.transport, periods: &self.periods })
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

//! A virtual TPM: real structures (public areas, TPMS_ATTEST, TPMT_SIGNATURE) under the signatures of the fake suite.

use std::collections::BTreeMap;

use spec::attest::enroll::EkOffer;
use spec::attest::policy::DEFAULT_PCRS;
use spec::attest::quote::{Quote, digest_of_pcrs};
use spec::attest::tpm::{AkPublic, EkPublic};
use spec::host::{TpmReply, TpmRequest};
use spec::suite::Fake;
use spec::types::Digest;

use crate::random::Random;

/// One chip.
#[derive(Debug, Clone)]
pub struct Tpm {
    ek: Vec<u8>,
    ak: Vec<u8>,
    /// PCR values of the SHA-256 bank.
    pub pcrs: BTreeMap<u8, Digest>,
    clock_ms: u64,
    /// Whether it refuses every command.
    pub fails: bool,
}

impl Tpm {
    /// A chip with keys of its own.
    pub fn new(random: &mut Random) -> Self {
        let pcrs = DEFAULT_PCRS.iter().map(|pcr| (*pcr, Digest([*pcr; 32]))).collect();
        Self {
            ek: ek_public(&random.bytes()),
            ak: ak_public(&random.bytes(), &random.bytes()),
            pcrs,
            clock_ms: 0,
            fails: false,
        }
    }

    /// TPMT_PUBLIC of the EK, without a certificate: simulations use the EK-hash list.
    pub fn ek(&self) -> EkOffer {
        EkOffer { public: self.ek.clone(), certificate: Vec::new() }
    }

    /// TPMT_PUBLIC of the AK.
    pub fn ak(&self) -> Vec<u8> {
        self.ak.clone()
    }

    /// Changes a PCR, as booting something else does.
    pub fn extend(&mut self, pcr: u8) {
        self.pcrs.insert(pcr, Digest([0xee; 32]));
    }

    /// Answers a request.
    pub fn answer(&mut self, request: &TpmRequest) -> Option<TpmReply> {
        let selected = |pcrs: &[u8]| -> BTreeMap<u8, Digest> {
            pcrs.iter().filter_map(|pcr| self.pcrs.get(pcr).map(|value| (*pcr, *value))).collect()
        };
        if self.fails {
            return None;
        }
        match request {
            TpmRequest::ReadPcrs(pcrs) => Some(TpmReply::Pcrs(selected(pcrs))),
            TpmRequest::Quote { pcrs, qualifying } => {
                let values = selected(pcrs);
                self.clock_ms += 1;
                let attest = attest(qualifying, self.clock_ms, &values);
                let ak = AkPublic::parse(&self.ak).ok()?;
                let signature = Fake::ecdsa_sign(ak.point(), &attest);
                let (r, s) = signature.0.split_at(32);
                let signature = [&[0, 0x18, 0, 0x0b, 0, 32], r, &[0, 32], s].concat();
                Some(TpmReply::Quote(Quote { attest, signature, pcrs: values }))
            }
            TpmRequest::Activate(blobs) => {
                let ek = EkPublic::parse(&self.ek).ok()?;
                let name = AkPublic::parse(&self.ak).ok()?.name();
                let open = |blob| Fake::activate_credential(&ek, &name, blob);
                blobs.iter().map(open).collect::<Option<Vec<_>>>().map(TpmReply::Secrets)
            }
        }
    }
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().as_slice(), bytes].concat()
}

/// TCG EK template L-1 around a modulus.
fn ek_public(modulus: &[u8; 256]) -> Vec<u8> {
    const POLICY: [u8; 32] = [
        0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52,
        0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
    ];
    let head = [0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2];
    let parameters = [0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0];
    [head.as_slice(), &sized(&POLICY), &parameters, &sized(modulus)].concat()
}

/// A restricted ECDSA P-256 signing key around a point.
fn ak_public(x: &[u8; 32], y: &[u8; 32]) -> Vec<u8> {
    let head = [0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x00, 0x72];
    let parameters = [0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10];
    [head.as_slice(), &sized(&[]), &parameters, &sized(x), &sized(y)].concat()
}

fn attest(qualifying: &Digest, clock_ms: u64, pcrs: &BTreeMap<u8, Digest>) -> Vec<u8> {
    let mut bitmap = [0_u8; 3];
    for pcr in pcrs.keys() {
        if let Some(byte) = bitmap.get_mut(usize::from(pcr / 8)) {
            *byte |= 1 << (pcr % 8);
        }
    }
    [
        [0xff, 0x54, 0x43, 0x47, 0x80, 0x18].as_slice(),
        &sized(&[0; 34]),
        &sized(&qualifying.0),
        &clock_ms.to_be_bytes(),
        &[0; 8],
        &[1],
        &[0; 8],
        &[0, 0, 0, 1, 0, 0x0b, 3],
        &bitmap,
        &sized(&digest_of_pcrs(pcrs).0),
    ]
    .concat()
}

//! The local socket: HTTP and JSON over a Unix socket, for the command line and for whoever else the socket's group
//! lets in.

pub mod client;
pub(crate) mod places;
pub mod server;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use spec::beacon::SignedBeacon;
use spec::cms::credentials::Credential;
use spec::cms::groups::Group;
use spec::error::{Check, Failure, Refused, Subject};
use spec::genesis::{Genesis, SignedGenesis};
use spec::host::{HostLine, StatusReply};
use spec::limits::GENESIS_MAX;
use spec::membership::MemberRecord;
use spec::ticket::Pins;
use spec::types::sha256;
use spec::wire::{self, Standing};

/// Version of every JSON answer.
pub const FORMAT: u32 = 1;

/// An error as the socket and `-o json` give it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorBody {
    /// `refused`, `not_ready`, `not_found`, `too_few_holders`, `no_leader`, `membership`, `local`, `usage`, `unreachable`,
    /// `not_certain`.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// The check that failed.
    #[serde(default)]
    pub check: Option<String>,
    /// Whom it is about.
    #[serde(default)]
    pub subject: Option<String>,
    /// The epoch.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
    /// Names the refusal in the refusing host's log.
    #[serde(default)]
    pub refusal_id: Option<String>,
}

impl ErrorBody {
    /// An error that is no refusal.
    pub fn plain(code: &str, message: String, hint: Option<&str>) -> Box<Self> {
        Box::new(Self {
            code: code.to_owned(),
            message,
            check: None,
            subject: None,
            epoch: None,
            hint: hint.map(str::to_owned),
            refusal_id: None,
        })
    }

    /// A failure of a local request; names of hosts are put for their identities where they are known.
    pub fn of(failure: &Failure, names: &BTreeMap<spec::types::HostId, String>) -> Box<Self> {
        let name = |host| names.get(host).cloned().unwrap_or_else(|| host.to_string());
        match failure {
            Failure::Refused(refused) => Box::new(Self::refused(refused, names)),
            Failure::NotFound => Self::plain("not_found", failure.to_string(), Some("see `vouchsafe ls`")),
            Failure::TooFewHolders { missing, .. } => {
                let missing: Vec<String> = missing.iter().map(name).collect();
                let message = format!("{failure}; missing: {}", missing.join(", "));
                Self::plain("too_few_holders", message, Some("see `vouchsafe hosts`; try again when they are back"))
            }
            Failure::NoLeader => {
                let hint = "see `vouchsafe status`; try again when a majority of the committee is up";
                Self::plain("no_leader", failure.to_string(), Some(hint))
            }
            Failure::Membership(_) => Self::plain("membership", failure.to_string(), None),
            Failure::Busy => Self::plain("not_ready", failure.to_string(), Some("try again in a few seconds")),
            Failure::Local(_) => Self::plain("local", failure.to_string(), None),
        }
    }

    fn refused(refused: &Refused, names: &BTreeMap<spec::types::HostId, String>) -> Self {
        let subject = match &refused.subject {
            Subject::Request => None,
            Subject::Host(host) => Some(names.get(host).cloned().unwrap_or_else(|| host.to_string())),
            Subject::Credential(id) => Some(id.to_string()),
        };
        let check = check_text(refused.check);
        Self {
            code: if refused.check.is_passing() { "not_ready" } else { "refused" }.to_owned(),
            message: match &subject {
                Some(subject) => format!("refused: check {check}, subject {subject}, epoch {}", refused.round),
                None => format!("refused: check {check}, epoch {}", refused.round),
            },
            check: Some(check),
            subject,
            epoch: Some(refused.round.0),
            hint: Some(refused.check.hint().to_owned()),
            refusal_id: Some(format!("{:016x}", refused.refusal_id)),
        }
    }
}

/// The name of a check, with the PCR where it is about one.
pub fn check_text(check: Check) -> String {
    match check {
        Check::Pcr(pcr) => format!("{} (PCR {pcr})", check.name()),
        other => other.name().to_owned(),
    }
}

/// Base64 for bytes in JSON.
pub fn pack(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads what `pack` wrote.
pub fn unpack(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A member as JSON.
pub fn member_json(record: &MemberRecord) -> Value {
    let eks: Vec<String> = record.ek_hashes().map(|hash| hash.to_string()).collect();
    json!({
        "host": record.host.to_string(),
        "name": record.name,
        "role": record.role.word(),
        "domain": record.domain,
        "region": record.region,
        "zone": record.zone,
        "ek_hashes": eks,
        "tpm": tpm_text(record),
    })
}

/// What keys a member's chip endorses, for the table of hosts.
fn tpm_text(record: &MemberRecord) -> String {
    use spec::attest::tpm::{EkKey, EkPublic};
    let kind = |area: &serde_bytes::ByteBuf| match EkPublic::parse(area).ok()?.key() {
        EkKey::Rsa2048 { .. } => Some("RSA-2048"),
        EkKey::EccP384 { .. } => Some("P-384"),
    };
    record.eks.iter().filter_map(kind).collect::<Vec<_>>().join("+")
}

/// A line of the table of hosts as JSON.
pub fn host_json(line: &HostLine) -> Value {
    let mut value = member_json(&line.record);
    let (state, check) = match line.standing {
        Standing::Good => ("good", None),
        Standing::Refused(check) => ("refused", Some(check_text(check))),
        Standing::Absent => ("absent", None),
    };
    if let Value::Object(fields) = &mut value {
        fields.insert("state".to_owned(), json!(state));
        fields.insert("check".to_owned(), json!(check));
        fields.insert("address".to_owned(), json!(line.address.0));
        fields.insert("coordinates".to_owned(), json!(line.coordinates));
        fields.insert("committee".to_owned(), json!(line.seated));
    }
    value
}

/// How a host is, as JSON.
pub fn status_json(status: &StatusReply) -> Value {
    let refusals: Vec<ErrorBody> = status.refusals.iter().map(|r| ErrorBody::refused(r, &BTreeMap::new())).collect();
    json!({
        "format": FORMAT,
        "member": status.member.as_ref().map(member_json),
        "mesh": status.pins.as_ref().map(|pins| pins.mesh.to_string()),
        "mesh_name": status.mesh_name,
        "mesh_key": status.pins.as_ref().and_then(|pins| pins.key).map(|key| key.to_string()),
        "forming": status.forming,
        "joining": status.joining,
        "coordinates": status.coordinates,
        "coordinator": status.leader,
        "term": status.term,
        "committee": status.committee,
        "key_shares": status.key.as_ref().map(|key| json!({ "needed": key.needed, "of": key.holders })),
        "key_epoch": status.key.as_ref().map(|key| key.key_epoch),
        "crowded_domains": status.key.as_ref().map(|key| &key.crowded),
        "outgrown": status.outgrown,
        "split": status.split,
        "leaving": status.leaving,
        "left": status.left,
        "unlocked": status.unlocked,
        "header_epoch": status.header.map(|round| round.0),
        "epoch": status.round.map(|round| round.0),
        "epoch_ms": status.epoch_ms,
        "evidence_epoch": status.evidence.map(|round| round.0),
        "records": status.records,
        "shares": status.shares,
        "refusals": refusals,
    })
}

/// A beacon in drand's form: what its clients read from `/public/ROUND`.
pub fn beacon_json(beacon: &SignedBeacon) -> Value {
    json!({
        "round": beacon.round.0,
        "randomness": beacon.beacon().to_string(),
        "signature": beacon.signature.to_string(),
    })
}

/// The chain of beacons in drand's form: what its clients read from `/info`. `None` while there is no mesh key, and of a
/// testnet whose epochs are no whole seconds: its clients would count other rounds.
pub fn chain_json(pins: &Pins, genesis: &SignedGenesis) -> Option<Value> {
    let genesis: Genesis = wire::decode(&genesis.bytes, GENESIS_MAX).ok()?;
    let key = pins.key?;
    if !genesis.epoch_ms.is_multiple_of(1_000) {
        return None;
    }
    let (period, start) = (genesis.epoch_ms / 1_000, genesis.created_ms / 1_000);
    // drand's own way to name a chain.
    let period_bytes = u32::try_from(period).ok()?.to_be_bytes();
    let hash = sha256(&[period_bytes.as_slice(), &start.to_be_bytes(), &key.0, &pins.mesh.0, b"vouchsafe"].concat());
    Some(json!({
        "public_key": key.to_string(),
        "period": period,
        "genesis_time": start,
        "hash": hash.to_string(),
        "groupHash": pins.mesh.to_string(),
        "schemeID": "bls-unchained-g1-rfc9380",
        "metadata": { "beaconID": "vouchsafe" },
    }))
}

/// A credential as JSON; its places stay with the committee and its owner.
pub fn credential_json(credential: &Credential) -> Value {
    let head = credential.head.head();
    json!({
        "id": head.id().to_string(),
        "name": head.name,
        "client": ssh_text(&head.client),
        "signer": ssh_text(head.signer()),
        "version": head.version,
        "number": head.number,
        "removed": head.removed,
        "k": head.terms.k,
        "n": head.terms.n,
        "tolerate_domains": head.terms.tolerate,
        "dealer": match head.dealer {
            spec::credential::head::Dealer::Client => "client",
            spec::credential::head::Dealer::Coordinator(_) => "cms",
        },
        "allow": head.allow.iter().map(spec::credential::head::Allow::to_text).collect::<Vec<_>>(),
        "recipients": head.recipients,
        "group": credential.group.to_string(),
        "generation": credential.generation.0,
        "flushed": credential.flushed.len(),
        "record": credential.record,
    })
}

/// A credential and its group as JSON.
pub fn shown_json(credential: &Credential, group: &Group) -> Value {
    let mut value = credential_json(credential);
    if let Value::Object(fields) = &mut value {
        fields.insert("format".to_owned(), json!(FORMAT));
        fields.insert("holders".to_owned(), json!(group.holders.len()));
    }
    value
}

/// An SSH key as people know it.
pub fn ssh_text(key: &spec::types::SshKey) -> String {
    crate::ssh::public_text(key)
}

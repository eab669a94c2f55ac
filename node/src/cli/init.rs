//! `vouchsafe init`: the genesis, signed by every operator that it names, and the founder's own ticket.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_bytes::ByteBuf;
use serde_json::json;
use spec::attest::policy::DEFAULT_PCRS;
use spec::genesis::{self, Domain, Genesis, PROTOCOL_VERSION, SignedGenesis};
use spec::limits::TICKET_MAX;
use spec::membership::Role;
use spec::ticket::{self, Contact, Pins, SignedTicket, Ticket};
use spec::types::{Digest, MeshId, SshKey, TicketSerial, sha256};
use spec::{text, wire};

use super::{Context, Outcome, failure, field, shown, usage};
use crate::api::{ErrorBody, pack, unpack};
use crate::ssh::{self, Signer};
use crate::{clock, maps};

/// How long this host's own ticket holds: longer than any forming takes, since this host cannot come with another. It lets
/// in nobody else: this host calls nobody who shows it, and once there is a mesh it is used.
const OWN_TICKET_MS: u64 = 10 * 365 * 24 * 3_600 * 1_000;

/// Begins a mesh and gathers its founders: with two more hosts it founds itself.
///
/// Each --operator KEY.pub names an operator of the --domain at the same place; the private key lies beside it
/// (KEY), since every named operator signs the genesis. It is the one command that takes the keys of all domains in one
/// place; afterwards each operator keeps its own.
#[derive(Args)]
pub(super) struct Init {
    /// Name of the mesh.
    #[arg(long)]
    mesh: String,
    /// Public SSH key (ed25519) of an operator; repeat for each.
    #[arg(long, required = true)]
    operator: Vec<PathBuf>,
    /// Administrative domain of the operator at the same place.
    #[arg(long, required = true)]
    domain: Vec<String>,
    /// Name of this host.
    #[arg(long)]
    name: String,
    /// Domain of this host; the first where it is not given.
    #[arg(long)]
    own_domain: Option<String>,
    /// Region of this host.
    #[arg(long, default_value = "default")]
    region: String,
    /// Zone of this host.
    #[arg(long, default_value = "default")]
    zone: String,
    /// Certificates (PEM) that signed the TPMs' own, of each maker the issuing one: none is fetched that lies between. Repeat
    /// for each file.
    #[arg(long)]
    ek_root: Vec<PathBuf>,
    /// SHA-256 of an EK's public area that is taken without a certificate (hex); `vouchsafe status` says it on a new machine.
    #[arg(long)]
    ek_hash: Vec<String>,
    /// Length of an epoch in milliseconds.
    #[arg(long, default_value_t = 10_000)]
    epoch_ms: u64,
    /// Hostile domains tolerated; 1, or 0 with fewer than three domains.
    #[arg(long)]
    tolerate_domains: Option<u8>,
    /// Seats of the committee once there are hosts enough: odd, 3 to 21.
    #[arg(long, default_value_t = 5)]
    committee: u8,
    /// age recipient of a domain's recovery files, as DOMAIN=RECIPIENT.
    #[arg(long)]
    recovery: Vec<String>,
    /// Allow epochs shorter than 5 s.
    #[arg(long)]
    testnet: bool,
}

impl Init {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let signers = self.signers()?;
        let genesis = self.genesis(&signers)?;
        genesis.check_bounds().map_err(|error| usage(format!("this is no genesis: {error}")))?;
        let bytes = wire::encode(&genesis);
        let signer_of =
            |key: &SshKey| signers.iter().find(|(_, signer)| signer.public() == *key).map(|(_, signer)| signer);
        let mut signatures = Vec::new();
        for operator in genesis.operators() {
            let signer = signer_of(operator).ok_or_else(|| failure("an operator's key is missing".to_owned()))?;
            signatures.push(signer.sign(genesis::NAMESPACE, &bytes).map_err(|error| failure(error.to_string()))?);
        }
        let mesh = MeshId(sha256(&bytes).0);
        let signed = SignedGenesis { bytes, signatures };
        let ticket = self.own_ticket(context, mesh, &signers).await?;
        let body = json!({ "genesis": pack(&wire::encode(&signed)), "ticket": ticket.to_text() });
        let answer = context.daemon.post("/v1/found", &body).await?;
        context.print(&answer, |answer| {
            format!(
                "mesh {} ({}) is forming: {} of 3 hosts\nnext: invite two more with `vouchsafe invite`; the mesh \
                 founds itself when they have joined\n",
                shown(answer, "mesh_name"),
                shown(answer, "mesh"),
                shown(answer, "forming")
            )
        })
    }

    /// The operators' keys, each with its domain.
    fn signers(&self) -> Result<Vec<(String, Signer)>, Box<ErrorBody>> {
        if self.operator.len() != self.domain.len() {
            return Err(usage("each --operator needs its --domain".to_owned()));
        }
        let private = |public: &Path| match public.extension() {
            Some(extension) if extension == "pub" => public.with_extension(""),
            _ => public.to_owned(),
        };
        let mut signers = Vec::new();
        for (path, domain) in self.operator.iter().zip(&self.domain) {
            let signer = Signer::read(&private(path)).map_err(|error| failure(error.to_string()))?;
            signers.push((domain.clone(), signer));
        }
        Ok(signers)
    }

    fn genesis(&self, signers: &[(String, Signer)]) -> Result<Genesis, Box<ErrorBody>> {
        let mut domains: Vec<Domain> = Vec::new();
        for (name, signer) in signers {
            match domains.iter_mut().find(|domain| domain.name == *name) {
                Some(domain) => domain.operators.push(signer.public()),
                None => domains.push(Domain {
                    name: name.clone(),
                    operators: vec![signer.public()],
                    recovery: self.recovery_of(name)?,
                }),
            }
        }
        let hash =
            |text: &String| Digest::from_hex(text).ok_or_else(|| usage(format!("`{text}` is no SHA-256 in hex")));
        Ok(Genesis {
            protocol_version: PROTOCOL_VERSION,
            name: self.mesh.clone(),
            testnet: self.testnet,
            // A whole second, so that others name the rounds by it as we do.
            created_ms: clock::now().wall_ms / 1_000 * 1_000,
            epoch_ms: self.epoch_ms,
            tolerate: self.tolerate_domains.unwrap_or(u8::from(domains.len() >= 3)),
            committee: self.committee,
            domains,
            ek_roots: self.ek_roots()?,
            ek_hashes: self.ek_hash.iter().map(hash).collect::<Result<_, _>>()?,
            pcrs: DEFAULT_PCRS.to_vec(),
        })
    }

    fn recovery_of(&self, domain: &str) -> Result<Vec<String>, Box<ErrorBody>> {
        let mut recipients = Vec::new();
        for text in &self.recovery {
            let (name, recipient) =
                text.split_once('=').ok_or_else(|| usage(format!("`{text}` is not DOMAIN=RECIPIENT")))?;
            if !maps::is_recipient(recipient) {
                return Err(usage(format!("`{recipient}` is no age recipient")));
            }
            if name == domain {
                recipients.push(recipient.to_owned());
            }
        }
        Ok(recipients)
    }

    fn ek_roots(&self) -> Result<Vec<ByteBuf>, Box<ErrorBody>> {
        let mut roots = Vec::new();
        for path in &self.ek_root {
            let text = std::fs::read_to_string(path)
                .map_err(|error| failure(format!("cannot read {}: {error}", path.display())))?;
            let mut rest = text.as_str();
            let before = roots.len();
            while let Some((der, behind)) = text::dearmour("CERTIFICATE", rest) {
                roots.push(ByteBuf::from(der));
                rest = behind;
            }
            if roots.len() == before {
                return Err(usage(format!("{} holds no PEM certificate", path.display())));
            }
        }
        if roots.is_empty() && self.ek_hash.is_empty() {
            return Err(usage("name the TPM makers' roots (--ek-root) or the TPMs themselves (--ek-hash)".to_owned()));
        }
        Ok(roots)
    }

    async fn own_ticket(
        &self,
        context: &Context,
        mesh: MeshId,
        signers: &[(String, Signer)],
    ) -> Result<SignedTicket, Box<ErrorBody>> {
        let own = context.daemon.get("/v1/identity").await?;
        let odd = || failure("the daemon does not say who it is".to_owned());
        let contacts = unpack(field(&own, "contacts")).and_then(|bytes| wire::decode(&bytes, TICKET_MAX).ok());
        let contacts: Vec<Contact> = contacts.ok_or_else(odd)?;
        let pins = Pins { mesh, key: None };
        let wanted = self.own_domain.as_ref().or(self.domain.first());
        let (domain, signer) = signers
            .iter()
            .find(|(domain, _)| Some(domain) == wanted)
            .ok_or_else(|| usage("--own-domain names no domain of an operator".to_owned()))?;
        let ticket = Ticket::new(
            pins,
            contacts,
            self.name.clone(),
            Role::Host,
            domain.clone(),
            self.region.clone(),
            self.zone.clone(),
            fresh_serial()?,
            clock::now().wall_ms.saturating_add(OWN_TICKET_MS),
            None,
        );
        sign_ticket(&ticket, signer)
    }
}

/// A fresh, unguessable serial.
pub(super) fn fresh_serial() -> Result<TicketSerial, Box<ErrorBody>> {
    let mut serial = TicketSerial::ZERO;
    getrandom::fill(&mut serial.0).map_err(|error| failure(format!("no randomness: {error}")))?;
    Ok(serial)
}

/// Signs a ticket.
pub(super) fn sign_ticket(ticket: &Ticket, signer: &Signer) -> Result<SignedTicket, Box<ErrorBody>> {
    let bytes = wire::encode(ticket);
    let signature = signer.sign(ticket::NAMESPACE, &bytes).map_err(|error| failure(error.to_string()))?;
    Ok(SignedTicket { bytes, signature })
}

/// The public key in a file, as the socket's answers write it.
pub(super) fn public_text(path: &Path) -> Result<String, Box<ErrorBody>> {
    ssh::read_public(path).map(|key| ssh::public_text(&key)).map_err(|error| usage(error.to_string()))
}

//! What the owner's commands share: whose credential it is, who signs, and the next head of one that is there.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use spec::client::{Change, next_head};
use spec::credential::head::{Allow, HeadVerified, NAMESPACE, SignedHead, credential_id};
use spec::error::Check;
use spec::limits::{ALLOW_MAX, MESSAGE_MAX, TICKET_MAX};
use spec::suite::Real;
use spec::ticket::Pins;
use spec::types::{CredentialId, RequestId, SshKey};
use spec::wire;

use super::{Context, Outcome, failure, field, shown, usage};
use crate::api::{ErrorBody, pack, unpack};
use crate::ssh::{self, Signer};

/// Times that a command is tried again where somebody else was faster, or where evidence aged on the way.
pub(super) const TRIES: u32 = 3;

/// Whose credential it is, and who signs for it.
#[derive(Args)]
pub(super) struct Owner {
    /// Private SSH key (ed25519) that signs: the owner's, or the one that it handed the credential over to.
    #[arg(long, env = "VOUCHSAFE_KEY")]
    pub(super) key: Option<PathBuf>,
    /// Public SSH key of the owner, where another key signs by now.
    #[arg(long)]
    pub(super) client: Option<PathBuf>,
}

impl Owner {
    pub(super) fn signer(&self) -> Result<Signer, Box<ErrorBody>> {
        let default = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/id_ed25519"));
        let path = self.key.clone().or_else(default).ok_or_else(|| usage("name the owner's key: --key".to_owned()))?;
        Signer::read(&path).map_err(|error| failure(error.to_string()))
    }

    /// The owner's key, under which the credential has its name.
    pub(super) fn client(&self, signer: &Signer) -> Result<SshKey, Box<ErrorBody>> {
        match &self.client {
            Some(path) => ssh::read_public(path).map_err(|error| usage(error.to_string())),
            None => Ok(signer.public()),
        }
    }
}

/// Refuses a key whose signature the mesh would refuse.
pub(super) fn check_signer(signer: &Signer, wanted: &SshKey) -> Outcome {
    if signer.public() == *wanted {
        return Ok(());
    }
    let message = format!("the key that signs for this credential is {}", ssh::public_text(wanted));
    Err(ErrorBody::plain("usage", message, Some("name it with --key, and the first owner's with --client")))
}

/// Reads the rules of `--allow`.
pub(super) fn rules(texts: &[String]) -> Result<Vec<Allow>, Box<ErrorBody>> {
    if texts.len() > ALLOW_MAX {
        return Err(usage(format!("at most {ALLOW_MAX} rules")));
    }
    let form = |text: &String| usage(format!("`{text}` is not instance:NAME, role:host, role:reader or ek:HEX"));
    texts.iter().map(|text| Allow::from_text(text).ok_or_else(|| form(text))).collect()
}

/// Names a request: asked twice, it is done once.
pub(super) fn request_id() -> Result<RequestId, Box<ErrorBody>> {
    let mut request = RequestId::ZERO;
    getrandom::fill(&mut request.0).map_err(|error| failure(format!("no randomness: {error}")))?;
    Ok(request)
}

/// What this side pins: what its own machine's daemon pins.
pub(super) async fn pins(context: &Context) -> Result<Pins, Box<ErrorBody>> {
    let identity = context.daemon.get("/v1/identity").await?;
    unpack(field(&identity, "pins"))
        .and_then(|bytes| wire::decode::<Pins>(&bytes, TICKET_MAX).ok())
        .ok_or_else(|| ErrorBody::plain("membership", "this host belongs to no mesh yet".to_owned(), None))
}

/// A wire value out of an answer.
pub(super) fn unpacked<T: serde::Serialize + serde::de::DeserializeOwned>(
    answer: &Value,
    name: &str,
) -> Result<T, Box<ErrorBody>> {
    unpack(field(answer, name))
        .and_then(|bytes| wire::decode(&bytes, MESSAGE_MAX).ok())
        .ok_or_else(|| failure(format!("the daemon's {name} does not decode")))
}

/// Refused by a check on this side.
pub(super) fn refused(check: Check) -> Box<ErrorBody> {
    let message = format!("refused on this side: check {}", check.name());
    let mut error = ErrorBody::plain("refused", message, Some(check.hint()));
    error.check = Some(check.name().to_owned());
    error
}

/// Whether somebody else was faster: what was decided on is not the newest head any more.
pub(super) fn lost_race(error: &ErrorBody) -> bool {
    error.check.as_deref() == Some(Check::HeadOrder.name())
}

/// What nobody answered in time may be recorded by now: whoever would ask again looks first.
pub(super) fn unanswered(mut error: Box<ErrorBody>) -> Box<ErrorBody> {
    if error.code == "no_leader" {
        let hint = "it may be recorded all the same: see `vouchsafe show` before you ask again, and `vouchsafe status`";
        error.hint = Some(hint.to_owned());
    }
    error
}

/// The newest head, checked on this side.
async fn newest(context: &Context, pins: &Pins, id: &CredentialId) -> Result<HeadVerified, Box<ErrorBody>> {
    let answer = context.daemon.get(&format!("/v1/credentials/{id}/head")).await?;
    let signed: SignedHead = unpacked(&answer, "head")?;
    let head = HeadVerified::check(&Real, &pins.mesh, &signed).map_err(refused)?;
    if head.head().id() == *id { Ok(head) } else { Err(failure("the daemon showed another credential".to_owned())) }
}

/// Records the next head of a credential: `change` says what is new, of the newest head. A successor signs it where
/// there is one.
///
/// # Errors
/// What `change` says, or that it is recorded and not certain yet.
pub(super) async fn change(
    context: &Context,
    owner: &Owner,
    name: &str,
    done: &str,
    successor: Option<&Signer>,
    change: impl Fn(&HeadVerified, &Pins, &Signer) -> Result<Change, Box<ErrorBody>>,
) -> Outcome {
    let signer = owner.signer()?;
    let pins = pins(context).await?;
    let id = credential_id(&owner.client(&signer)?, name);
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        let newest = newest(context, &pins, &id).await?;
        check_signer(&signer, newest.head().signer())?;
        let what = change(&newest, &pins, &signer)?;
        let bytes = next_head(&Real, &pins.mesh, newest.signed(), request_id()?, what).map_err(refused)?;
        let signature =
            successor.unwrap_or(&signer).sign(NAMESPACE, &bytes).map_err(|error| failure(error.to_string()))?;
        let head = pack(&wire::encode(&SignedHead { bytes, signature }));
        let recorded = context.daemon.post(&format!("/v1/credentials/{id}/head"), &json!({ "head": head })).await;
        match recorded.map_err(unanswered) {
            Err(error) if lost_race(&error) && tries < TRIES => {}
            answer => break answer?,
        }
    };
    let missing: Vec<&str> =
        answer.get("missing").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if answer.get("certain").and_then(Value::as_bool) != Some(true) {
        let record = shown(&answer, "record");
        let message =
            format!("recorded ({record}), not yet certain: {} did not say that it binds them", missing.join(", "));
        let hint = "whoever of them is up follows within two epochs; what is cut off or stopped refuses everybody";
        return Err(ErrorBody::plain("not_certain", message, Some(hint)));
    }
    context.print(&answer, |_| {
        let behind = if missing.is_empty() { String::new() } else { format!("; not yet {}", missing.join(", ")) };
        format!("{done} {name}: certain{behind}\n")
    })
}

//! `vouchsafe put`: checks the holders' evidence on this side, splits, signs, stores.

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use spec::client::{BundleVerified, head_to_sign};
use spec::credential::split::PutOrder;
use spec::limits::{PAYLOAD_MAX, RECIPIENTS_MAX};
use spec::suite::{Generator, Real, Seed};
use spec::ticket::Pins;
use spec::types::{SecretBytes, Terms};
use spec::wire::{self, DealBundle, Package};
use spec::{error::Check, text};
use zeroize::Zeroizing;

use super::owner::{Owner, TRIES, check_signer, lost_race, pins, refused, request_id, rules, unanswered, unpacked};
use super::{Context, Outcome, failure, shown, usage};
use crate::api::{ErrorBody, pack};
use crate::ssh::Signer;
use crate::{clock, maps};

/// Puts a credential into the mesh. It is read from standard input or a file, never from an argument.
#[derive(Args)]
pub(super) struct Put {
    /// Name of the credential.
    name: String,
    /// File that holds it; standard input where it is not given.
    #[arg(long)]
    file: Option<PathBuf>,
    #[command(flatten)]
    owner: Owner,
    /// Only where it has this version now; 0: only where there is none.
    #[arg(long)]
    cas: Option<u64>,
    /// Shares that reconstruct it.
    #[arg(short, default_value_t = 3)]
    k: u8,
    /// Shares that are dealt.
    #[arg(short, default_value_t = 5)]
    n: u8,
    /// Hostile domains tolerated.
    #[arg(long, default_value_t = 1)]
    tolerate_domains: u8,
    /// Who may read: instance:NAME, role:host, role:reader or ek:HEX; repeat for each. Nobody by default.
    #[arg(long)]
    allow: Vec<String>,
    /// age recipient that opens the shard map; repeat for each.
    #[arg(long)]
    recipient: Vec<String>,
    /// Who splits it: this side, so that no coordinator sees it; or the coordinator.
    #[arg(long, value_enum, default_value_t = Dealer::Client)]
    dealer: Dealer,
    /// When it is acknowledged: with a quorum of the holders, or with all.
    #[arg(long, value_enum, default_value_t = Wait::Quorum)]
    wait: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dealer {
    /// This side.
    Client,
    /// The coordinator.
    Cms,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Enough holders that some may be lost at once.
    Quorum,
    /// All holders.
    Complete,
}

impl Put {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let signer = self.owner.signer()?;
        // What is wrong with the order is said before anything is read or asked.
        self.order(&signer)?;
        let payload = self.payload()?;
        let pins = pins(context).await?;
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.attempt(context, &signer, &pins, &payload).await {
                // The last writer wins, unless it said which version it replaces.
                Err(error) if lost_race(&error) && self.cas.is_some() => return Err(refused(Check::Version)),
                Err(error) if lost_race(&error) && tries < TRIES => {}
                answer => break answer?,
            }
        };
        context.print(&answer, |answer| self.text(answer))
    }

    async fn attempt(
        &self,
        context: &Context,
        signer: &Signer,
        pins: &Pins,
        payload: &SecretBytes,
    ) -> Result<Value, Box<ErrorBody>> {
        let order = self.order(signer)?;
        let verified = Self::placed(context, pins, &order).await?;
        if let Some(version) = self.cas {
            verified.check_version(version).map_err(refused)?;
        }
        check_signer(signer, verified.signer(&order))?;
        let package = self.dealt(context, pins, &order, &verified, payload).await?;
        let (namespace, bytes) = head_to_sign(&package);
        let signature = signer.sign(namespace, bytes).map_err(|error| failure(error.to_string()))?;
        let body = json!({
            "package": pack(&wire::encode(&package)),
            "signature": signature,
            "complete": self.wait == Wait::Complete,
        });
        context.daemon.post("/v1/puts/store", &body).await.map_err(unanswered)
    }

    /// Asks where the order may go and checks the answer. Evidence ages on the way: then it is asked for anew.
    async fn placed(context: &Context, pins: &Pins, order: &PutOrder) -> Result<BundleVerified, Box<ErrorBody>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let body = json!({ "order": pack(&wire::encode(order)) });
            let begun = context.daemon.post("/v1/puts/begin", &body).await?;
            let bundle: DealBundle = unpacked(&begun, "bundle")?;
            match BundleVerified::check(&Real, pins, clock::now().wall_ms, order, &bundle) {
                Err(Check::EvidenceStale) if tries < TRIES => {}
                checked => return checked.map_err(refused),
            }
        }
    }

    fn text(&self, answer: &Value) -> String {
        let names = |key| {
            let all = answer.get(key).and_then(Value::as_array).into_iter().flatten();
            all.filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let mut out = format!(
            "stored {} version {} as {}-of-{} on {}\n",
            self.name,
            shown(answer, "version"),
            self.k,
            self.n,
            names("holders")
        );
        let missing = names("missing");
        if !missing.is_empty() {
            out.push_str(&format!("not yet on {missing}\n"));
        }
        out.push_str(&format!("margin: {} of these may be lost at once\n", shown(answer, "margin")));
        out
    }

    fn order(&self, signer: &Signer) -> Result<PutOrder, Box<ErrorBody>> {
        if !text::is_name(&self.name) {
            return Err(usage("a name has letters, digits and ._-/@ only, at most 96".to_owned()));
        }
        let terms = Terms::new(self.k, self.n, self.tolerate_domains)
            .ok_or_else(|| usage("2 ≤ k ≤ n ≤ 32 must hold".to_owned()))?;
        let allow = rules(&self.allow)?;
        if self.recipient.len() > RECIPIENTS_MAX {
            return Err(usage(format!("at most {RECIPIENTS_MAX} --recipient")));
        }
        if let Some(bad) = self.recipient.iter().find(|recipient| !maps::is_recipient(recipient)) {
            return Err(usage(format!("`{bad}` is no age recipient")));
        }
        let (request, client, name) = (request_id()?, self.owner.client(signer)?, self.name.clone());
        Ok(PutOrder { request, client, name, terms, allow, recipients: self.recipient.clone() })
    }

    fn payload(&self) -> Result<SecretBytes, Box<ErrorBody>> {
        // Room for one byte too many, so that a credential that is too large is seen, and the buffer never grows.
        let limit = PAYLOAD_MAX + 1;
        let mut bytes = Vec::with_capacity(limit);
        let bound = u64::try_from(limit).unwrap_or(u64::MAX);
        let read = match &self.file {
            Some(path) => std::fs::File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes)),
            None => std::io::stdin().take(bound).read_to_end(&mut bytes),
        };
        let payload = SecretBytes::new(bytes);
        read.map_err(|error| failure(format!("cannot read the credential: {error}")))?;
        match payload.expose().len() {
            0 => Err(usage("the credential is empty".to_owned())),
            length if length > PAYLOAD_MAX => Err(usage(format!("a credential has at most {PAYLOAD_MAX} bytes"))),
            _ => Ok(payload),
        }
    }

    async fn dealt(
        &self,
        context: &Context,
        pins: &Pins,
        order: &PutOrder,
        verified: &BundleVerified,
        payload: &SecretBytes,
    ) -> Result<Package, Box<ErrorBody>> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| failure(format!("no randomness: {error}")))?;
        let mut generator = Generator::new(&Seed(seed));
        if self.dealer == Dealer::Client {
            return verified.deal(&Real, &mut generator, pins, order, payload).map_err(refused);
        }
        let entrusted = verified.entrust(&Real, &mut generator, pins, order, payload).map_err(refused)?;
        let body = json!({
            "order": pack(&wire::encode(order)),
            "group": entrusted.group.to_string(),
            "round": entrusted.round.0,
            "sealed": pack(&entrusted.sealed),
        });
        let answer = context.daemon.post("/v1/puts/entrust", &body).await?;
        let package: Package = unpacked(&answer, "package")?;
        verified.check_package(pins, order, &package).map_err(refused)?;
        Ok(package)
    }
}

//! `vouchsafe invite`: a ticket, signed by an operator. It is a bearer secret: it goes to a file or a pipe.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spec::genesis::{Genesis, SignedGenesis};
use spec::limits::{GENESIS_MAX, TICKET_MAX};
use spec::membership::Role;
use spec::ticket::{Contact, Pins, Ticket};
use spec::types::Digest;
use spec::{text, wire};

use super::init::{fresh_serial, sign_ticket};
use super::{Context, Form, Outcome, failure, field, say, usage};
use crate::api::{ErrorBody, FORMAT, unpack};
use crate::clock;
use crate::ssh::Signer;

/// Writes a ticket that lets one machine join.
#[derive(Args)]
pub(super) struct Invite {
    /// Private SSH key of an operator: the machine joins that operator's domain.
    #[arg(long)]
    operator: PathBuf,
    /// Name of the machine.
    #[arg(long)]
    name: String,
    /// What it is for: `host` stores, `reader` only reads.
    #[arg(long, default_value = "host", value_parser = parse_role)]
    role: Role,
    /// Its region.
    #[arg(long, default_value = "default")]
    region: String,
    /// Its zone.
    #[arg(long, default_value = "default")]
    zone: String,
    /// Hours until the ticket expires.
    #[arg(long, default_value_t = 24)]
    expires_hours: u64,
    /// SHA-256 of its EK's public area (hex), where it is known.
    #[arg(long)]
    ek_hash: Option<String>,
    /// File to write; standard output where it is not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn parse_role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "a role is `host` or `reader`".to_owned())
}

impl Invite {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        for (what, name) in [("--name", &self.name), ("--region", &self.region), ("--zone", &self.zone)] {
            if !text::is_name(name) {
                return Err(usage(format!("{what}: letters, digits and ._-/@ only, at most 96")));
            }
        }
        let signer = Signer::read(&self.operator).map_err(|error| failure(error.to_string()))?;
        let identity = context.daemon.get("/v1/identity").await?;
        let none = || ErrorBody::plain("membership", "this host belongs to no mesh yet".to_owned(), None);
        let pins = unpack(field(&identity, "pins")).and_then(|bytes| wire::decode::<Pins>(&bytes, TICKET_MAX).ok());
        let genesis = unpack(field(&identity, "genesis"))
            .and_then(|bytes| wire::decode::<SignedGenesis>(&bytes, 2 * GENESIS_MAX).ok())
            .and_then(|signed| wire::decode::<Genesis>(&signed.bytes, GENESIS_MAX).ok());
        let contacts = unpack(field(&identity, "contacts"));
        let contacts: Option<Vec<Contact>> = contacts.and_then(|bytes| wire::decode(&bytes, TICKET_MAX).ok());
        let (Some(pins), Some(genesis), Some(contacts)) = (pins, genesis, contacts) else { return Err(none()) };
        let domain = genesis
            .domain_of(&signer.public())
            .ok_or_else(|| usage(format!("{} is no operator of this mesh", self.operator.display())))?;
        let ek_hash = match &self.ek_hash {
            Some(text) => {
                Some(Digest::from_hex(text).ok_or_else(|| usage("--ek-hash is no SHA-256 in hex".to_owned()))?)
            }
            None => None,
        };
        let expires_ms = clock::now().wall_ms.saturating_add(self.expires_hours.saturating_mul(3_600_000));
        let name = self.name.clone();
        let ticket = Ticket::new(
            pins,
            contacts,
            self.name,
            self.role,
            domain.name.clone(),
            self.region,
            self.zone,
            fresh_serial()?,
            expires_ms,
            ek_hash,
        );
        let text = sign_ticket(&ticket, &signer)?.to_text();
        match &self.out {
            None if context.form == Form::Json => {
                context.print(&json!({ "format": FORMAT, "ticket_text": text, "name": name }), |_| String::new())
            }
            None => say(&text),
            Some(path) => {
                write_private(path, text.as_bytes()).map_err(|e| failure(format!("{}: {e}", path.display())))?;
                let answer = json!({ "format": FORMAT, "ticket": path.display().to_string(), "name": name });
                context.print(&answer, |_| format!("wrote {}: hand it to {name}, and to nobody else\n", path.display()))
            }
        }
    }
}

/// Writes a file that only its owner reads: a new one beside it first, so that neither an older file's rights nor a
/// link nor half a content is ever what somebody finds there. A pipe or device is written as it is.
pub(super) fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // These stand for what this process has open: the new file would take the place of the link itself.
    let is_open_here = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc/self/fd"].iter().any(|of| path.starts_with(of));
    if is_open_here {
        return Err(std::io::Error::other("is no file of its own: leave --out away, or name a file"));
    }
    if path.exists() && !path.is_file() {
        return std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    name.push(format!(".{}.new", hex::encode(random)));
    let fresh = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&fresh, path));
    if written.is_err() {
        drop(std::fs::remove_file(&fresh)); // what failed above is the news
    }
    written
}

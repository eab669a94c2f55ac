//! `vouchsafe successor`: another key signs from now on.

use std::path::PathBuf;

use clap::Args;
use spec::client::Change;
use spec::credential::head::{HeadVerified, SUCCESSION_NAMESPACE, Succession};
use spec::ticket::Pins;

use super::owner::{self, Owner};
use super::{Context, Outcome, failure};
use crate::ssh::Signer;

/// Hands a credential over to another key. It keeps its name under the first owner's key: later commands name that one
/// with --client.
#[derive(Args)]
pub(super) struct HandOver {
    /// Name of the credential.
    name: String,
    /// Private SSH key (ed25519) that signs from now on.
    #[arg(long)]
    to: PathBuf,
    #[command(flatten)]
    owner: Owner,
}

impl HandOver {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let successor = Signer::read(&self.to).map_err(|error| failure(error.to_string()))?;
        let key = successor.public();
        let hand_over = |newest: &HeadVerified, pins: &Pins, signer: &Signer| {
            let head = newest.head();
            let bytes = Succession::signed_bytes(&pins.mesh, &head.id(), head.successors.len(), &key);
            let signature = signer.sign(SUCCESSION_NAMESPACE, &bytes).map_err(|error| failure(error.to_string()))?;
            Ok(Change::HandOver(Succession { key, signature }))
        };
        owner::change(context, &self.owner, &self.name, "handed over", Some(&successor), hand_over).await
    }
}

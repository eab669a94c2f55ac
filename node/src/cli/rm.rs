//! `vouchsafe rm`.

use clap::Args;
use spec::client::Change;

use super::owner::{self, Owner};
use super::{Context, Outcome};

/// Removes a credential: its holders erase their shares.
#[derive(Args)]
pub(super) struct Remove {
    /// Name of the credential.
    name: String,
    #[command(flatten)]
    owner: Owner,
}

impl Remove {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let remove = |_: &_, _: &_, _: &_| Ok(Change::Remove);
        owner::change(context, &self.owner, &self.name, "removed", None, remove).await
    }
}

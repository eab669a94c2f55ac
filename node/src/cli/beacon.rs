//! `vouchsafe beacon`: the mesh's beacon in drand's form, so that drand's own verifiers take it.

use clap::Args;

use super::{Context, Outcome, say};

/// Writes a beacon in drand's JSON.
#[derive(Args)]
pub(super) struct ShowBeacon {
    /// The round; the newest where it is not given. The last 64 are kept.
    round: Option<u64>,
    /// Describe the chain instead: its public key, its period, its start.
    #[arg(long, conflicts_with = "round")]
    info: bool,
}

impl ShowBeacon {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let path = match (self.info, self.round) {
            (true, _) => "/v1/beacon/info".to_owned(),
            (false, Some(round)) => format!("/v1/beacon/{round}"),
            (false, None) => "/v1/beacon/latest".to_owned(),
        };
        let answer = context.daemon.get(&path).await?;
        // The same in both forms: this is somebody else's form.
        say(&format!("{answer}\n"))
    }
}

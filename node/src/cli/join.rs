//! `vouchsafe join`: shows the ticket to the committee and answers each member's challenge.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spec::limits::TICKET_MAX;

use super::{Context, Outcome, failure, shown, usage};

/// Joins a mesh with a ticket.
#[derive(Args)]
pub(super) struct Join {
    /// The ticket's file, `-` for standard input.
    ticket: PathBuf,
    /// Address of the host that wrote the ticket, host:port, if it is not where the ticket says.
    address: Option<String>,
}

impl Join {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let ticket = read_text(&self.ticket)?;
        if self.address.as_ref().is_some_and(|address| !address.contains(':')) {
            return Err(usage("ADDR is host:port".to_owned()));
        }
        let body = json!({ "ticket": ticket, "address": self.address });
        let answer = context.daemon.post("/v1/join", &body).await?;
        context.print(&answer, |answer| {
            if answer.get("forming").is_some_and(|known| !known.is_null()) {
                return format!(
                    "mesh {} is forming: {} of 3 hosts of enough domains; it founds itself when there are three\n",
                    shown(answer, "mesh_name"),
                    shown(answer, "forming")
                );
            }
            let member = answer.get("member").cloned().unwrap_or_default();
            format!(
                "joined mesh {} as {} ({}, domain {})\n",
                shown(answer, "mesh_name"),
                shown(&member, "name"),
                shown(&member, "role"),
                shown(&member, "domain")
            )
        })
    }
}

fn read_text(path: &std::path::Path) -> Result<String, Box<crate::api::ErrorBody>> {
    use std::io::Read as _;
    let limit = u64::try_from(TICKET_MAX).unwrap_or(u64::MAX) + 1;
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.map(|_| text).map_err(|error| failure(format!("cannot read {}: {error}", path.display())))
}

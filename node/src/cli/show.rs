//! `vouchsafe show`: one credential, and its shard map for the owner's own tools.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::init::public_text;
use super::invite::write_private;
use super::{Context, Outcome, failure, field, printable, shown};

/// Shows one credential; never its content.
#[derive(Args)]
pub(super) struct Show {
    /// Name of the credential.
    name: String,
    /// Public SSH key of its owner, where several have one of this name.
    #[arg(long)]
    client: Option<PathBuf>,
    /// Write the shard map, an age file to the owner's recipients.
    #[arg(long)]
    map: Option<PathBuf>,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let client = self.client.as_deref().map(public_text).transpose()?;
        let found = context.find(&self.name, client.as_deref()).await?;
        let id = field(&found, "id").to_owned();
        let answer = context.daemon.get(&format!("/v1/credentials/{id}")).await?;
        if let Some(path) = &self.map {
            let file = context.daemon.bytes(&format!("/v1/credentials/{id}/map")).await?;
            write_private(path, file.expose()).map_err(|error| failure(format!("{}: {error}", path.display())))?;
        }
        context.print(&answer, |answer| {
            let list = |name: &str| {
                let all = answer.get(name).and_then(Value::as_array).into_iter().flatten();
                let all: Vec<String> = all.filter_map(Value::as_str).map(printable).collect();
                if all.is_empty() { "nobody".to_owned() } else { all.join(" ") }
            };
            format!(
                "name        {}\nid          {}\nowner       {}\nsigned by   {}\nversion     {}\nshares      {}-of-{}, {} flushed when \
                 recorded\ntolerates   {} hostile domain(s)\ndealer      {}\nallow       {}\nmap opens   {}\ngroup       \
                 {} generation {}\nrecord      {}\n",
                shown(answer, "name"),
                shown(answer, "id"),
                shown(answer, "client"),
                shown(answer, "signer"),
                shown(answer, "version"),
                shown(answer, "k"),
                shown(answer, "n"),
                shown(answer, "flushed"),
                shown(answer, "tolerate_domains"),
                shown(answer, "dealer"),
                list("allow"),
                list("recipients"),
                shown(answer, "group"),
                shown(answer, "generation"),
                shown(answer, "record"),
            )
        })
    }
}

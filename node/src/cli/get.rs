//! `vouchsafe get`: the credential to standard output or a file; to a terminal only when told so.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use spec::credential::head::credential_id;
use spec::types::SshKey;

use super::invite::write_private;
use super::{Context, Form, Outcome, failure, usage};
use crate::api::{ErrorBody, FORMAT};
use crate::ssh;

/// Reads a credential. Its owner is named by --client or in the configuration: a name alone is nobody's.
#[derive(Args)]
pub(super) struct Get {
    /// Name of the credential.
    name: String,
    /// Public SSH key of its owner.
    #[arg(long)]
    client: Option<PathBuf>,
    /// File to write; standard output where it is not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write it even to a terminal.
    #[arg(long)]
    reveal: bool,
}

impl Get {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if self.out.is_none() && std::io::stdout().is_terminal() && !self.reveal {
            return Err(usage("standard output is a terminal: add --reveal, or --out FILE".to_owned()));
        }
        // An error object in the place of a credential would be taken for one.
        if self.out.is_none() && context.form == Form::Json {
            return Err(usage("-o json says nothing of a credential on standard output: add --out FILE".to_owned()));
        }
        let id = credential_id(&self.owner(context)?, &self.name);
        let secret = context.daemon.bytes(&format!("/v1/credentials/{id}/secret")).await?;
        match &self.out {
            None => {
                let mut out = std::io::stdout().lock();
                out.write_all(secret.expose())
                    .and_then(|()| out.flush())
                    .map_err(|error| failure(format!("cannot write: {error}")))?;
            }
            Some(path) => {
                write_private(path, secret.expose()).map_err(|e| failure(format!("{}: {e}", path.display())))?;
                let answer = json!({ "format": FORMAT, "name": self.name, "bytes": secret.expose().len() });
                context.print(&answer, |_| String::new())?;
            }
        }
        Ok(())
    }

    fn owner(&self, context: &Context) -> Result<SshKey, Box<ErrorBody>> {
        if let Some(path) = &self.client {
            return ssh::read_public(path).map_err(|error| usage(error.to_string()));
        }
        let wanted = context.config.credential.iter().find(|wanted| wanted.name == self.name);
        let named = wanted.ok_or_else(|| {
            usage(format!("who owns `{}`? name the key: --client KEY.pub, or [[credential]] in the file", self.name))
        })?;
        ssh::parse_public(&named.client)
            .ok_or_else(|| usage(format!("the configuration's key for `{}` is no ed25519 key", self.name)))
    }
}

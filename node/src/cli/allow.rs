//! `vouchsafe grant` and `vouchsafe revoke`: who may read, without a new value.

use clap::Args;
use spec::client::Change;
use spec::credential::head::{Allow, HeadVerified};
use spec::limits::ALLOW_MAX;

use super::owner::{self, Owner};
use super::{Context, Outcome, usage};
use crate::api::ErrorBody;

/// Whom to allow, or not any more.
#[derive(Args)]
pub(super) struct Rules {
    /// Name of the credential.
    name: String,
    /// instance:NAME, role:host, role:reader or ek:HEX; as many as needed.
    #[arg(required = true)]
    rules: Vec<String>,
    #[command(flatten)]
    owner: Owner,
}

impl Rules {
    /// Allows more to read.
    pub(super) async fn grant(self, context: &Context) -> Outcome {
        let more = owner::rules(&self.rules)?;
        let grant = |newest: &HeadVerified, _: &_, _: &_| {
            let mut allow = newest.head().allow.clone();
            allow.extend(more.iter().filter(|rule| !newest.head().allow.contains(rule)).cloned());
            if allow.len() > ALLOW_MAX {
                return Err(usage(format!("a credential has at most {ALLOW_MAX} rules")));
            }
            Ok(Change::Allow(allow))
        };
        owner::change(context, &self.owner, &self.name, "granted", None, grant).await
    }

    /// Takes rules away: whoever fits none of those that are left is refused.
    pub(super) async fn revoke(self, context: &Context) -> Outcome {
        let gone = owner::rules(&self.rules)?;
        let revoke = |newest: &HeadVerified, _: &_, _: &_| {
            let allow = &newest.head().allow;
            if let Some(unknown) = gone.iter().find(|rule| !allow.contains(rule)) {
                return Err(no_such_rule(&self.name, unknown, allow));
            }
            let left = allow.iter().filter(|rule| !gone.contains(rule)).cloned().collect();
            Ok(Change::Allow(left))
        };
        owner::change(context, &self.owner, &self.name, "revoked", None, revoke).await
    }
}

fn no_such_rule(name: &str, unknown: &Allow, allow: &[Allow]) -> Box<ErrorBody> {
    let rules: Vec<String> = allow.iter().map(Allow::to_text).collect();
    let rules = if rules.is_empty() { "nobody".to_owned() } else { rules.join(" ") };
    let message = format!("`{name}` has no rule {}; it allows {rules}", unknown.to_text());
    ErrorBody::plain(
        "not_found",
        message,
        Some("it may be revoked already; a rule is revoked as it was granted: see `vouchsafe show`"),
    )
}

//! `vouchsafe leave`: this host leaves the mesh, and says how far it is.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{Context, Form, Outcome, say};
use crate::api::ErrorBody;

/// Leaves the mesh: the committee takes seat and key share from this host first. Refused where a credential would be
/// left with too few holders.
#[derive(Args)]
pub(super) struct Leave {
    /// Seconds to wait until it has left.
    #[arg(long, default_value_t = 120)]
    wait: u64,
}

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

impl Leave {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        context.daemon.post("/v1/leave", &json!({})).await?;
        let since = Instant::now();
        let mut told = String::new();
        loop {
            let status = context.daemon.get("/v1/status").await?;
            if status.get("left") == Some(&Value::Bool(true)) {
                return context
                    .print(&status, |_| "left the mesh: stop the daemon, its state may be removed\n".to_owned());
            }
            let doing = doing(&status);
            if context.form == Form::Text && doing != told {
                say(&format!("{doing}\n"))?;
                told = doing;
            }
            if since.elapsed() > Duration::from_secs(self.wait) {
                let hint = "it goes on by itself: see `vouchsafe status`";
                return Err(ErrorBody::plain("not_ready", "still leaving".to_owned(), Some(hint)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// What it still has to give up.
fn doing(status: &Value) -> String {
    let name = status.pointer("/member/name").and_then(Value::as_str).unwrap_or_default();
    let seats = status.get("committee").and_then(Value::as_array).into_iter().flatten();
    if seats.filter_map(Value::as_str).any(|seat| seat == name) {
        "leaving: its seat and its share of the mesh key go to others".to_owned()
    } else {
        "leaving: holds no seat".to_owned()
    }
}

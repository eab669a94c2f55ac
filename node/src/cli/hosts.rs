//! `vouchsafe hosts`.

use serde_json::Value;

use super::table::table;
use super::{Context, Outcome, shown};

pub(super) async fn run(context: &Context) -> Outcome {
    let answer = context.daemon.get("/v1/hosts").await?;
    context.print(&answer, |answer| {
        let head = ["NAME", "ROLE", "DOMAIN", "REGION", "TPM", "STATE", "ADDRESS"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for one in answer.get("hosts").and_then(Value::as_array).into_iter().flatten() {
            let mut state = shown(one, "state");
            if let Some(check) = one.get("check").and_then(Value::as_str) {
                state = format!("{state}: {check}");
            }
            if one.get("coordinates").and_then(Value::as_bool) == Some(true) {
                state.push_str(", leads");
            } else if one.get("committee").and_then(Value::as_bool) == Some(true) {
                state.push_str(", votes");
            }
            let mut row = vec![shown(one, "name"), shown(one, "role"), shown(one, "domain"), shown(one, "region")];
            row.extend([shown(one, "tpm"), state, shown(one, "address")]);
            rows.push(row);
        }
        table(&rows)
    })
}

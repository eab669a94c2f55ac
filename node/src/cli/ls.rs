//! `vouchsafe ls`.

use serde_json::Value;

use super::table::table;
use super::{Context, Outcome, shown};

pub(super) async fn run(context: &Context) -> Outcome {
    let answer = context.daemon.get("/v1/credentials").await?;
    context.print(&answer, |answer| {
        let mut rows = vec![["NAME", "VERSION", "SHARES", "DEALER", "ALLOW"].map(str::to_owned).to_vec()];
        for one in answer.get("credentials").and_then(Value::as_array).into_iter().flatten() {
            let allow = one.get("allow").and_then(Value::as_array).into_iter().flatten();
            let allow: Vec<&str> = allow.filter_map(Value::as_str).collect();
            rows.push(vec![
                shown(one, "name"),
                shown(one, "version"),
                format!("{}-of-{}", shown(one, "k"), shown(one, "n")),
                shown(one, "dealer"),
                if allow.is_empty() { "nobody".to_owned() } else { allow.join(" ") },
            ]);
        }
        table(&rows)
    })
}

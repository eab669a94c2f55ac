//! `vouchsafe status`.

use serde_json::Value;

use super::{Context, Outcome, shown};

pub(super) async fn run(context: &Context) -> Outcome {
    let answer = context.daemon.get("/v1/status").await?;
    context.print(&answer, text)
}

fn text(answer: &Value) -> String {
    if answer.get("mesh").is_none_or(Value::is_null) {
        let doing = if answer.get("joining") == Some(&Value::Bool(true)) { "is joining" } else { "belongs to no mesh" };
        return format!("this host {doing}\n  hint: found one (vouchsafe init) or join one (vouchsafe join)\n");
    }
    let member = answer.get("member").cloned().unwrap_or_default();
    let mut out = format!(
        "host      {} ({}, domain {}, region {})\nmesh      {} ({})\ntrust     {}\nepoch     {} of {} ms, own \
         evidence of {}\nrecords   {}\nshares    {}\n",
        shown(&member, "name"),
        shown(&member, "role"),
        shown(&member, "domain"),
        shown(&member, "region"),
        shown(answer, "mesh_name"),
        shown(answer, "mesh"),
        shown(answer, "trust"),
        shown(answer, "epoch"),
        shown(answer, "epoch_ms"),
        shown(answer, "evidence_epoch"),
        shown(answer, "records"),
        shown(answer, "shares"),
    );
    if answer.get("coordinates") == Some(&Value::Bool(true)) {
        out.push_str("role      coordinates this mesh\n");
    }
    for refusal in answer.get("refusals").and_then(Value::as_array).into_iter().flatten().rev().take(5) {
        out.push_str(&format!("refused   {} [{}]\n", shown(refusal, "message"), shown(refusal, "refusal_id")));
    }
    out
}

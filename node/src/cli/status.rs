//! `vouchsafe status`.

use serde_json::Value;

use super::{Context, Outcome, shown};

pub(super) async fn run(context: &Context) -> Outcome {
    let answer = context.daemon.get("/v1/status").await?;
    context.print(&answer, text)
}

fn text(answer: &Value) -> String {
    if answer.get("mesh").is_none_or(Value::is_null) {
        let doing = if yes(answer, "joining") { "is joining" } else { "belongs to no mesh" };
        return format!(
            "this host {doing}\nTPM's EK  {}\n  hint: found one (vouchsafe init) or join one (vouchsafe join)\n",
            names(answer, "ek_hashes")
        );
    }
    if answer.get("forming").is_some_and(|known| !known.is_null()) {
        return format!(
            "mesh      {} ({})\nforming   {} of 3 hosts of enough domains have come\n  hint: invite hosts (vouchsafe invite) until \
             there are three\n",
            shown(answer, "mesh_name"),
            shown(answer, "mesh"),
            shown(answer, "forming")
        );
    }
    if yes(answer, "left") {
        return "this host left its mesh: stop the daemon, its state may be removed\n".to_owned();
    }
    let mut out = of_member(answer);
    out.push_str(&warnings(answer));
    if yes(answer, "coordinates") {
        out.push_str("role      leads the committee\n");
    }
    for refusal in answer.get("refusals").and_then(Value::as_array).into_iter().flatten().rev().take(5) {
        out.push_str(&format!("refused   {} [{}]\n", shown(refusal, "message"), shown(refusal, "refusal_id")));
    }
    out
}

fn yes(answer: &Value, key: &str) -> bool {
    answer.get(key) == Some(&Value::Bool(true))
}

fn names(answer: &Value, key: &str) -> String {
    let list = answer.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    list.collect::<Vec<_>>().join(", ")
}

fn of_member(answer: &Value) -> String {
    let member = answer.get("member").cloned().unwrap_or_default();
    format!(
        "host      {} ({}, domain {}, region {})\nmesh      {} ({})\nmesh key  {}\ncommittee {}\nleads     \
         {} (term {})\nepoch     {} of {} ms, header of {}, own evidence of {}\nrecords   {}\nshares    {} ({})\n",
        shown(&member, "name"),
        shown(&member, "role"),
        shown(&member, "domain"),
        shown(&member, "region"),
        shown(answer, "mesh_name"),
        shown(answer, "mesh"),
        shown(answer, "mesh_key"),
        names(answer, "committee"),
        shown(answer, "coordinator"),
        shown(answer, "term"),
        shown(answer, "epoch"),
        shown(answer, "epoch_ms"),
        shown(answer, "header_epoch"),
        shown(answer, "evidence_epoch"),
        shown(answer, "records"),
        shown(answer, "shares"),
        if yes(answer, "unlocked") { "unlocked by the mesh" } else { "locked: waits for its peers" },
    )
}

/// What a person should know, or do something about.
fn warnings(answer: &Value) -> String {
    let mut out = String::new();
    if yes(answer, "leaving") {
        out.push_str("leaving   its seat and its share of the mesh key go to others\n");
    }
    let crowded = names(answer, "crowded_domains");
    if !crowded.is_empty() {
        out.push_str(&format!("warning   {crowded} alone could sign for the mesh: add hosts of other domains\n"));
    }
    if !answer.get("outgrown").is_none_or(Value::is_null) {
        let version = shown(answer, "outgrown");
        out.push_str(&format!(
            "warning   the mesh is at version {version}, which this binary does not know: update it\n"
        ));
    }
    if yes(answer, "split") {
        out.push_str(
            "warning   the mesh key signed two headers that contradict each other: somebody with a seat lied. Nothing is \
             erased here any more\n",
        );
    }
    out
}

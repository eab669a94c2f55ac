//! What an owner does with a credential that is there: another value only in place of the one that it knows, more readers,
//! fewer, another key that signs, removal. Certain is said only where every holder said so, and then nobody serves what was
//! before.

use serde_json::{Map, Value, json};

use super::{Stage, must};
use crate::machine::Machine;
use crate::mesh::TestnetError;

const NAME: &str = "owned/credential";
/// Exit codes.
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const REFUSED: i32 = 4;
const NOT_CERTAIN: i32 = 7;

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let (first, second) = (stage.content(64), stage.content(64));
    let owner = stage.mesh.owner().display().to_string();
    let terms = ["-k", "2", "-n", "5", "--key", &owner];
    let through = |at: usize| stage.mesh.machines.get(at).ok_or(TestnetError::Ports);
    let put = |machine: &Machine, more: &[&str], content: &[u8]| {
        machine.vouchsafe(&[&["-o", "json", "put", NAME], &terms[..], more].concat(), content)
    };

    put(through(0)?, &["--allow", "role:host"], &first)?.ok("put")?;
    let early = put(through(1)?, &["--cas", "7"], &second)?;
    must(early.code == REFUSED, format!("a put in place of version 7 ended with {}", early.code))?;
    let refused = stage.mesh.get(stage.mesh.reader()?, NAME)?;
    must(refused.code == REFUSED, format!("a reader that nobody allows: get ended with {}", refused.code))?;

    change(stage, 1, &["grant", NAME, "instance:web1"], 0)?;
    stage.expect(NAME, &first)?;
    change(stage, 2, &["revoke", NAME, "instance:web1"], 0)?;
    let after = stage.mesh.get(stage.mesh.reader()?, NAME)?;
    must(after.code == REFUSED, format!("revoked, for certain: get ended with {}", after.code))?;
    stage.tell("granted and revoked", &json!({ "revocation": "certain" }));

    put(through(3)?, &["--cas", "1", "--allow", "instance:web1"], &second)?.ok("put in place of version 1")?;
    stage.expect(NAME, &second)?;

    let next = hand_over(stage)?;
    let old = put(through(0)?, &["--cas", "2", "--allow", "instance:web1"], &first)?;
    must(old.code == USAGE, format!("a put under the first owner's key ended with {}: {}", old.code, old.err))?;
    stage.expect(NAME, &second)?;
    stage.tell("handed over", &json!({ "first_key": "not taken by the command" }));

    // One holder is down: nobody can say for it that it serves nothing any more.
    let gone = stage.mesh.machines.iter().rev().find(|machine| machine.plan.role == "host");
    let gone = gone.map(|machine| machine.plan.name.clone()).unwrap_or_default();
    stage.mesh.machine_mut(&gone)?.kill_daemon();
    let said = remove(stage, &next)?;
    let (code, text) = said;
    must(code == NOT_CERTAIN && text.contains(&gone), format!("rm ended with {code}, {gone} is down: {text}"))?;
    let after = stage.mesh.get(stage.mesh.reader()?, NAME)?;
    must(after.code == NOT_FOUND, format!("removed: get ended with {}", after.code))?;
    let mut figures = Map::new();
    figures.insert("revocation".to_owned(), json!("certain"));
    figures.insert("removal_with_a_holder_down".to_owned(), json!("not yet certain"));
    Ok(figures)
}

/// A command of the owner, through a machine, that must end so.
fn change(stage: &Stage<'_>, through: usize, what: &[&str], code: i32) -> Result<(), TestnetError> {
    let key = stage.mesh.owner().display().to_string();
    let machine = stage.mesh.machines.get(through).ok_or(TestnetError::Ports)?;
    let said = machine.vouchsafe(&[&["-o", "json"], what, &["--key", &key]].concat(), b"")?;
    must(said.code == code, format!("{} ended with {}: {}{}", what.join(" "), said.code, said.text(), said.err))
}

/// Another key signs from now on; gives its path.
fn hand_over(stage: &Stage<'_>) -> Result<String, TestnetError> {
    let path = stage.mesh.folder.join("next-owner");
    let shown = path.display().to_string();
    let mut keygen = std::process::Command::new("ssh-keygen");
    crate::command::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &shown]), b"")?.ok("ssh-keygen")?;
    change(stage, 4, &["successor", NAME, "--to", &shown], 0)?;
    Ok(shown)
}

/// Removed by the successor, under the first owner's name. Gives the exit code and what was said.
fn remove(stage: &Stage<'_>, key: &str) -> Result<(i32, String), TestnetError> {
    let client = stage.mesh.owner_public().display().to_string();
    let said = stage.mesh.founder()?.vouchsafe(&["-o", "json", "rm", NAME, "--key", key, "--client", &client], b"")?;
    Ok((said.code, format!("{}{}", said.text(), said.err)))
}

//! Other people's tools judge what we make, and we judge what they make: tpm2-tools, OpenSSH, age.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use spec::attest::quote::{Quote, QuoteVerified};
use spec::attest::tpm::AkPublic;
use spec::suite::Real;
use spec::text::dearmour;
use spec::types::Digest;

use super::{Stage, must};
use crate::command::{Said, run};
use crate::mesh::TestnetError;

pub(super) fn play(stage: &mut Stage<'_>) -> Result<Map<String, Value>, TestnetError> {
    let mut figures = Map::new();
    checkquote(stage)?;
    figures.insert("tpm2_checkquote".to_owned(), json!("accepts ours, refuses another nonce"));
    stage.tell("tpm2_checkquote", &json!({ "ours": "accepted", "another_nonce": "refused" }));
    tpm2_quote(stage)?;
    figures.insert("tpm2_quote".to_owned(), json!("accepted here, refused with another nonce or PCR"));
    stage.tell("tpm2_quote", &json!({ "theirs": "accepted", "another_nonce": "refused" }));
    ssh_keygen(stage)?;
    figures.insert("ssh-keygen".to_owned(), json!("verifies a ticket, refuses a changed one"));
    stage.tell("ssh-keygen -Y verify", &json!({ "ticket": "good", "changed": "refused" }));
    age(stage)?;
    figures.insert("age".to_owned(), json!("opens a shard map with the right identity and no other"));
    stage.tell("age", &json!({ "right_identity": "opens", "another": "refused" }));
    Ok(figures)
}

fn tool(stage: &Stage<'_>, folder: &Path, name: &str, arguments: &[&str], input: &[u8]) -> Result<Said, TestnetError> {
    let tcti = stage.mesh.reader()?.tcti();
    let mut command = Command::new(name);
    command.current_dir(folder).env("TPM2TOOLS_TCTI", tcti).env("TSS2_LOG", "all+none").args(arguments);
    run(&mut command, input)
}

fn checkquote(stage: &Stage<'_>) -> Result<(), TestnetError> {
    let folder = stage.mesh.folder.join("evidence");
    let out = folder.display().to_string();
    stage.mesh.reader()?.vouchsafe(&["evidence", "--out", &out], b"")?.ok("vouchsafe evidence")?;
    let path = folder.join("qualifying.hex");
    let qualifying = std::fs::read_to_string(&path).map_err(|error| TestnetError::File(path, error))?;
    let files = ["-u", "ak.public", "-m", "quote.attest", "-s", "quote.signature", "-f", "pcrs.serialized"];
    let check = |nonce: &str| {
        let arguments = [files.as_slice(), &["-g", "sha256", "-q", nonce]].concat();
        tool(stage, &folder, "tpm2_checkquote", &arguments, b"")
    };
    check(&qualifying)?.ok("tpm2_checkquote")?;
    must(check(&"00".repeat(32))?.code != 0, "tpm2_checkquote took another nonce")
}

fn tpm2_quote(stage: &Stage<'_>) -> Result<(), TestnetError> {
    let folder = stage.mesh.folder.join("theirs");
    std::fs::create_dir_all(&folder).map_err(|error| TestnetError::File(folder.clone(), error))?;
    let nonce = Digest([0x5a; 32]);
    let nonce_text = nonce.to_string();
    let steps: [(&str, &[&str]); 5] = [
        ("tpm2_createek", &["-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub"]),
        ("tpm2_flushcontext", &["-t"]),
        (
            "tpm2_createak",
            &["-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub"],
        ),
        ("tpm2_flushcontext", &["-t"]),
        (
            "tpm2_quote",
            &[
                "-c",
                "ak.ctx",
                "-l",
                "sha256:0,7,14",
                "-q",
                &nonce_text,
                "-m",
                "attest",
                "-s",
                "signature",
                "-g",
                "sha256",
            ],
        ),
    ];
    for (name, arguments) in steps {
        tool(stage, &folder, name, arguments, b"")?.ok(name)?;
    }
    tool(stage, &folder, "tpm2_flushcontext", &["-t"], b"")?.ok("tpm2_flushcontext")?;
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| TestnetError::File(path, error))
    };
    let public = read("ak.pub")?; // TPM2B_PUBLIC: two bytes of length before the public area
    let wrong = |what: &str| TestnetError::Wrong(what.to_owned());
    let ak = AkPublic::parse(public.get(2..).unwrap_or_default()).map_err(|_| wrong("their AK does not parse here"))?;
    let zeros = Digest::ZERO; // PCRs of a chip that booted nothing
    let quote = Quote {
        attest: read("attest")?,
        signature: read("signature")?,
        pcrs: [0, 7, 14].into_iter().map(|pcr| (pcr, zeros)).collect(),
    };
    QuoteVerified::check(&Real, &quote, &ak, &nonce).map_err(|check| wrong(check.name()))?;
    must(QuoteVerified::check(&Real, &quote, &ak, &zeros).is_err(), "another nonce was accepted here")?;
    let mut other = quote;
    other.pcrs.insert(7, Digest([1; 32]));
    must(QuoteVerified::check(&Real, &other, &ak, &nonce).is_err(), "another PCR value was accepted here")
}

fn ssh_keygen(stage: &Stage<'_>) -> Result<(), TestnetError> {
    let plan = &stage.mesh.reader()?.plan;
    let folder = &stage.mesh.folder;
    let path = stage.mesh.invite(plan)?;
    let text = std::fs::read_to_string(&path).map_err(|error| TestnetError::File(path, error))?;
    let no_ticket = || TestnetError::Wrong("the ticket is not armoured".to_owned());
    let (mut body, signature) = dearmour(spec::ticket::LABEL, &text).ok_or_else(no_ticket)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|error| TestnetError::File(path, error))
    };
    write("ticket.sig", signature.trim_start().as_bytes())?;
    let path = stage.mesh.operator(&plan.domain).with_extension("pub");
    let operator = std::fs::read_to_string(&path).map_err(|error| TestnetError::File(path, error))?;
    write("allowed", format!("operator {operator}").as_bytes())?;
    let verify = |body: &[u8]| {
        let arguments =
            ["-Y", "verify", "-f", "allowed", "-I", "operator", "-n", spec::ticket::NAMESPACE, "-s", "ticket.sig"];
        tool(stage, folder, "ssh-keygen", &arguments, body)
    };
    verify(&body)?.ok("ssh-keygen -Y verify")?;
    if let Some(last) = body.last_mut() {
        *last ^= 1;
    }
    must(verify(&body)?.code != 0, "ssh-keygen took a changed ticket")
}

fn age(stage: &Stage<'_>) -> Result<(), TestnetError> {
    let folder = &stage.mesh.folder;
    let mut recipient = String::new();
    for name in ["right.age-key", "other.age-key"] {
        tool(stage, folder, "age-keygen", &["-o", name], b"")?.ok("age-keygen")?;
        if recipient.is_empty() {
            recipient = tool(stage, folder, "age-keygen", &["-y", name], b"")?.ok("age-keygen -y")?.text();
        }
    }
    let host = stage.mesh.founder()?;
    let more = ["-k", "2", "-n", "3", "--recipient", recipient.trim()];
    stage.mesh.put(host, "outside/map", &more, b"a credential")?.ok("put")?;
    let map = folder.join("map.age").display().to_string();
    host.vouchsafe(&["show", "outside/map", "--map", &map], b"")?.ok("show --map")?;
    let open = |key: &str| tool(stage, folder, "age", &["-d", "-i", key, &map], b"");
    let opened = open("right.age-key")?.ok("age -d")?;
    must(!opened.out.is_empty(), "the map is empty")?;
    must(open("other.age-key")?.code != 0, "age opened the map with another identity")
}

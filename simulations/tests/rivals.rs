//! Two headers of one round, both under the mesh key: somebody with a seat led two parts of the committee to two ends of the
//! log. Nobody can tell which is right, and nothing is erased that either needs.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use spec::gossip::{News, Verdict};
use spec::header::SignedHeader;
use spec::host::{LocalCommand, LocalReply};
use spec::suite::Fake;
use spec::types::{BlsSignature, Digest};
use spec::wire::{Message, encode_message};
use vouchsafe_sim::run::Run;

const WAIT_MS: u64 = 20_000;
const HOSTS: usize = 5;
/// Whoever hears of it first.
const HEARS: usize = 3;

/// A mesh in which a credential has been put once.
fn mesh() -> Run {
    let mut run = Run::calm(HOSTS, 7, WAIT_MS);
    put(&mut run, b"the first value");
    run
}

fn put(run: &mut Run, value: &[u8]) {
    let signed = run.sign_value(0, "kept", value).expect("dealt");
    let reply = run.ask(0, signed.store(), WAIT_MS);
    assert!(matches!(reply, Some(Ok(LocalReply::Stored { .. }))), "{reply:?}");
    run.settle(WAIT_MS);
}

/// Shares at rest in the whole mesh.
fn at_rest(run: &Run) -> usize {
    run.world.machines.iter().map(|machine| machine.disk.saved().shares.len()).sum()
}

/// A header of the newest round that says something else.
fn rival(run: &Run, signature: Option<BlsSignature>) -> (Vec<u8>, SignedHeader) {
    let records = run.records(HEARS);
    let (mesh, key) = (records.mesh().expect("a mesh"), records.mesh_key().expect("a key"));
    let mut header = records.header().expect("a header").clone();
    header.records_root = Digest([0x77; 32]);
    let signed = Fake::bls_sign_as(key.public(), &header.signed_bytes(mesh)).expect("a signature");
    let signed = SignedHeader { header, signature: signature.unwrap_or(signed) };
    (encode_message(mesh, &Message::News(News::Header(Box::new(signed.clone())))), signed)
}

/// Somebody passes it on; gives what the host made of it.
fn hears(run: &mut Run, signature: Option<BlsSignature>) -> Verdict {
    let (bytes, _) = rival(run, signature);
    let from = run.world.machines[1].transport;
    run.world.judged = Some(Vec::new());
    run.world.hear(HEARS, &from, bytes);
    let judged = run.world.judged.take().expect("verdicts");
    judged.iter().find(|(machine, _)| *machine == HEARS).expect("a verdict").1
}

#[test]
fn without_a_rival_an_older_version_is_erased() {
    let mut run = mesh();
    let before = at_rest(&run);
    put(&mut run, b"the second value");
    assert_eq!(at_rest(&run), before);
}

#[test]
fn once_two_headers_of_a_round_hold_nothing_is_erased_and_everything_is_read() {
    let mut run = mesh();
    let before = at_rest(&run);
    assert_eq!(hears(&mut run, None), Verdict::Accept, "others are to know");
    // It is passed on, and all are right to say so.
    run.world.judged = Some(Vec::new());
    run.settle(WAIT_MS);
    put(&mut run, b"the second value");
    assert_eq!(at_rest(&run), 2 * before, "both versions, wherever they lie");
    run.is_sound();
    for machine in 0..HOSTS {
        // Whoever starts anew knows it still.
        run.world.crash(machine);
        run.world.start(machine);
        let status = run.ask(machine, LocalCommand::Status, WAIT_MS);
        assert!(matches!(status, Some(Ok(LocalReply::Status(status))) if status.split), "{machine} does not say so");
    }
}

#[test]
fn a_rival_that_the_mesh_key_did_not_sign_changes_nothing() {
    let mut run = mesh();
    let before = at_rest(&run);
    assert_eq!(hears(&mut run, Some(BlsSignature([9; 48]))), Verdict::Reject);
    put(&mut run, b"the second value");
    assert_eq!(at_rest(&run), before);
}

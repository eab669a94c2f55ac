//! The wire, mostly what must be refused. Each vector in `vectors/wire.json` says what it is about, its bytes, and what
//! decoding them gives: `ok` or the error's name. `VOUCHSAFE_WRITE_VECTORS=1` writes the file anew.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may write its own vectors")]

use proptest::prelude::*;
use serde_json::{Value, json};
use spec::cms::election::LogEntry;
use spec::error::DecodeError;
use spec::limits::{ENROLMENT_MESSAGE_MAX, MESSAGE_MAX};
use spec::types::{CredentialId, Digest, MeshId, RequestId, Round};
use spec::wire::{Message, decode_message, encode_message};

const MESH: MeshId = MeshId([0xa1; 32]);
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/wire.json");

fn pull(after: u64) -> Vec<u8> {
    encode_message(&MESH, &Message::RecordsPull { after })
}

fn outcome(bytes: &[u8]) -> String {
    match decode_message(&MESH, bytes) {
        Ok(_) => "ok".to_owned(),
        Err(DecodeError::TooLong { .. }) => "TooLong".to_owned(),
        Err(DecodeError::Malformed) => "Malformed".to_owned(),
        Err(DecodeError::NotCanonical) => "NotCanonical".to_owned(),
        Err(DecodeError::Version(_)) => "Version".to_owned(),
        Err(DecodeError::OtherMesh) => "OtherMesh".to_owned(),
        Err(DecodeError::Bound(what)) => format!("Bound {what}"),
    }
}

/// The cases, built: what each is about, its bytes, and what must come of them.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = pull(7);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let long = |count: usize| {
        let entries = (0..count).map(|_| LogEntry { index: 1, term: 1, change: None, command: Vec::new() }).collect();
        encode_message(&MESH, &Message::RecordsPage { entries, newest: 1 })
    };
    let share =
        Message::PayloadRequest { request: RequestId([1; 16]), id: CredentialId([2; 32]), head: Digest([3; 32]) };
    let unknown_key = {
        // {0: 1, 1: mesh, 2: {7: {0: 7, 1: 0}}}: a field that this version does not know
        let mut bytes = good[..good.len() - 3].to_vec();
        bytes.extend_from_slice(&[0xa2, 0x00, 0x07, 0x01, 0x00]);
        bytes
    };
    let mut minimal = good.clone();
    let last = minimal.pop().unwrap_or_default();
    minimal.extend_from_slice(&[0x18, last]);
    let mut indefinite = good.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    vec![
        ("a pull of records", good.clone(), "ok"),
        ("a request for a payload", encode_message(&MESH, &share), "ok"),
        ("admitted, a message without content", encode_message(&MESH, &Message::EnrolAdmitted), "ok"),
        ("nothing at all", Vec::new(), "Malformed"),
        ("cut off in the middle", good[..good.len() / 2].to_vec(), "Malformed"),
        ("cut off by one byte", good[..good.len() - 1].to_vec(), "Malformed"),
        ("a byte left over", [good.clone(), vec![0]].concat(), "Malformed"),
        ("an integer longer than it need be", minimal, "NotCanonical"),
        ("a map of indefinite length", indefinite, "NotCanonical"),
        ("a field that nobody knows", unknown_key, "Malformed"),
        ("another version of the wire", with(2, 0x02), "Version"),
        ("another mesh", with(8, 0x00), "OtherMesh"),
        ("a variant that nobody knows", with(good.len() - 4, 0x1b), "Malformed"),
        ("a tag before the message", [vec![0xd9, 0xd9, 0xf7], good.clone()].concat(), "NotCanonical"),
        ("text where bytes belong", with(4, 0x78), "Malformed"),
        ("a page with one entry too many", long(257), "Bound entries"),
        ("a page with as many entries as may be", long(256), "ok"),
        ("an array nested a thousand deep", vec![0x81; 1000], "Malformed"),
        ("a byte string that says it has 4 GiB", vec![0x5a, 0xff, 0xff, 0xff, 0xff], "Malformed"),
        ("an array that says it has 2^64 - 1 items", [vec![0x9b], vec![0xff; 8]].concat(), "Malformed"),
    ]
}

#[test]
fn vectors_decode_as_they_say() {
    if std::env::var_os("VOUCHSAFE_WRITE_VECTORS").is_some() {
        let one = |(about, bytes, expect): &(&str, Vec<u8>, &str)| json!({ "about": about, "input": hex::encode(bytes), "expect": expect });
        let all: Vec<Value> = cases().iter().map(one).collect();
        std::fs::write(FILE, format!("{:#}\n", Value::from(all))).expect("the file of vectors is written");
    }
    let text = std::fs::read_to_string(FILE).expect("the file of vectors");
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("vectors are JSON");
    assert_eq!(vectors.len(), cases().len());
    for vector in vectors {
        let bytes = hex::decode(vector["input"].as_str().expect("input")).expect("hex");
        assert_eq!(Some(outcome(&bytes).as_str()), vector["expect"].as_str(), "{}", vector["about"]);
    }
}

#[test]
fn what_the_vectors_say_is_what_they_were_made_to_say() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter(|(_, bytes, expect)| outcome(bytes) != *expect)
        .map(|(about, bytes, expect)| format!("{about}: {} and not {expect} ({})", outcome(bytes), hex::encode(bytes)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_too_long_is_not_parsed() {
    assert_eq!(outcome(&vec![0; MESSAGE_MAX + 1]), "TooLong");
}

#[test]
fn an_enrolment_message_has_a_smaller_bound() {
    let refused = spec::error::Refused::new(spec::error::Check::Unknown, spec::error::Subject::Request);
    let small = encode_message(&MESH, &Message::EnrolRefused { request: RequestId([1; 16]), refused });
    assert_eq!(outcome(&small), "ok");
    let blob =
        spec::attest::tpm::CredentialBlob { id_object: vec![0; ENROLMENT_MESSAGE_MAX], encrypted_seed: Vec::new() };
    let large = encode_message(&MESH, &Message::EnrolChallenge { blobs: vec![blob] });
    assert_eq!(outcome(&large), "TooLong");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _any_answer = outcome(&bytes);
    }

    #[test]
    fn a_flipped_bit_is_refused_or_another_message(at in 0_usize..60, bit in 0_u8..8, round in any::<u64>()) {
        let good = pull(Round(round).0);
        let mut bytes = good.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = decode_message(&MESH, &bytes) {
            // What decodes encodes to itself: no two byte strings are the same message.
            prop_assert_ne!(decode_message(&MESH, &good).expect("good"), other);
        }
    }
}

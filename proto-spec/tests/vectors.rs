//! Vectors of what is signed and quoted, mostly negative. Each says what it is about, its input, and what must come of it:
//! `ok` or the error's name. `signed.json` is written anew by `VOUCHSAFE_WRITE_VECTORS=1` here, `quote.json` by the same
//! in the node's tests, from a real TPM stack.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "a test may read and write its own vectors")]

use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use spec::attest::quote::{Quote, QuoteVerified};
use spec::attest::tpm::AkPublic;
use spec::credential::head::{self, Allow, Dealer, Head, HeadVerified, SignedHead, Succession};
use spec::error::Check;
use spec::genesis::{self, Domain, Genesis, GenesisError, GenesisVerified, PROTOCOL_VERSION, SignedGenesis};
use spec::membership::Role;
use spec::suite::Real;
use spec::ticket::{self, Contact, Pins, SignedTicket, Ticket, TicketVerified};
use spec::types::{
    BlsPublic, Commitment, Digest, MeshId, RequestId, SshKey, Terms, TicketSerial, TransportKey, sha256,
};
use spec::wire;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{HashAlg, LineEnding, PrivateKey};

const NOW_MS: u64 = 1_800_000_000_000;

fn folder() -> String {
    format!("{}/vectors", env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{}/{name}", folder())).expect("the file of vectors");
    serde_json::from_str(&text).expect("vectors are JSON")
}

fn text<'a>(vector: &'a Value, name: &str) -> &'a str {
    vector[name].as_str().expect("a text")
}

fn bytes(vector: &Value, name: &str) -> Vec<u8> {
    hex::decode(text(vector, name)).expect("hex")
}

#[test]
fn quotes_are_taken_and_refused_as_their_vectors_say() {
    let vectors = read("quote.json");
    assert!(vectors.len() > 10);
    for vector in vectors {
        let pair = |pair: &Value| Some((u8::try_from(pair[0].as_u64()?).ok()?, Digest::from_hex(pair[1].as_str()?)?));
        let quote = Quote {
            attest: bytes(&vector, "attest"),
            signature: bytes(&vector, "signature"),
            pcrs: vector["pcrs"].as_array().into_iter().flatten().filter_map(pair).collect(),
        };
        let nonce = Digest::from_hex(text(&vector, "nonce")).expect("a digest");
        let outcome = match AkPublic::parse(&bytes(&vector, "ak")) {
            Err(_) => "ak-attributes",
            Ok(ak) => QuoteVerified::check(&Real, &quote, &ak, &nonce).map_or_else(Check::name, |_| "ok"),
        };
        assert_eq!(outcome, text(&vector, "expect"), "{}", vector["about"]);
    }
}

struct Signer(PrivateKey);

impl Signer {
    fn new(seed: u8) -> Self {
        let pair = Ed25519Keypair::from_seed(&[seed; 32]);
        Self(PrivateKey::new(KeypairData::Ed25519(pair), "").expect("a key"))
    }

    fn public(&self) -> SshKey {
        SshKey(self.0.key_data().ed25519().expect("ed25519").public.0)
    }

    fn sign(&self, namespace: &str, message: &[u8]) -> String {
        let signature = self.0.sign(namespace, HashAlg::Sha512, message).expect("a signature");
        signature.to_pem(LineEnding::LF).expect("an armour")
    }
}

fn good_genesis() -> Genesis {
    let domain = |name: &str, seed| Domain {
        name: name.to_owned(),
        operators: vec![Signer::new(seed).public()],
        recovery: Vec::new(),
    };
    Genesis {
        protocol_version: PROTOCOL_VERSION,
        name: "vectors".to_owned(),
        testnet: false,
        created_ms: NOW_MS - 1_000,
        epoch_ms: 10_000,
        tolerate: 1,
        committee: 5,
        domains: vec![domain("a", 1), domain("b", 2), domain("c", 3)],
        ek_roots: vec![ByteBuf::from(vec![0x30, 0x82])],
        ek_hashes: Vec::new(),
        pcrs: vec![0, 7],
    }
}

fn signed_genesis(genesis: &Genesis) -> SignedGenesis {
    let bytes = wire::encode(genesis);
    let sign = |seed| Signer::new(seed).sign(genesis::NAMESPACE, &bytes);
    SignedGenesis { signatures: genesis.operators().zip(1_u8..).map(|(_, seed)| sign(seed)).collect(), bytes }
}

fn mesh() -> MeshId {
    MeshId(sha256(&wire::encode(&good_genesis())).0)
}

fn genesis_cases(cases: &mut Vec<Value>) {
    let mut add = |about: &str, signed: &SignedGenesis, expect: &str| {
        cases.push(json!({
            "about": about, "kind": "genesis", "bytes": hex::encode(&signed.bytes),
            "signatures": signed.signatures, "expect": expect,
        }));
    };
    add("a genesis of three domains", &signed_genesis(&good_genesis()), "ok");
    let mut changed = |about: &str, expect: &str, change: fn(&mut Genesis)| {
        let mut genesis = good_genesis();
        change(&mut genesis);
        add(about, &signed_genesis(&genesis), expect);
    };
    changed("an epoch too short for a real mesh", "epoch_ms", |g| g.epoch_ms = 4_999);
    changed("more hostile domains tolerated than there may be", "tolerate", |g| g.tolerate = 3);
    changed("two domains cannot tolerate one", "tolerate", |g| drop(g.domains.pop()));
    changed("a committee that could split in two halves", "committee", |g| g.committee = 4);
    changed("a committee of one", "committee", |g| g.committee = 1);
    changed("a committee beyond the largest", "committee", |g| g.committee = 23);
    changed("a name with a line feed", "name", |g| g.name = "a\nb".to_owned());
    changed("two domains of one name", "domains", |g| g.domains[1].name = "a".to_owned());
    changed("a domain without an operator", "operators", |g| g.domains[2].operators.clear());
    changed("nothing that vouches for a TPM", "ek_roots", |g| g.ek_roots.clear());
    changed("PCRs out of order", "pcrs", |g| g.pcrs = vec![7, 0]);
    changed("a PCR that no TPM has", "pcrs", |g| g.pcrs = vec![0, 24]);
    changed("a version that nobody speaks", "version", |g| g.protocol_version = 99);
    let good = signed_genesis(&good_genesis());
    let missing = SignedGenesis { signatures: good.signatures[..2].to_vec(), ..good.clone() };
    add("one operator has not signed", &missing, "signatures");
    let mut swapped = good.clone();
    swapped.signatures.swap(0, 1);
    add("two operators' signatures swapped", &swapped, "signatures");
    let mut changed = good;
    changed.bytes.push(0);
    add("a byte left over", &changed, "form");
}

fn good_ticket() -> Ticket {
    let pins = Pins { mesh: mesh(), key: Some(BlsPublic([5; 96])) };
    let contact = Contact { transport: TransportKey([4; 32]), address: wire::Address("host1:7777".to_owned()) };
    let (word, serial) = (str::to_owned, TicketSerial([7; 16]));
    let (name, domain, region, zone) = (word("web1"), word("b"), word("eu"), word("z"));
    Ticket::new(pins, vec![contact], name, Role::Reader, domain, region, zone, serial, NOW_MS, None)
}

fn ticket_cases(cases: &mut Vec<Value>) {
    let mut add = |about: &str, ticket: &Ticket, seed: u8, namespace: &str, at: u64, expect: &str| {
        let bytes = wire::encode(ticket);
        let signature = Signer::new(seed).sign(namespace, &bytes);
        cases.push(json!({
            "about": about, "kind": "ticket", "bytes": hex::encode(&bytes), "signatures": [signature], "at_ms": at,
            "expect": expect,
        }));
    };
    let good = good_ticket();
    add("a ticket of domain b by its operator", &good, 2, ticket::NAMESPACE, NOW_MS, "ok");
    add("a millisecond too late", &good, 2, ticket::NAMESPACE, NOW_MS + 1, "ticket-expired");
    add("by another domain's operator", &good, 1, ticket::NAMESPACE, NOW_MS, "ticket-signature");
    add("by nobody's key", &good, 9, ticket::NAMESPACE, NOW_MS, "ticket-signature");
    add("signed as a head", &good, 2, head::NAMESPACE, NOW_MS, "ticket-signature");
    let other_mesh = Ticket { pins: Pins { mesh: MeshId([1; 32]), ..good.pins.clone() }, ..good.clone() };
    add("of another mesh", &other_mesh, 2, ticket::NAMESPACE, NOW_MS, "ticket-mesh");
    let spaced = Ticket { name: "web 1".to_owned(), ..good.clone() };
    add("for a name with a space", &spaced, 2, ticket::NAMESPACE, NOW_MS, "ticket-signature");
    let nobody = Ticket { contacts: Vec::new(), ..good.clone() };
    add("that names nobody to ask", &nobody, 2, ticket::NAMESPACE, NOW_MS, "ticket-signature");
    let unknown = Ticket { domain: "d".to_owned(), ..good };
    add("for a domain that is not there", &unknown, 2, ticket::NAMESPACE, NOW_MS, "ticket-signature");
}

fn good_head() -> Head {
    Head {
        mesh: mesh(),
        client: Signer::new(8).public(),
        name: "web/tls-key".to_owned(),
        number: 1,
        version: 1,
        request: RequestId([1; 16]),
        terms: Terms::new(3, 5, 1).expect("sound"),
        c0: Commitment([2; 48]),
        deal: Digest([4; 32]),
        payload: Digest([3; 32]),
        pieces: 1,
        allow: vec![Allow::Instance("web1".to_owned()), Allow::Role(Role::Host)],
        recipients: Vec::new(),
        dealer: Dealer::Client,
        removed: false,
        previous: None,
        successors: Vec::new(),
    }
}

fn head_cases(cases: &mut Vec<Value>) {
    let mut add = |about: &str, bytes: &[u8], seed: u8, namespace: &str, expect: &str| {
        let signature = Signer::new(seed).sign(namespace, bytes);
        cases.push(json!({
            "about": about, "kind": "head", "bytes": hex::encode(bytes), "signatures": [signature], "expect": expect,
        }));
    };
    let good = wire::encode(&good_head());
    add("a first head", &good, 8, head::NAMESPACE, "ok");
    add("by another key than the owner's", &good, 9, head::NAMESPACE, "head-signature");
    add("signed as a ticket", &good, 8, ticket::NAMESPACE, "head-signature");
    add("a byte left over", &[good.clone(), vec![0]].concat(), 8, head::NAMESPACE, "head-form");
    let mut changed = |about: &str, change: fn(&mut Head)| {
        let mut head = good_head();
        change(&mut head);
        add(about, &wire::encode(&head), 8, head::NAMESPACE, "head-form");
    };
    changed("of another mesh", |h| h.mesh = MeshId([1; 32]));
    changed("one share would be the secret", |h| h.terms.k = 1);
    changed("more shares than may be", |h| h.terms.n = 33);
    changed("fewer shares than reconstruct", |h| h.terms.n = 2);
    changed("no payload", |h| h.pieces = 0);
    changed("a payload of more pieces than may be", |h| h.pieces = 33);
    changed("number zero", |h| h.number = 0);
    changed("a version beyond its number", |h| h.version = 2);
    changed("a second head that names none before it", |h| (h.number, h.version) = (2, 2));
    changed("a first head that names one before it", |h| h.previous = Some(Digest([1; 32])));
    changed("an empty name", |h| h.name.clear());
    changed("a name that writes from right to left", |h| h.name = "a\u{202e}b".to_owned());
    changed("seventeen rules", |h| h.allow = vec![Allow::Role(Role::Host); 17]);
    changed("a rule for a name that is none", |h| h.allow = vec![Allow::Instance("a b".to_owned())]);
    changed("a first head that removes", |h| h.removed = true);
    succession_cases(cases);
}

/// A head whose owner handed it over, from key to key; each succession is signed by the key of this seed.
fn handed_over(keys: &[(u8, u8)], place_of: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut head = Head { number: 2, previous: Some(Digest([1; 32])), ..good_head() };
    for (place, (signs, takes_over)) in keys.iter().enumerate() {
        let key = Signer::new(*takes_over).public();
        let bytes = Succession::signed_bytes(&mesh(), &head.id(), place_of(place), &key);
        let signature = Signer::new(*signs).sign(head::SUCCESSION_NAMESPACE, &bytes);
        head.successors.push(Succession { key, signature });
    }
    wire::encode(&head)
}

fn succession_cases(cases: &mut Vec<Value>) {
    let mut add = |about: &str, bytes: &[u8], seed: u8, expect: &str| {
        let signature = Signer::new(seed).sign(head::NAMESPACE, bytes);
        cases.push(json!({
            "about": about, "kind": "head", "bytes": hex::encode(bytes), "signatures": [signature], "expect": expect,
        }));
    };
    let once = handed_over(&[(8, 9)], |place| place);
    add("handed over, by the successor", &once, 9, "ok");
    add("handed over, and still by the owner", &once, 8, "head-signature");
    add("handed over twice", &handed_over(&[(8, 9), (9, 10)], |place| place), 10, "ok");
    add(
        "handed over twice, by the first successor",
        &handed_over(&[(8, 9), (9, 10)], |place| place),
        9,
        "head-signature",
    );
    add("a successor that named itself", &handed_over(&[(9, 9)], |place| place), 9, "head-signature");
    add("a second succession by the owner", &handed_over(&[(8, 9), (8, 10)], |place| place), 10, "head-signature");
    add("a succession at another place", &handed_over(&[(8, 9)], |_| 1), 9, "head-signature");
    let five = handed_over(&[(8, 9), (9, 10), (10, 11), (11, 12), (12, 13)], |place| place);
    add("five successions", &five, 13, "head-form");
}

fn outcome(vector: &Value) -> String {
    let signatures: Vec<String> =
        vector["signatures"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let bytes = bytes(vector, "bytes");
    match text(vector, "kind") {
        "genesis" => match GenesisVerified::check(&Real, &SignedGenesis { bytes, signatures }) {
            Ok(_) => "ok".to_owned(),
            Err(GenesisError::Form) => "form".to_owned(),
            Err(GenesisError::Field(field)) => field.to_owned(),
            Err(GenesisError::Signatures) => "signatures".to_owned(),
            Err(GenesisError::Version) => "version".to_owned(),
        },
        "ticket" => {
            let genesis = GenesisVerified::check(&Real, &signed_genesis(&good_genesis())).expect("a genesis");
            let signed = SignedTicket { bytes, signature: signatures[0].clone() };
            let at = vector["at_ms"].as_u64().expect("a time");
            let checked = TicketVerified::check(&Real, &genesis, &signed, at);
            checked.map_or_else(|check| check.name().to_owned(), |_| "ok".to_owned())
        }
        "head" => {
            let signed = SignedHead { bytes, signature: signatures[0].clone() };
            let checked = HeadVerified::check(&Real, &mesh(), &signed);
            checked.map_or_else(|check| check.name().to_owned(), |_| "ok".to_owned())
        }
        other => format!("no such kind: {other}"),
    }
}

#[test]
fn what_is_signed_is_taken_and_refused_as_its_vectors_say() {
    if std::env::var_os("VOUCHSAFE_WRITE_VECTORS").is_some() {
        let mut cases = Vec::new();
        genesis_cases(&mut cases);
        ticket_cases(&mut cases);
        head_cases(&mut cases);
        let path = format!("{}/signed.json", folder());
        std::fs::write(path, format!("{:#}\n", Value::from(cases))).expect("the file of vectors is written");
    }
    let vectors = read("signed.json");
    assert!(vectors.len() > 35);
    let wrong: Vec<String> = vectors
        .iter()
        .filter(|vector| outcome(vector) != text(vector, "expect"))
        .map(|vector| format!("{}: {} and not {}", vector["about"], outcome(vector), vector["expect"]))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

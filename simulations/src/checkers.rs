//! Outside of every host: what must never happen, whatever the faults. A finding names itself; the seed replays it.

use std::collections::{BTreeMap, BTreeSet};

use spec::error::{Check, Failure};
use spec::holder::StoredShare;
use spec::host::Table;
use spec::types::CredentialId;
use spec::wire::{self, Message, Presence, Standing};

/// One put, as its client knows it.
#[derive(Debug, Clone)]
pub struct Deposit {
    /// The credential.
    pub id: CredentialId,
    /// Its content.
    pub payload: Vec<u8>,
    /// The answer to the client, if one came: which machines may be lost at once.
    pub acknowledged: bool,
    /// What the client was told instead.
    pub failure: Option<Failure>,
}

/// A ballot that waits for the disk goes out so long after it was made, at most.
const LATE_MS: u64 = 1_000;

/// Shares of one credential's head: where they were seen.
type Indexes = BTreeMap<usize, BTreeSet<u8>>;

/// Index of a share, and the shard in which it rests.
type Shard = (u8, Vec<u8>);

/// The checkers.
#[derive(Debug, Default)]
pub struct Checkers {
    findings: Vec<String>,
    payloads: Vec<Vec<u8>>,
    /// Readers that no policy allows.
    pub strangers: BTreeSet<usize>,
    /// The highest seat under which each host voted, and the highest that it gave up.
    voted_as: BTreeMap<usize, u64>,
    given_up: BTreeMap<usize, (u64, u64)>,
    /// Virtual time.
    pub now_ms: u64,
    shares_seen_by_strangers: BTreeMap<CredentialId, Indexes>,
    held: BTreeMap<(usize, u64, Vec<u8>), Shard>,
    bytes_scanned: u64,
    /// Who led in which term.
    leaders: BTreeMap<u64, usize>,
}

impl Checkers {
    /// Something is not as it must be.
    pub fn broken(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// What was found.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Bytes that were searched for credentials in clear.
    pub fn bytes_scanned(&self) -> u64 {
        self.bytes_scanned
    }

    /// P4: at most one host leads in a term.
    pub fn leads(&mut self, machine: usize, term: u64) {
        let first = *self.leaders.entry(term).or_insert(machine);
        if first != machine {
            self.broken(format!("P4: hosts {first} and {machine} both led in term {term}"));
        }
    }

    /// A credential exists from now on: its content must never be seen in clear.
    pub fn watch(&mut self, payload: &[u8]) {
        self.payloads.push(payload.to_vec());
    }

    /// P1, P7: nothing in clear on the wire; a reader whom no policy allows is sent no share at all.
    pub fn on_wire(&mut self, from: usize, to: usize, message: &Message, bytes: &[u8]) {
        self.scan(bytes, || format!("message {} from host {from} to host {to}", message.name()));
        if let Message::ShareReply { head, index, .. } = message
            && self.strangers.contains(&to)
        {
            let id = CredentialId(spec::types::sha256(&head.bytes).0);
            self.shares_seen_by_strangers.entry(id).or_default().entry(to).or_default().insert(index.0);
            self.broken(format!("P1: host {from} released share {} to host {to}, whom nobody allows", index.0));
        }
        self.watch_seats(from, message);
        // What an honest host shows holds: nobody may find fault with its quote.
        if let Message::Announce { presence: Some(presence), .. } = message {
            let is_faulty =
                |one: &&Presence| matches!(one.standing, Standing::Refused(Check::Quote | Check::EvidenceSignature));
            if let Some(found) = presence.iter().find(is_faulty) {
                self.broken(format!("host {from} refuses the evidence of {:?}: {:?}", found.host, found.standing));
            }
        }
    }

    /// P4: whoever gave up a seat, and so pulls records like any member, votes under its id no more: it may have forgotten
    /// what it promised.
    fn watch_seats(&mut self, from: usize, message: &Message) {
        match message {
            Message::Ballot(ballot) => {
                let highest = self.voted_as.entry(from).or_default();
                *highest = (*highest).max(ballot.from);
                let gave_up = |(seat, at): &(u64, u64)| ballot.from <= *seat && self.now_ms > at + LATE_MS;
                if self.given_up.get(&from).is_some_and(gave_up) {
                    self.broken(format!("P4: host {from} votes as seat {} again, which it gave up", ballot.from));
                }
            }
            Message::RecordsPull { .. } => {
                let highest = self.voted_as.get(&from).copied().unwrap_or(0);
                let given_up = self.given_up.entry(from).or_insert((0, self.now_ms));
                if highest > given_up.0 {
                    *given_up = (highest, self.now_ms);
                }
            }
            _ => {}
        }
    }

    /// P1, P7: nothing in clear on a disk, and no two shares of one head on the same disk.
    pub fn on_disk(&mut self, machine: usize, table: Table, key: &[u8], value: &[u8]) {
        self.scan(value, || format!("a row of {table:?} on host {machine}"));
        if table != Table::Shares {
            return;
        }
        let Ok(StoredShare { index, unlock, shard, .. }) = wire::decode(value, value.len()) else {
            return self.broken(format!("host {machine} wrote a share that does not read back"));
        };
        // When it was taken may differ: a crash may have kept the first write from the disk.
        let before = self.held.insert((machine, unlock, key.to_vec()), (index.0, shard.clone()));
        if before.is_some_and(|before| before != (index.0, shard)) {
            self.broken(format!("P1: host {machine} holds two different shares of one head"));
        }
    }

    fn scan(&mut self, bytes: &[u8], place: impl Fn() -> String) {
        self.bytes_scanned += u64::try_from(bytes.len()).unwrap_or(0);
        // The payloads of a run are random and begin with 16 bytes that stand nowhere else.
        let found = self.payloads.iter().any(|payload| {
            payload.get(..16).is_some_and(|start| bytes.windows(start.len()).any(|window| window == start))
        });
        if found {
            self.broken(format!("P7: a credential in clear in {}", place()));
        }
    }

    /// P3: an acknowledged put reads back.
    pub fn read_back(&mut self, deposit: &Deposit, read: Result<&[u8], String>) {
        match read {
            Ok(bytes) if bytes == deposit.payload => {}
            Ok(_) => self.broken(format!("P3: credential {} reads back as something else", deposit.id)),
            Err(why) if deposit.acknowledged => {
                self.broken(format!("P3: acknowledged credential {} does not read back: {why}", deposit.id));
            }
            Err(_) => {}
        }
    }
}

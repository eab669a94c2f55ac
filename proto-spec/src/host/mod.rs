//! The one door: `Host::handle`. Here the parts of a host meet; each decides by itself, `Host` routes what comes in
//! and puts in order what goes out.

mod action;
mod changing;
mod committee;
mod coordinating;
mod deadlines;
mod doubting;
mod ending;
mod epochs;
mod event;
mod fetching;
mod following;
mod forming;
mod gathering;
mod holding;
mod joining;
mod lanes;
mod leaving;
mod local;
mod own;
mod putting;
mod reading;
mod receive;
mod recording;
mod redealing;
mod restore;
mod rewrapping;
mod saving;
mod seating;
mod seats;
mod spreading;
mod unlocking;
mod versions;
mod witnessing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use action::{
    Action, HostLine, IdentityReply, KeyLine, Lane, LocalReply, Report, StatusReply, Table, TpmRequest, Write,
};
pub(crate) use coordinating::entrust_info;
pub use event::{ActionId, Event, LocalCommand, LocalId, TpmReply};
pub use lanes::Lanes;
pub use restore::RestoreError;

use crate::attest::enroll::EkOffer;
use crate::attester;
use crate::beacon::{Calendar, Epochs, SignedBeacon};
use crate::changing::Changing;
use crate::cms;
use crate::cms::log::Stretch;
use crate::cms::records::Records;
use crate::cms::seating::{SeatProof, Seating};
use crate::error::{Check, Failure, LocalFault, Misbehaved, Refused, Subject};
use crate::genesis::GenesisVerified;
use crate::header::{Header, HeaderVerified};
use crate::holder;
use crate::instance::Reading;
use crate::joining::Joining;
use crate::limits::{ENROLMENT_MESSAGE_MAX, MESSAGE_MAX, REFUSALS_KEPT};
use crate::membership::Member;
use crate::relay::{PassedOver, Putting};
use crate::signing;
use crate::suite::{Generator, Seed, Suite};
use crate::ticket::{Contact, Pins};
use crate::types::{
    Digest, HostId, MeshId, Now, RequestId, Round, SecretBytes, ShareIndex, TicketSerial, Time, TransportKey,
};
use crate::view::View;
use crate::whereabouts::{AddressBook, Whereabouts};
use crate::wire::{Address, Message, Standing};

use committee::Seated;
use fetching::Fetching;
use gathering::Forming;
use own::Own;
use putting::Asked;
use redealing::Redealing;
use rewrapping::Rewrapping;
use saving::{Kept, Saving};
use seats::Watch;
use unlocking::Unlocking;

/// What comes out of `handle`.
pub type Actions = Vec<Action>;

/// What a host is told about itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where other hosts reach this one.
    pub address: Address,
    /// Newest version of the replicated state that this binary reads; it reads the one before it too.
    pub newest: u16,
}

/// The keys of a host. Made once by its driver, kept in its store and its TPM.
pub struct Identity {
    /// Seed of the transport key.
    pub transport: SecretBytes,
    /// The vote key.
    pub vote: SecretBytes,
    /// The secret that is bound to this TPM: from it and the unlock follow the period key and the share-receiving key.
    pub tpm_bound: SecretBytes,
    /// Endorsement keys of the chip with their certificates.
    pub eks: Vec<EkOffer>,
    /// Certificates between those and a root.
    pub intermediates: Vec<Vec<u8>>,
    /// TPMT_PUBLIC of the attestation key.
    pub ak: Vec<u8>,
    /// age recipient for shard maps.
    pub map_recipient: String,
}

/// What was saved before: all rows of the tables but the payloads.
#[derive(Debug, Default, Clone)]
pub struct Saved {
    /// The row of [`Table::Membership`].
    pub membership: Option<Vec<u8>>,
    /// The rows of [`Table::Records`] in the order of their indexes.
    pub records: Vec<Vec<u8>>,
    /// The rows of [`Table::State`], with their keys, in their order.
    pub state: Vec<(Vec<u8>, Vec<u8>)>,
    /// The row of [`Table::Raft`].
    pub raft: Option<Vec<u8>>,
    /// The row of [`Table::Forming`].
    pub forming: Option<Vec<u8>>,
    /// The rows of [`Table::Keys`], with their keys.
    pub keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// The rows of [`Table::Tickets`], with their keys.
    pub tickets: Vec<(Vec<u8>, Vec<u8>)>,
    /// The rows of [`Table::Epoch`], with their keys.
    pub epoch: Vec<(Vec<u8>, Vec<u8>)>,
    /// The rows of [`Table::Shares`].
    pub shares: Vec<Vec<u8>>,
}

/// What a member keeps of the mesh that it joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    pins: Pins,
    /// Hosts to ask before the records are here, as this host was told when it joined.
    contacts: Vec<Contact>,
    /// Where the committee and some others are: for a start after which nobody else knows either.
    book: Vec<Whereabouts>,
    /// The highest number of an unlock under which this host said that all its shards lie.
    told: u64,
    /// Whether two headers of one round hold: somebody with a seat lied to a part of the committee. Nothing is erased any
    /// more.
    split: bool,
    /// How it shows its seat to a voter that does not know it: also when all start at once, and no header comes before
    /// they have elected somebody.
    seat: Option<Box<SeatProof>>,
}

impl Membership {
    /// Of somebody who was just let in.
    fn new(pins: Pins, contacts: Vec<Contact>) -> Self {
        Self { pins, contacts, book: Vec::new(), told: 0, split: false, seat: None }
    }
}

/// What every part may look at.
struct Ground {
    suite: Arc<dyn Suite>,
    records: Records,
    epochs: Epochs,
    calendar: Option<Calendar>,
}

impl Ground {
    /// With the newest header, where it is current: by the wall clock, and by the monotonic clock since it was verified.
    fn view<'a>(&'a self, now: Now, header: Option<&'a (HeaderVerified, Time)>) -> Option<View<'a>> {
        let calendar = self.calendar.as_ref()?;
        let holds = |(header, since): &&(HeaderVerified, Time)| {
            let round = header.header().round;
            calendar.is_current(round, now.wall_ms)
                && !calendar.is_ahead(round, now.wall_ms)
                && now.monotonic < since.plus(2 * calendar.epoch_ms())
        };
        Some(View {
            header: header.filter(holds).map(|(header, _)| header),
            suite: self.suite.as_ref(),
            now,
            mesh: self.records.mesh()?,
            calendar: self.calendar.as_ref()?,
            records: &self.records,
            epochs: &self.epochs,
        })
    }
}

/// This host's share of the mesh key.
struct Share {
    key_epoch: u64,
    index: ShareIndex,
    secret: SecretBytes,
}

/// What the answer of a TPM is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TpmUse {
    /// The epoch's quote.
    Evidence,
    /// What this host measured, for its record.
    Measure,
    /// The challenge of a committee member or founder.
    Challenge(TransportKey),
}

/// Somebody waits for an action's answer.
struct Waiting {
    to: TransportKey,
    request: RequestId,
}

/// A host.
pub struct Host {
    config: Config,
    own: Own,
    ground: Ground,
    generator: Generator,
    membership: Option<Membership>,
    forming: Option<Box<Forming>>,
    joining: Option<Joining>,
    /// Who waits at the socket for this host to be in.
    join_reply: Option<LocalId>,
    /// When the TPM is asked again for what it measured.
    measure_at: Option<Time>,
    attester: attester::State,
    holder: holder::State,
    coordinator: cms::service::State,
    seated: Option<Box<Seated>>,
    /// Entries of a host without a seat; a voter's are in its election.
    log: Stretch,
    /// Index of the first entry on disk.
    first_row: u64,
    /// Index of the last entry on disk.
    last_row: u64,
    /// The snapshot that is on disk.
    kept: Option<Kept>,
    /// The slot that was said last to be whole.
    slot: u8,
    /// The write that says so, until it is on disk.
    marking: Option<ActionId>,
    /// The snapshot that is on its way there.
    saving: Option<Saving>,
    /// The state that is being pulled.
    fetching: Option<Fetching>,
    share: Option<Share>,
    /// The dealing for which `share` was looked for.
    loaded: u64,
    /// Shares of the mesh key as they rest.
    resting: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What this member signed for which ticket.
    tickets: BTreeMap<TicketSerial, Digest>,
    parts: signing::State,
    /// The last beacons, the newest last.
    beacons: VecDeque<SignedBeacon>,
    /// The round whose beacon this holder signed, and when it does so again if there is none by then.
    signed: Option<(Round, Time)>,
    /// The newest header, and when it was verified here.
    header: Option<(HeaderVerified, Time)>,
    /// The seats, as a header says and these records do.
    seating: Option<Seating>,
    unlocking: Unlocking,
    rewrapping: Rewrapping,
    /// The dealing of the mesh key that is under way.
    redealing: Option<Redealing>,
    /// As the leader: who is absent.
    watch: Watch,
    /// Who leads, in which term.
    leader: Option<(u64, TransportKey)>,
    /// How every member stands, as the leader last said.
    standings: BTreeMap<HostId, Standing>,
    /// Where hosts are, as they say themselves.
    book: AddressBook,
    pull_at: Time,
    /// When records are asked for again that somebody spoke of and that have not come.
    missing_at: Time,
    /// The index behind which records were asked for last, until when their page may be on its way, and of whom.
    pulled: Option<(u64, Time, TransportKey)>,
    /// Index of the newest record of which somebody spoke.
    promised: u64,
    /// Whom this host asked for records last, and how often nobody had any since somebody had.
    asked_last: Option<TransportKey>,
    vain: usize,
    /// Whose turn it is to be asked for records.
    turn: usize,
    /// Who served what no header has confirmed yet.
    served_by: BTreeSet<TransportKey>,
    /// Who served such as the mesh key denied: they are asked no more, unless there is nobody else.
    distrusted: BTreeSet<TransportKey>,
    /// The round of the newest header that confirmed this follower's records, and the record that it closes.
    confirmed: Option<(Round, u64)>,
    /// The last header that confirmed records of this host, be it others than it has now.
    vouched: Option<Header>,
    /// The same, with its committee: what it makes superfluous is erased at the next one.
    erasable: Option<(u64, Round, Digest)>,
    asked: BTreeMap<RequestId, Asked>,
    puts: BTreeMap<RequestId, (Putting, LocalId)>,
    /// Holders that failed one of them.
    passed_over: PassedOver,
    changes: BTreeMap<RequestId, (Changing, LocalId)>,
    readings: BTreeMap<RequestId, (Reading, LocalId)>,
    /// As a voter: who asked whether a head is recorded that was not, the latest last.
    unanswered: VecDeque<(TransportKey, RequestId, Digest)>,
    tpm: BTreeMap<ActionId, TpmUse>,
    blobs: BTreeMap<ActionId, Waiting>,
    sealing: BTreeMap<ActionId, Waiting>,
    opening: BTreeMap<ActionId, RequestId>,
    next_id: u64,
    refusals: VecDeque<Refused>,
    disk_failed: bool,
    /// The highest Raft id that this host ever had.
    taken: u64,
    /// Set once it was told to end.
    ending: Option<ending::Ending>,
    /// The version that the mesh went on to and this binary does not know.
    outgrown: Option<u16>,
    /// Whether the driver is to be told with whom news is exchanged.
    circle_changed: bool,
}

impl Host {
    /// A host that belongs to no mesh yet.
    ///
    /// # Errors
    /// [`RestoreError::Identity`] where its keys do not parse.
    pub fn new(config: Config, identity: Identity, suite: Arc<dyn Suite>, seed: &Seed) -> Result<Self, RestoreError> {
        Self::restore(config, identity, suite, seed, Saved::default())
    }

    fn empty(config: Config, own: Own, ground: Ground, seed: &Seed) -> Self {
        Self {
            config,
            own,
            ground,
            generator: Generator::new(seed),
            membership: None,
            forming: None,
            joining: None,
            join_reply: None,
            measure_at: None,
            attester: attester::State::default(),
            holder: holder::State::default(),
            coordinator: cms::service::State::default(),
            seated: None,
            log: Stretch::default(),
            first_row: 1,
            last_row: 0,
            kept: None,
            slot: 1,
            marking: None,
            saving: None,
            fetching: None,
            share: None,
            loaded: 0,
            resting: BTreeMap::new(),
            tickets: BTreeMap::new(),
            parts: signing::State::default(),
            beacons: VecDeque::new(),
            signed: None,
            header: None,
            seating: None,
            unlocking: Unlocking::default(),
            rewrapping: Rewrapping::default(),
            redealing: None,
            watch: Watch::default(),
            leader: None,
            standings: BTreeMap::new(),
            book: AddressBook::default(),
            pull_at: Time(0),
            missing_at: Time(0),
            pulled: None,
            promised: 0,
            asked_last: None,
            vain: 0,
            turn: 0,
            served_by: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            confirmed: None,
            vouched: None,
            erasable: None,
            asked: BTreeMap::new(),
            puts: BTreeMap::new(),
            passed_over: PassedOver::default(),
            changes: BTreeMap::new(),
            readings: BTreeMap::new(),
            unanswered: VecDeque::new(),
            tpm: BTreeMap::new(),
            blobs: BTreeMap::new(),
            sealing: BTreeMap::new(),
            opening: BTreeMap::new(),
            next_id: 0,
            refusals: VecDeque::new(),
            disk_failed: false,
            taken: 0,
            ending: None,
            outgrown: None,
            circle_changed: true,
        }
    }

    /// Takes one event in; what is to be done comes out in order. Never fails: a fault becomes a report or a refusal.
    pub fn handle(&mut self, now: Now, event: Event, actions: &mut Actions) {
        match event {
            Event::Tick => {}
            Event::Message { from, message } => self.on_message(now, from, *message, actions),
            Event::Gossip { id, message } => self.on_gossip(now, id, message.map(|message| *message), actions),
            Event::Garbage { from, error } => {
                actions.push(Action::Disconnect { peer: from, why: Misbehaved::Undecodable(error) });
            }
            Event::Undeliverable { to } => self.on_undeliverable(now, &to, actions),
            Event::Tpm { id, reply } => self.on_tpm(now, id, reply, actions),
            Event::Blobs { id, blobs } => self.on_blobs(id, blobs, actions),
            Event::MapSealed { id, file } => self.on_map_sealed(id, file, actions),
            Event::MapOpened { id, plaintext } => self.on_map_opened(now, id, plaintext, actions),
            Event::Persisted { id } => self.on_persisted(now, id, actions),
            Event::PersistFailed { .. } => {
                self.disk_failed = true;
                actions.push(Action::Report(Report::Fault(LocalFault::Disk)));
            }
            Event::Room { free } => self.on_room(free, actions),
            Event::Command { id, command } => self.on_command(now, id, *command, actions),
        }
        self.on_time(now, actions);
    }

    /// Everything whose time has come.
    fn on_time(&mut self, now: Now, actions: &mut Actions) {
        self.tick_election(now, actions);
        self.tick_beacon(now, actions);
        self.tick_redealing(now, actions);
        self.tick_seats(now, actions);
        self.tick_quote(now, actions);
        self.tick_unlock(now, actions);
        self.tick_rewrapping(now, actions);
        self.tick_pull(now, actions);
        self.tick_doubt(now, actions);
        self.tick_fetching(now, actions);
        self.tick_saving(now, actions);
        self.tick_forming(now, actions);
        self.tick_joining(now, actions);
        self.tick_asked(now, actions);
        self.tick_puts(now, actions);
        self.tick_changes(now, actions);
        self.tick_witnesses(now, actions);
        self.tick_readings(now, actions);
        self.tick_circle(actions);
        self.tick_ending(now, actions);
    }

    /// The mesh whose messages this host takes: that which it belongs to or is joining.
    pub fn mesh(&self) -> MeshId {
        let of_member = self.membership.as_ref().map(|membership| membership.pins.mesh);
        let of_forming = self.forming.as_ref().map(|forming| *forming.genesis.mesh());
        let of_joiner = self.joining.as_ref().map(|joining| joining.ticket.pins.mesh);
        of_member.or(of_joiner).or(of_forming).unwrap_or(MeshId::ZERO)
    }

    /// The largest message that this host takes from a peer: from somebody who is no member, an enrolment.
    pub fn message_max(&self, from: &TransportKey) -> usize {
        if self.may_serve_records(from) { MESSAGE_MAX } else { ENROLMENT_MESSAGE_MAX }
    }

    /// The records that this host has applied.
    pub fn records(&self) -> &Records {
        &self.ground.records
    }

    /// This host's identity.
    pub fn host(&self) -> &HostId {
        &self.own.host
    }

    /// This host's transport key.
    pub fn transport(&self) -> &TransportKey {
        &self.own.transport
    }

    /// This host's member record: with the keys that it has now, not with those that it had before it lost its state.
    fn own_member(&self) -> Option<&Member> {
        self.ground.records.member_by_transport(&self.own.transport)
    }

    fn view(&self, now: Now) -> Option<View<'_>> {
        self.ground.view(now, self.header.as_ref())
    }

    /// Whether two headers of one round hold.
    fn is_split(&self) -> bool {
        self.membership.as_ref().is_some_and(|membership| membership.split)
    }

    /// What the mesh is, once it is known, founded or not.
    fn genesis(&self) -> Option<&GenesisVerified> {
        self.ground.records.genesis().or_else(|| self.forming.as_ref().map(|forming| &forming.genesis))
    }

    /// Transport keys of the committee.
    fn committee(&self) -> Vec<TransportKey> {
        let records = &self.ground.records;
        let seats = records.committee().map(|committee| committee.seats.as_slice()).unwrap_or_default();
        seats.iter().filter_map(|seat| records.member(&seat.host)).map(|member| member.record().transport).collect()
    }

    /// Whether this key is that of a committee member.
    fn is_seated(&self, from: &TransportKey) -> bool {
        self.seat_id_of(from).is_some()
    }

    fn fresh_id(&mut self) -> ActionId {
        self.next_id += 1;
        ActionId(self.next_id)
    }

    /// Sends to a member where it says that it is.
    fn send(&self, lane: Lane, to: TransportKey, message: Message, actions: &mut Actions) {
        let address = self.address_of(&to);
        actions.push(Action::Send { lane, to, address, message: Box::new(message) });
    }

    fn address_of(&self, key: &TransportKey) -> Address {
        let contacts = self.membership.as_ref().map(|membership| membership.contacts.as_slice()).unwrap_or_default();
        let of_contact = || contacts.iter().find(|contact| contact.transport == *key).map(|contact| &contact.address);
        self.book.word_of(key).map(|word| &word.address).or_else(of_contact).cloned().unwrap_or_default()
    }

    /// Sends to who leads; where nobody does, whoever waits asks again.
    fn send_to_leader(&self, message: Message, actions: &mut Actions) {
        if let Some((_, leader)) = self.leader {
            self.send(Lane::Direct, leader, message, actions);
        }
    }

    /// Gives a refusal its epoch and id and remembers it.
    fn refusal(&mut self, mut refused: Refused, actions: &mut Actions) -> Refused {
        refused.round = self.ground.epochs.newest().unwrap_or(Round(0));
        refused.refusal_id = u64::from_be_bytes(self.generator.bytes());
        self.refusals.push_back(refused.clone());
        if self.refusals.len() > REFUSALS_KEPT {
            self.refusals.pop_front();
        }
        actions.push(Action::Report(Report::Refused(refused.clone())));
        refused
    }

    fn refuse(
        &mut self,
        lane: Lane,
        to: TransportKey,
        request: RequestId,
        check: Check,
        subject: Subject,
        actions: &mut Actions,
    ) {
        let refused = self.refusal(Refused::new(check, subject), actions);
        self.send(lane, to, Message::Refusal { request, refused }, actions);
    }

    fn reply(id: LocalId, reply: Result<LocalReply, Failure>, actions: &mut Actions) {
        actions.push(Action::Reply { lane: Lane::Direct, id, reply });
    }
}

/// A share as it rests, in its row.
fn share_write(key: &holder::ShareKey, stored: &holder::StoredShare) -> Write {
    Write { table: Table::Shares, key: share_row(key), value: Some(crate::wire::encode(stored)) }
}

/// The key of a share's row; the keys of its payload's rows begin with it.
fn share_row((id, head): &holder::ShareKey) -> Vec<u8> {
    [id.0, head.0].concat()
}

fn piece_row(key: &holder::ShareKey, piece: u16) -> Vec<u8> {
    [share_row(key), piece.to_be_bytes().to_vec()].concat()
}

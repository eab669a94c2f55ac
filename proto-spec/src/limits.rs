//! Every bound of the protocol, named, with its reason. What comes from outside is measured against these
//! before it is parsed, stored or queued.

/// Largest message between hosts: one payload of `PAYLOAD_MAX` in pieces, with its head and share.
pub const MESSAGE_MAX: usize = PAYLOAD_MAX + PAYLOAD_MAX / 8;
/// Largest message from somebody who is not a member: a ticket, four EK certificates and the keys.
pub const ENROLMENT_MESSAGE_MAX: usize = 64 * 1024;
/// Largest credential: 1 MiB, which is also the limit of systemd for the credentials of one unit.
pub const PAYLOAD_MAX: usize = 1024 * 1024;
/// Plaintext bytes in one piece of a payload: small enough for one value of the store.
pub const PIECE_BYTES: usize = 32 * 1024;
/// Pieces of the largest payload.
pub const PIECES_MAX: usize = PAYLOAD_MAX / PIECE_BYTES;
/// AES-GCM tag at the end of each piece.
pub const PIECE_TAG_BYTES: usize = 16;
/// Most shares of one credential: beyond it a put would wait for hosts that are not there.
pub const SHARES_MAX: usize = 32;
/// A share sealed with HPKE: 32 bytes of key, 32 of share, 16 of tag, and some room.
pub const SEALED_SHARE_MAX: usize = 256;
/// Members of one mesh in this step: the announcement of an epoch names them all in one message.
pub const MEMBERS_MAX: usize = 512;
/// Names of hosts, domains, regions, zones and credentials, in bytes.
pub const NAME_MAX: usize = 96;
/// Rules in one credential's policy.
pub const ALLOW_MAX: usize = 16;
/// Recipients of one credential's shard map.
pub const RECIPIENTS_MAX: usize = 4;
/// An age X25519 recipient in text has 62 characters; some room for what follows it.
pub const RECIPIENT_TEXT_MAX: usize = 96;
/// A head as signed bytes.
pub const HEAD_MAX: usize = 2048;
/// Keys that took over from a credential's owner: each stands in the head with a signature of 300 bytes.
pub const SUCCESSIONS_MAX: usize = 4;
/// An SSHSIG in its armour (ed25519: about 300 bytes).
pub const SSHSIG_MAX: usize = 2048;
/// A signed genesis with its EK roots.
pub const GENESIS_MAX: usize = 40 * 1024;
/// Domains named in a genesis.
pub const DOMAINS_MAX: usize = 32;
/// Operators of one domain.
pub const OPERATORS_MAX: usize = 8;
/// EK roots and EK hashes in a genesis.
pub const EK_ROOTS_MAX: usize = 16;
/// EK hashes in a genesis.
pub const EK_HASHES_MAX: usize = 512;
/// A certificate of an EK or of its issuer.
pub const CERTIFICATE_MAX: usize = 4096;
/// EKs that one chip shows (RSA-2048, P-384 and two more).
pub const EKS_MAX: usize = 4;
/// Intermediate certificates that a joiner sends along.
pub const INTERMEDIATES_MAX: usize = 4;
/// A TPMT_PUBLIC (RSA-2048: 314 bytes, RSA-4096: 570).
pub const TPM_PUBLIC_MAX: usize = 1024;
/// A TPMS_ATTEST of a quote over one bank (145 bytes) with room for a second.
pub const ATTEST_MAX: usize = 512;
/// A TPMT_SIGNATURE (ECDSA P-256: 72 bytes, RSA-2048: 262).
pub const TPM_SIGNATURE_MAX: usize = 640;
/// PCRs of one bank.
pub const PCRS_MAX: usize = 24;
/// A ticket in its armour.
pub const TICKET_MAX: usize = 8 * 1024;
/// A shard map as an age file: 32 holders with their commitments and addresses.
pub const SHARD_MAP_MAX: usize = 32 * 1024;
/// A host's address (host:port).
pub const ADDRESS_MAX: usize = 280;
/// What strangers say that the mesh key signed, be it an admission or the end of a seat: where it does not hold, a host checks
/// so many
pub const CHECKS_FAILED_MAX: usize = 8;
/// in this time: each costs a pairing or two, and strangers send them. Joiners ask again by themselves.
pub const CHECKS_FAILED_MS: u64 = 1000;
/// Enrolments that wait for their challenge's answer: joiners are few, and each costs RSA arithmetic.
pub const ENROLMENTS_OPEN_MAX: usize = 32;
/// How long a challenge may stay open: a slow chip takes seconds, not minutes.
pub const ENROLMENT_MS: u64 = 60_000;
/// Reads of one sender that wait at a leader: of all that it keeps open, so that nobody takes the others' places.
pub const QUESTIONS_PER_SENDER_MAX: usize = REQUESTS_OPEN_MAX / 8;
/// Questions for a record that a voter remembers until it has it: what a few hosts have open. Whoever is forgotten asks again.
pub const WITNESSED_MAX: usize = 2 * REQUESTS_OPEN_MAX;
/// Requests of local clients in flight in one daemon.
pub const REQUESTS_OPEN_MAX: usize = 256;
/// A request to another host is given up after this time: room for a silent connection's end, two dials after it and
/// an election.
pub const REQUEST_MS: u64 = 10_000;
/// A joiner whose coordinator cannot be reached gives up after this time: two more tries.
pub const JOIN_UNREACHABLE_MS: u64 = 5_000;
/// A joiner without an answer asks again after this time.
pub const JOIN_RETRY_MS: u64 = 2_000;
/// Shares that one host holds.
pub const SHARES_HELD_MAX: usize = 65_536;
/// With less room than this on its disk, in bytes, a host takes no new share: its log, its snapshots and the shares that it
/// has go on.
pub const DISK_FREE_MIN: u64 = 256 * 1024 * 1024;
/// Bytes of shares not yet recorded that one holder keeps for one client: four puts of the largest size.
pub const UNRECORDED_BYTES_MAX: usize = 4 * MESSAGE_MAX;
/// Unrecorded shares that one holder keeps of what one member sent: whoever floods it locks out itself alone, and
/// all members together fill half of what it may hold.
pub const UNRECORDED_PER_SENDER_MAX: usize = SHARES_HELD_MAX / 2 / MEMBERS_MAX;
/// Epochs after which a put that is not recorded is given up: its holders make room. Many times what a put may take.
pub const PUT_EPOCHS: u64 = 10;
/// Epochs for which a request's record is remembered: an hour of 10 s. Whoever asks again later is told of the order.
pub const REQUEST_EPOCHS: u64 = 360;
/// Requests that are remembered, whatever their age: 28 a second for an hour.
pub const REQUESTS_KEPT_MAX: usize = 100_000;
/// Entries of the record log that one page carries.
pub const PAGE_ENTRIES_MAX: usize = 256;
/// Bytes of the record log that one page carries.
pub const PAGE_BYTES_MAX: usize = 256 * 1024;
/// Hosts whose addresses a member keeps on disk: the committee, and others in case it is replaced while this host is away.
/// They fit one row of the store.
pub const CONTACTS_MAX: usize = 64;
/// One entry of the record log: the founding is the largest, with the genesis and three members; below
/// what one row of the store takes.
pub const ENTRY_MAX: usize = GENESIS_MAX + 20 * 1024;
/// Entries behind the newest snapshot: twice as many as those after which the next one of the largest state is due.
pub const LOG_ENTRIES_MAX: u64 = 200_000;
/// Entries behind the newest header before a leader proposes nothing but the next one: 800 a second in an epoch of 10 s.
pub const UNCLOSED_MAX: u64 = 8_192;
/// Of those a voter or a follower takes no more than these: as many, and what may be under way to a voter that catches up
/// before it applies the headers in it. At most 1.5 GiB, and never that without a leader that lies.
pub const UNCLOSED_TAKEN_MAX: u64 = UNCLOSED_MAX + 16_384;
/// Places in a log that is full so for revocations, removals and the committee.
pub const UNCLOSED_RESERVE: u64 = 1_024;
/// Entries that a voter takes behind that bound, since they may let the log be closed: so many at once, and one more with each
/// tick. Of those that come from a leader that lies some are kept for nothing: a few hundred bytes each.
pub const UNCLOSED_BEATS: u32 = 64;
/// A snapshot is taken after so many entries at least: two days of 10 s without any other record.
pub const SNAPSHOT_ENTRIES: u64 = 16_384;
/// Entries that are kept before the newest snapshot: whoever was away for half a day gets entries, not the state.
pub const LOG_KEPT: u64 = 4_096;
/// The same in a mesh that is marked testnet, so that it is seen to happen.
pub const TESTNET_SNAPSHOT_ENTRIES: u64 = 64;
/// The same in a mesh that is marked testnet.
pub const TESTNET_LOG_KEPT: u64 = 16;
/// Rows of the largest state: its credentials, the requests of an hour, its groups, members and their tickets.
pub const STATE_ROWS_MAX: u64 = 400_000;
/// Rows of the state that one page carries: the smallest have a hundred bytes.
pub const STATE_PAGE_ROWS_MAX: usize = 2_048;
/// A page of the state that has not come by then is asked for again, of another host.
pub const STATE_PAGE_MS: u64 = 2_000;
/// Credentials in the records.
pub const CREDENTIALS_MAX: usize = 250_000;
/// Shard groups in the records.
pub const GROUPS_MAX: usize = 4096;
/// Groups of the same terms that all stand, beyond which none is drawn because somebody would do without certain holders:
/// enough to go round a few, and far from all.
pub const GROUPS_PER_TERMS: usize = 16;
/// Epochs whose announcements a host remembers: nothing older is current.
pub const EPOCHS_KEPT: u64 = 3;
/// Shortest epoch of a mesh that is not marked testnet.
pub const EPOCH_MS_MIN: u64 = 5_000;
/// Shortest epoch of a mesh that is marked testnet.
pub const TESTNET_EPOCH_MS_MIN: u64 = 200;
/// Longest epoch: beyond an hour a revocation would come too late for anybody.
pub const EPOCH_MS_MAX: u64 = 3_600_000;
/// A host that could not quote asks its TPM again after this time.
pub const QUOTE_RETRY_MS: u64 = 500;
/// Refusals that a host remembers for `status`.
pub const REFUSALS_KEPT: usize = 64;
/// Seats of the smallest committee: fewer cannot lose one.
pub const COMMITTEE_MIN: usize = 3;
/// Seats of the largest committee: beyond it an epoch's partial signatures cost more than they add.
pub const COMMITTEE_MAX: usize = 21;
/// A tick of the election's time.
pub const TICK_MS: u64 = 50;
/// Ticks between two heartbeats of a leader.
pub const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader after which a voter stands for election: T = 1 s; each draws its own in T·[1, 1.5).
pub const ELECTION_TICKS: usize = 20;
/// Ticks for which a voter that heard a leader gives nobody else its vote, and a leader that hears no majority goes on. Less
/// than an election takes by two heartbeats: clocks tick apart, and the last heartbeat did not reach all at once. Else the
/// first to stand is refused by the next, and stands again only a whole T later.
pub const LEASE_TICKS: usize = ELECTION_TICKS - 2 * HEARTBEAT_TICKS;
/// Bytes by which a voter names a read.
pub const CONTEXT_MAX: usize = 16;
/// A term or an index of the log beyond it could run over: whoever names one lies.
pub const NUMBER_MAX: u64 = u64::MAX / 2;
/// Terms that a voter may have missed: one a second for twelve days. Beyond it somebody would use them up.
pub const TERM_JUMP_MAX: u64 = 1 << 20;
/// Terms that a voter goes ahead as often as it is told to; further than that once in the time of an election. Whoever brings
/// one far ahead goes no faster than the others follow.
pub const TERM_STEP_MAX: u64 = 1_024;
/// Writes that a voter has under way before it takes no ballot: each is kept until it is on disk, and asked for again.
pub const WRITES_UNDER_WAY_MAX: usize = 4_096;
/// Messages with entries that a leader has under way to one seat: what a line of the network holds.
pub const RAFT_INFLIGHT_MAX: usize = 64;
/// A part of a signature that has not led to one is sent again after this time.
pub const PART_RETRY_MS: u64 = 500;
/// Unlock requests are sent again after this time.
pub const UNLOCK_RETRY_MS: u64 = 500;
/// Hosts that a gathering host remembers while the mesh is forming: more than it needs, so that one that went away
/// does not hold up the others.
pub const GATHERED_MAX: usize = 8;
/// Pairs of tickets of which a gathering host remembers which call was their last: those of all that it remembers, twice.
pub const CALLED_MAX: usize = GATHERED_MAX * (GATHERED_MAX - 1);
/// A founding that has not ended by then is begun anew: two slow chips answer two challenges each.
pub const FOUNDING_MS: u64 = 20_000;
/// Messages that wait for a write of one lane, for one peer; a page counts for [`PAGE_WEIGHT`] of them.
pub const WAITING_PER_PEER_MAX: usize = 64;
/// The same for all peers together: at most 64 MiB of pages.
pub const WAITING_MAX: usize = 4_096;
/// So many times as large as what else is sent is a page.
pub const PAGE_WEIGHT: usize = 16;
/// Proposals of a leader that wait for their record.
pub const PROPOSALS_MAX: usize = 4096;
/// Largest message that is gossiped: a header has some 400 bytes.
pub const GOSSIP_MESSAGE_MAX: usize = 2 * 1024;
/// Members to whom a connection is held for gossip: three make a ring that stays whole where two next to each other fail.
pub const GOSSIP_NEAR: usize = 3;
/// Peers in a host's gossip mesh, at least, about, and at most: the defaults of the gossipsub specification (libp2p,
/// gossipsub v1.1), with which a message reaches 500 hosts in four hops.
pub const GOSSIP_MESH: [usize; 3] = [4, 6, 12];
/// How often gossipsub mends its mesh and names what it has heard, in milliseconds.
pub const GOSSIP_HEARTBEAT_MS: u64 = 1_000;
/// Messages that wait for their verdict; beyond them a message is ignored.
pub const GOSSIP_UNJUDGED_MAX: usize = 256;
/// Weight of the square of a peer's rejected messages: the first costs it its place in the mesh, the second all hearing.
pub const GOSSIP_REJECTED_WEIGHT: f64 = -20.0;
/// What is left of the count of rejected messages after each second: a tenth after half an hour.
pub const GOSSIP_REJECTED_DECAY: f64 = 0.998_7;
/// Weight of the square of a peer's breaches of gossipsub itself (promises not kept, grafts during a backoff).
pub const GOSSIP_BREACH_WEIGHT: f64 = -10.0;
/// Breaches that cost nothing: connections end in the middle of things.
pub const GOSSIP_BREACHES_FREE: f64 = 6.0;
/// Below these scores a peer is told no news, is published nothing, and is not heard at all.
pub const GOSSIP_THRESHOLDS: [f64; 3] = [-10.0, -40.0, -60.0];
/// The score of somebody who is no member: it is told nothing and gets no place in the mesh. It is told so, where it asks
/// for one: a newcomer whom one side does not know yet asks again.
pub const GOSSIP_STRANGER: f64 = -50.0;
/// How long a place in the mesh is not asked for again after it was refused, in seconds: a newcomer is known to all by then.
pub const GOSSIP_BACKOFF_S: u64 = 5;
/// How long a member's lies are remembered, in seconds: they are not forgiven for a new connection.
pub const GOSSIP_MEMORY_S: u64 = 600;
/// Lies after which a member is not heard: the first may be a mistake.
pub const GOSSIP_LIES: u32 = 2;
/// Messages that one peer may pass on in a window, whatever becomes of them: two a round are honest. Beyond it they are
/// dropped unseen, and count as lies.
pub const GOSSIP_PER_PEER_MAX: u32 = 128;
/// That window, in seconds.
pub const GOSSIP_WINDOW_S: u64 = 10;
/// Beacons that a host keeps to export.
pub const BEACONS_KEPT: usize = 64;
/// A leader that is told to end waits so long until another leads: some round trips, and less than an election takes.
pub const HAND_ON_MS: u64 = 1_000;
/// A voter asks somebody whose seat it does not know this often to show it.
pub const SEAT_ASK_MS: u64 = 1000;
/// Of so many in that time: a committee, and strangers that pretend.
pub const SEATS_ASKED_MAX: usize = 4 * COMMITTEE_MAX;
/// A leader looks this often whether the committee wants a change.
pub const SEATS_MS: u64 = 500;
/// The seat of a host that is absent for so long is given to another: ten minutes, longer than a slow host's catch-up.
pub const ABSENT_MS: u64 = 600_000;
/// The same in a mesh that is marked testnet, in epochs, so that it is seen to happen.
pub const TESTNET_ABSENT_EPOCHS: u64 = 60;
/// A leader whose own evidence has not held for so many epochs hands the lead on: as long as what it showed last was
/// current.
pub const UNFIT_EPOCHS: u64 = 2;
/// So does a leader one of whose writes has not ended after this time: many times what a slow disk takes.
pub const WRITE_STALLED_MS: u64 = 3_000;
/// A wall clock that moved against the monotonic one by more than half an epoch is believed again when there was no beacon for
/// two epochs and this time, though nobody else's clock agrees: all may have been wrong, and put right.
pub const CLOCK_DOUBT_MS: u64 = 600_000;
/// Epochs after which the mesh key is dealt anew to the same seats: a day of 10 s. Who learned a share in that time
/// knows nothing of the next.
pub const REDEAL_EPOCHS: u64 = 8_640;
/// The same in a mesh that is marked testnet, so that it is seen to happen.
pub const TESTNET_REDEAL_EPOCHS: u64 = 90;
/// Epochs after which a host's shards move under its next unlock: a day of 10 s.
pub const REWRAP_EPOCHS: u64 = 8_640;
/// The same in a mesh that is marked testnet, so that it is seen to happen.
pub const TESTNET_REWRAP_EPOCHS: u64 = 20;
/// Shards that are wrapped anew in one go: two milliseconds of work.
pub const REWRAP_SLICE: usize = 64;
/// Rows after which what is erased of a group goes on in another write: a store rewrites what lies around them, and syncs
/// between two writes at most.
pub const ERASED_AT_ONCE: usize = 32;
/// A learner votes once it lacks no more entries than these.
pub const SEAT_NEAR: u64 = 64;
/// A dealing of the mesh key that has not ended by then is begun anew.
pub const DEALING_MS: u64 = 30_000;
/// Through whom it did not end is left out of dealings so long the first time, and twice as long each time after: room for
/// a restart, and for four dealings.
pub const MUTE_MS: u64 = 4 * DEALING_MS;

//! One run: found, enrol, faults with a load of puts, peace, read everything back.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spec::attest::policy::DEFAULT_PCRS;
use spec::attest::tpm::EkPublic;
use spec::cms::committee::FOUNDERS;
use spec::error::Failure;
use spec::genesis::{self, Domain, Genesis, PROTOCOL_VERSION, SignedGenesis};
use spec::host::{LocalCommand, LocalId, LocalReply};
use spec::limits::TESTNET_ABSENT_EPOCHS;
use spec::membership::Role;
use spec::suite::{Fake, Generator};
use spec::ticket::{self, Contact, Pins, SignedTicket, Ticket};
use spec::types::{SshKey, TicketSerial};
use spec::wire;

use crate::checkers::Deposit;
use crate::clients::Client;
use crate::machine::Machine;
use crate::registers::Registers;
use crate::scenario::Scenario;
use crate::world::{WALL_START_MS, World};

/// Virtual time that an orderly start may take.
const START_MS: u64 = 120_000;
/// Virtual time in which everything must have converged once the faults are over.
pub(crate) const PEACE_MS: u64 = 30_000;
/// Domains of a simulated mesh: machine i is of the i-th, and so on around.
pub const DOMAINS: [&str; 5] = ["north", "east", "south", "west", "centre"];

/// The outcome: the last line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// Whether everything held.
    pub ok: bool,
    /// The seed that replays it.
    pub seed: u64,
    /// Hosts, the reader and the stranger not counted.
    pub hosts: usize,
    /// Puts that were tried.
    pub puts: usize,
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Operations on the credentials whose histories are checked.
    pub operations: usize,
    /// Those that ended.
    pub operations_ended: usize,
    /// Crashes.
    pub crashes: u64,
    /// Times that the mesh key moved while there were faults.
    pub deals: u64,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Messages sent.
    pub messages: u64,
    /// Bytes searched for credentials in clear.
    pub bytes_scanned: u64,
    /// Digest over everything that every host did.
    pub trace_hash: String,
    /// What did not hold.
    pub findings: Vec<String>,
    /// Whether it is a matter of liveness only.
    pub not_live: bool,
}

/// What happens under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Put,
    Operation,
    Crash,
    Absence,
    Join,
    Partition,
    ClockJump,
}

/// A mesh under simulation: machines, operators, an owner.
pub struct Run {
    /// The world.
    pub world: World,
    /// What outsiders pin.
    pub pins: Option<Pins>,
    pub(crate) clients: BTreeMap<LocalId, Client>,
    pub(crate) registers: Registers,
    /// What was put.
    pub deposits: Vec<Deposit>,
    pub(crate) generator: Generator,
    pub(crate) not_live: Vec<String>,
    pub(crate) hosts: usize,
    /// Seats that the genesis asks for.
    pub committee: u8,
    /// The domain of each machine.
    pub domain_of: fn(usize) -> usize,
    /// Tickets of those that join late.
    pub(crate) tickets: BTreeMap<usize, SignedTicket>,
    /// Those of them that are joining, and under which of their starts.
    pub(crate) joining: BTreeMap<usize, (u64, LocalId)>,
}

/// Runs a scenario.
pub fn run(name: &str, scenario: &Scenario, hosts: usize, seed: u64, acknowledge_before_flush: bool) -> Outcome {
    let mut run = Run::new(scenario, hosts, if scenario.boundaries { 1 } else { seed });
    run.world.acknowledges_before_flush = acknowledge_before_flush;
    let (mut crashes, mut deals) = (0, 0);
    if run.enrol_all(scenario) {
        let before = run.key_epoch();
        run.world.crash_before = scenario.boundaries.then_some(run.world.performed + seed);
        crashes = run.load(scenario);
        deals = run.key_epoch().saturating_sub(before);
        run.peace();
        run.puts_work_again();
        run.read_all();
        run.check_histories();
        run.strangers_get_nothing();
    }
    let findings: Vec<String> = run.world.checkers.findings().iter().chain(&run.not_live).cloned().collect();
    Outcome {
        scenario: name.to_owned(),
        ok: findings.is_empty(),
        seed,
        hosts,
        puts: run.deposits.len(),
        acknowledged: run.deposits.iter().filter(|deposit| deposit.acknowledged).count(),
        operations: run.registers.begun(),
        operations_ended: run.registers.ended(),
        crashes,
        deals,
        virtual_ms: run.world.now_ms,
        messages: run.world.messages,
        bytes_scanned: run.world.checkers.bytes_scanned(),
        trace_hash: run.world.trace_hash(),
        not_live: run.world.checkers.findings().is_empty() && !run.not_live.is_empty(),
        findings,
    }
}

/// The operator of a domain.
pub fn operator(domain: usize) -> SshKey {
    SshKey([u8::try_from(domain).unwrap_or(0) + 1; 32])
}

/// Seats of every simulated committee.
const COMMITTEE: u8 = 5;

/// The owner of all credentials.
pub(crate) const OWNER: SshKey = SshKey([0xaa; 32]);

impl Run {
    /// A run of so many hosts that has not begun.
    pub fn new(scenario: &Scenario, hosts: usize, seed: u64) -> Self {
        let mut world = World::new(scenario.clone(), seed);
        let generator = Generator::new(&world.random.seed());
        Self {
            world,
            pins: None,
            clients: BTreeMap::new(),
            registers: Registers::default(),
            deposits: Vec::new(),
            generator,
            not_live: Vec::new(),
            hosts,
            committee: COMMITTEE,
            domain_of: |machine| machine % DOMAINS.len(),
            tickets: BTreeMap::new(),
            joining: BTreeMap::new(),
        }
    }

    /// The machine that policies allow.
    pub fn reader(&self) -> usize {
        self.hosts
    }

    /// The machine that no policy allows.
    pub fn stranger(&self) -> usize {
        self.hosts + 1
    }

    /// Makes all machines, founds the mesh on the first, joins the others.
    ///
    /// False where somebody could not join.
    pub fn enrol_all(&mut self, scenario: &Scenario) -> bool {
        self.set_up();
        self.world.checkers.strangers.insert(self.stranger());
        let genesis = self.genesis(scenario);
        let late = usize::try_from(scenario.late).unwrap_or(0).min(self.hosts.saturating_sub(FOUNDERS));
        let late = self.hosts - late..self.hosts;
        if !(0..self.hosts + 2).filter(|number| !late.contains(number)).all(|number| self.enrol(number, &genesis)) {
            return false;
        }
        for number in late {
            // Written now: whoever writes one under faults may be down.
            if let Some(LocalCommand::Join { ticket, .. }) = self.joining(number, &genesis, |_| {}) {
                self.tickets.insert(number, ticket);
            }
        }
        self.settle(3 * scenario.epoch_ms);
        true
    }

    /// Starts a machine and brings it into the mesh, which the first three found.
    pub fn enrol(&mut self, number: usize, genesis: &SignedGenesis) -> bool {
        self.world.start(number);
        if number == FOUNDERS && !self.is_founded() {
            return self.stuck("three hosts did not found the mesh");
        }
        let Some(command) = self.joining(number, genesis, |_| {}) else { return self.stuck("no identity") };
        match self.ask(number, command, START_MS) {
            Some(Ok(LocalReply::Joined(_))) => true,
            other => self.stuck(&format!("host {number} did not join: {other:?}")),
        }
    }

    /// What brings this machine into the mesh: the first founds it, the others join with a ticket, as `change` leaves it.
    pub fn joining(
        &mut self,
        number: usize,
        genesis: &SignedGenesis,
        change: impl FnOnce(&mut Ticket),
    ) -> Option<LocalCommand> {
        let role = if number < self.hosts { Role::Host } else { Role::Reader };
        let mesh = spec::types::MeshId(spec::types::sha256(&genesis.bytes).0);
        let (pins, contacts) = self.pins_for(mesh)?;
        let ticket = self.ticket_with(number, role, pins, contacts, change);
        Some(match number {
            0 => LocalCommand::Found { genesis: genesis.clone(), ticket },
            _ => LocalCommand::Join { ticket, address: None },
        })
    }

    /// Makes all machines; none runs.
    pub fn set_up(&mut self) {
        for number in 0..self.hosts + 2 {
            let machine = Machine::new(format!("h{number}"), &mut self.world.random);
            self.world.machines.push(machine);
        }
    }

    fn stuck(&mut self, why: &str) -> bool {
        self.not_live.push(why.to_owned());
        false
    }

    /// The genesis that all operators sign.
    pub fn genesis(&self, scenario: &Scenario) -> SignedGenesis {
        let domain = |(number, name): (usize, &&str)| Domain {
            name: (*name).to_owned(),
            operators: vec![operator(number)],
            recovery: Vec::new(),
        };
        let ek_hash = |machine: &Machine| EkPublic::parse(&machine.tpm.ek().public).ok().map(|ek| ek.hash());
        let genesis = Genesis {
            protocol_version: PROTOCOL_VERSION,
            name: "simulated".to_owned(),
            testnet: true,
            created_ms: WALL_START_MS,
            epoch_ms: scenario.epoch_ms,
            tolerate: 1,
            committee: self.committee,
            domains: DOMAINS.iter().enumerate().map(domain).collect(),
            ek_roots: Vec::new(),
            ek_hashes: self.world.machines.iter().filter_map(ek_hash).collect(),
            pcrs: DEFAULT_PCRS.to_vec(),
        };
        let bytes = wire::encode(&genesis);
        let sign = |key: &SshKey| Fake::sshsig_sign(key, genesis::NAMESPACE, &bytes);
        SignedGenesis { signatures: genesis.operators().map(sign).collect(), bytes }
    }

    /// Waits until the forming is over.
    fn is_founded(&mut self) -> bool {
        let until = self.world.now_ms + START_MS;
        while self.world.now_ms < until {
            self.settle(100);
            let founded = |machine: &Machine| {
                machine.running.as_ref().is_some_and(|running| running.host.records().committee().is_some())
            };
            if self.world.machines.iter().take(FOUNDERS).all(founded) {
                return true;
            }
        }
        false
    }

    /// What the first host pins, and whom a ticket that is written there names.
    pub fn pins_for(&mut self, mesh: spec::types::MeshId) -> Option<(Pins, Vec<Contact>)> {
        match self.ask(0, LocalCommand::Identity, 1_000)? {
            Ok(LocalReply::Identity(identity)) => {
                let pins = identity.pins.unwrap_or(Pins { mesh, key: None });
                self.pins = Some(pins.clone());
                Some((pins, identity.contacts))
            }
            _ => None,
        }
    }

    /// A ticket for this machine, as its operator writes it.
    pub fn ticket(&mut self, number: usize, role: Role, pins: Pins, contacts: Vec<Contact>) -> SignedTicket {
        self.ticket_with(number, role, pins, contacts, |_| {})
    }

    fn ticket_with(
        &mut self,
        number: usize,
        role: Role,
        pins: Pins,
        contacts: Vec<Contact>,
        change: impl FnOnce(&mut Ticket),
    ) -> SignedTicket {
        let domain = (self.domain_of)(number);
        let name = DOMAINS.get(domain).copied().unwrap_or("north").to_owned();
        let region = format!("region{}", number % 3);
        let serial = TicketSerial(self.world.random.bytes());
        let mut ticket = Ticket::new(
            pins,
            contacts,
            format!("h{number}"),
            role,
            name,
            region,
            "zone".to_owned(),
            serial,
            WALL_START_MS + START_MS * 1_000,
            None,
        );
        change(&mut ticket);
        let bytes = wire::encode(&ticket);
        let signature = Fake::sshsig_sign(&operator(domain), ticket::NAMESPACE, &bytes);
        SignedTicket { bytes, signature }
    }

    /// Asks and waits for the answer; other answers that come meanwhile are handled.
    pub fn ask(
        &mut self,
        machine: usize,
        command: LocalCommand,
        within_ms: u64,
    ) -> Option<Result<LocalReply, Failure>> {
        let id = self.world.command(machine, command)?;
        let until = self.world.now_ms + within_ms;
        loop {
            match self.world.answers.pop_front() {
                Some(answer) if answer.id == id => return Some(answer.reply),
                Some(answer) => self.on_answer(answer),
                None if self.world.now_ms >= until => return None,
                None => self.world.run_until(until),
            }
        }
    }

    /// Lets virtual time pass.
    pub fn settle(&mut self, for_ms: u64) {
        let until = self.world.now_ms + for_ms;
        while self.world.now_ms < until {
            self.world.run_until(until);
            while let Some(answer) = self.world.answers.pop_front() {
                self.on_answer(answer);
            }
        }
    }

    /// What happens when, from the begin of the load on.
    fn plan(&mut self, scenario: &Scenario) -> Vec<(u64, Fault)> {
        let length = scenario.epochs * scenario.epoch_ms;
        let mut plan: Vec<(u64, Fault)> = Vec::new();
        let times = [
            (scenario.puts, Fault::Put),
            (scenario.operations, Fault::Operation),
            (scenario.crashes, Fault::Crash),
            (scenario.partitions, Fault::Partition),
            (scenario.clock_jumps, Fault::ClockJump),
        ];
        for (count, fault) in times {
            plan.extend((0..count).map(|_| (self.world.random.below(length), fault)));
        }
        for (count, fault) in [(scenario.absences, Fault::Absence), (scenario.late, Fault::Join)] {
            plan.extend((0..count).map(|_| (self.world.random.below(length / 2), fault)));
        }
        plan.sort_unstable();
        plan
    }

    /// Faults and puts; says how many crashes there were.
    fn load(&mut self, scenario: &Scenario) -> u64 {
        let start = self.world.now_ms;
        let plan = self.plan(scenario);
        let mut down: BTreeMap<usize, u64> = BTreeMap::new();
        let mut crashes = 0;
        let mut heals_at = None;
        self.world.faults = true;
        for (at, fault) in plan {
            self.settle((start + at).saturating_sub(self.world.now_ms));
            if heals_at.take_if(|at| self.world.now_ms >= *at).is_some() {
                self.world.cut_off.clear();
            }
            if let Some(machine) = self.world.fallen.take() {
                crashes += 1;
                self.hang_up_at(machine);
                down.insert(machine, self.world.now_ms);
            }
            let back: BTreeSet<usize> =
                down.iter().filter(|(_, until)| self.world.now_ms >= **until).map(|(number, _)| *number).collect();
            for number in back {
                down.remove(&number);
                self.world.start(number);
            }
            self.try_joins();
            let machine = self.any_host();
            match fault {
                Fault::Put => self.begin_put(machine),
                Fault::Operation => self.begin_operation(scenario, machine),
                Fault::Partition => {
                    self.cut_some_off();
                    let lasts = scenario.partition_epochs * scenario.epoch_ms;
                    heals_at = (lasts > 0).then(|| self.world.now_ms + self.world.random.below(lasts));
                }
                Fault::ClockJump => {
                    let ahead = self.world.random.below(4 * scenario.epoch_ms);
                    self.world.clocks_ahead_ms.insert(machine, ahead);
                }
                Fault::Join => self.start_late(),
                Fault::Crash | Fault::Absence => {
                    if let Entry::Vacant(entry) = down.entry(machine) {
                        crashes += 1;
                        self.crash(machine);
                        let is_short = matches!(fault, Fault::Crash);
                        let away = if is_short { 0 } else { (TESTNET_ABSENT_EPOCHS + 10) * scenario.epoch_ms };
                        entry.insert(self.world.now_ms + away + self.world.random.below(3 * scenario.epoch_ms));
                    }
                }
            }
        }
        self.world.crash_before = None;
        crashes += u64::from(self.world.fallen.take().is_some());
        // A power cut of all, in the middle of what is under way.
        if scenario.crashes > 0 {
            for number in 0..self.hosts {
                if !down.contains_key(&number) {
                    self.crash(number);
                }
            }
            for number in 0..self.hosts {
                self.world.start(number);
            }
        }
        crashes
    }

    fn any_host(&mut self) -> usize {
        usize::try_from(self.world.random.below(u64::try_from(self.hosts).unwrap_or(1))).unwrap_or(0)
    }

    /// Counts the dealings of the mesh key, as far as anybody has heard.
    fn key_epoch(&self) -> u64 {
        let running = self.world.machines.iter().filter_map(|machine| machine.running.as_ref());
        let committees = running.filter_map(|running| running.host.records().committee());
        committees.map(|committee| committee.key.key_epoch).max().unwrap_or(0)
    }

    /// Up to half of the hosts are cut off from the others, or everybody hears everybody again.
    fn cut_some_off(&mut self) {
        self.world.cut_off.clear();
        if self.world.random.percent(30) {
            return;
        }
        for _ in 0..self.hosts / 2 {
            let machine = self.any_host();
            self.world.cut_off.insert(machine);
        }
    }
}

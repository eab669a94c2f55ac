//! A few credentials on which clients put, replace, remove and read all at once; what each was told becomes a history,
//! and other people's checker says whether some order explains it.

use std::collections::BTreeMap;

use histories::{History, Operation, OperationId, Outcome};
use spec::client::{Change, next_head};
use spec::credential::head::{Allow, NAMESPACE, SignedHead, credential_id};
use spec::credential::split::PutOrder;
use spec::error::{Check, Failure};
use spec::host::{LocalCommand, LocalId, LocalReply};
use spec::membership::Role;
use spec::suite::Fake;
use spec::types::{CredentialId, RequestId, Terms};

use crate::clients::Dealt;
use crate::run::{OWNER, PEACE_MS, Run};
use crate::scenario::Scenario;
use crate::world::Answer;

/// Times that a client tries again where somebody else was faster.
const TRIES: u32 = 3;

/// A credential with its history.
struct Register {
    name: String,
    id: CredentialId,
    history: History,
    /// The newest version that some client was told of.
    version: u64,
}

/// What an open operation waits for.
enum Step {
    /// Where a value may go.
    Bundle(PutOrder),
    /// The newest head, to follow on it.
    Newest,
    /// The record, or the value: from here on a write may have happened, whatever its client hears.
    Last,
}

/// An operation under way.
struct Open {
    register: usize,
    operation: OperationId,
    what: Operation,
    gateway: usize,
    step: Step,
    tries: u32,
}

impl Open {
    /// Whether nothing can come of it any more if its gateway is gone.
    fn changed_nothing(&self) -> bool {
        matches!(self.what, Operation::Get) || !matches!(self.step, Step::Last)
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Registers {
    all: Vec<Register>,
    open: BTreeMap<LocalId, Open>,
    /// What each value is in bytes.
    payloads: Vec<Vec<u8>>,
}

impl Registers {
    /// Operations that began.
    pub(crate) fn begun(&self) -> usize {
        self.all.iter().map(|register| register.history.len()).sum()
    }

    /// Operations that ended.
    pub(crate) fn ended(&self) -> usize {
        self.all.iter().map(|register| register.history.ended()).sum()
    }

    fn end(&mut self, open: &Open, outcome: Outcome) {
        if let Some(register) = self.all.get_mut(open.register) {
            register.history.end(open.operation, outcome);
            if let Outcome::Stored(version) = outcome {
                register.version = register.version.max(version);
            }
        }
    }

    fn leave_out(&mut self, open: &Open) {
        if let Some(register) = self.all.get_mut(open.register) {
            register.history.leave_out(open.operation);
        }
    }
}

impl Run {
    /// A machine crashes: who waited there is told nothing any more.
    pub(crate) fn crash(&mut self, machine: usize) {
        self.world.crash(machine);
        self.hang_up_at(machine);
    }

    pub(crate) fn hang_up_at(&mut self, machine: usize) {
        self.hang_up(|open| open.gateway == machine);
    }

    fn hang_up(&mut self, who: impl Fn(&Open) -> bool) {
        let gone: Vec<LocalId> = self.registers.open.iter().filter(|(_, open)| who(open)).map(|(id, _)| *id).collect();
        for open in gone.into_iter().filter_map(|id| self.registers.open.remove(&id)).collect::<Vec<_>>() {
            if open.changed_nothing() {
                self.registers.leave_out(&open);
            }
        }
    }

    /// Begins some operation on some register through this machine.
    pub(crate) fn begin_operation(&mut self, scenario: &Scenario, gateway: usize) {
        let count = usize::try_from(scenario.registers).unwrap_or(1).max(1);
        while self.registers.all.len() < count {
            let name = format!("register/{}", self.registers.all.len());
            let id = credential_id(&OWNER, &name);
            self.registers.all.push(Register { name, id, history: History::default(), version: 0 });
        }
        let chosen = usize::try_from(self.world.random.below(scenario.registers.max(1))).unwrap_or(0);
        let runs = self.world.machines.get(gateway).is_some_and(|machine| machine.running.is_some());
        let Some(register) = self.registers.all.get(chosen).filter(|register| runs && register.history.has_room())
        else {
            return;
        };
        let version = register.version;
        let kind = self.world.random.below(100);
        // Most expect what was there last; some are behind.
        let expected = if self.world.random.percent(80) { version } else { version.saturating_sub(1) };
        let what = match kind {
            0..30 => Operation::Get,
            30..60 => Operation::Put(self.fresh_value()),
            60..85 => Operation::Cas { expected, value: self.fresh_value() },
            _ => Operation::Remove,
        };
        self.begin(chosen, what, gateway);
    }

    fn begin(&mut self, register: usize, what: Operation, gateway: usize) {
        let Some(chosen) = self.registers.all.get_mut(register) else { return };
        let operation = chosen.history.begin(what);
        self.attempt(Open { register, operation, what, gateway, step: Step::Last, tries: 0 });
    }

    fn fresh_value(&mut self) -> u64 {
        let payload = self.world.random.bytes::<24>().to_vec();
        self.world.checkers.watch(&payload);
        self.registers.payloads.push(payload);
        u64::try_from(self.registers.payloads.len() - 1).unwrap_or(0)
    }

    /// The first step of an operation, or the first of another try.
    fn attempt(&mut self, mut open: Open) {
        let Some(register) = self.registers.all.get(open.register) else { return };
        open.tries += 1;
        let command = match open.what {
            Operation::Get => LocalCommand::Get(register.id),
            Operation::Remove => {
                open.step = Step::Newest;
                LocalCommand::Newest(register.id)
            }
            Operation::Put(_) | Operation::Cas { .. } => {
                let Some(terms) = Terms::new(2, 3, 1) else { return };
                let order = PutOrder {
                    request: RequestId(self.world.random.bytes()),
                    client: OWNER,
                    name: register.name.clone(),
                    terms,
                    allow: vec![Allow::Role(Role::Host)],
                    recipients: Vec::new(),
                };
                open.step = Step::Bundle(order.clone());
                LocalCommand::PutBegin(order)
            }
        };
        self.step(open, command);
    }

    fn step(&mut self, open: Open, command: LocalCommand) {
        match self.world.command(open.gateway, command) {
            Some(id) => drop(self.registers.open.insert(id, open)),
            None if open.changed_nothing() => self.registers.leave_out(&open),
            None => {}
        }
    }

    /// A host answered one of these clients.
    pub(crate) fn on_operation(&mut self, answer: Answer) {
        let Some(open) = self.registers.open.remove(&answer.id) else { return };
        match answer.reply {
            Ok(reply) => self.on_reply(open, reply),
            Err(failure) => self.on_failure(open, &failure),
        }
    }

    fn on_reply(&mut self, mut open: Open, reply: LocalReply) {
        match reply {
            LocalReply::Bundle(bundle) => self.deal_value(open, &bundle),
            LocalReply::Head(head) => {
                let Some(command) = self.removal(&head) else { return self.registers.leave_out(&open) };
                open.step = Step::Last;
                self.step(open, command);
            }
            LocalReply::Stored { version, .. } => self.registers.end(&open, Outcome::Stored(version)),
            LocalReply::Changed { .. } => self.registers.end(&open, Outcome::Removed),
            LocalReply::Secret(secret) => {
                let value = self.registers.payloads.iter().position(|payload| payload == secret.expose());
                match value.and_then(|value| u64::try_from(value).ok()) {
                    Some(value) => self.registers.end(&open, Outcome::Read(value)),
                    None => self.world.checkers.broken("a read gave what nobody put".to_owned()),
                }
            }
            other => self.world.checkers.broken(format!("an answer of another kind: {other:?}")),
        }
    }

    fn deal_value(&mut self, mut open: Open, bundle: &spec::wire::DealBundle) {
        let Step::Bundle(order) = &open.step else { return };
        let (value, expected) = match open.what {
            Operation::Cas { expected, value } => (value, Some(expected)),
            Operation::Put(value) => (value, None),
            Operation::Remove | Operation::Get => return,
        };
        let order = order.clone();
        let payload = usize::try_from(value).ok().and_then(|value| self.registers.payloads.get(value)).cloned();
        match self.dealt(&order, bundle, &payload.unwrap_or_default(), expected) {
            Dealt::Store(command) => {
                open.step = Step::Last;
                self.step(open, command);
            }
            Dealt::Again => self.attempt(open),
            Dealt::Refused(Check::Version) => self.registers.end(&open, Outcome::OtherVersion),
            Dealt::Refused(check) => self.world.checkers.broken(format!("a bundle does not hold: {}", check.name())),
        }
    }

    /// The head that removes what a head names.
    pub fn removal(&mut self, newest: &SignedHead) -> Option<LocalCommand> {
        self.change(newest, Change::Remove)
    }

    /// The head that changes what a head names, signed by its owner.
    pub fn change(&mut self, newest: &SignedHead, change: Change) -> Option<LocalCommand> {
        let mesh = self.pins.as_ref()?.mesh;
        let request = RequestId(self.world.random.bytes());
        let bytes = next_head(&Fake, &mesh, newest, request, change).ok()?;
        let signature = Fake::sshsig_sign(&OWNER, NAMESPACE, &bytes);
        Some(LocalCommand::Change(SignedHead { bytes, signature }))
    }

    fn on_failure(&mut self, open: Open, failure: &Failure) {
        let lost_race = matches!(failure, Failure::Refused(refused) if refused.check == Check::HeadOrder);
        match (open.what, failure) {
            (Operation::Get | Operation::Remove, Failure::NotFound) => self.registers.end(&open, Outcome::NotFound),
            (Operation::Put(_) | Operation::Remove, _) if lost_race && open.tries < TRIES => self.attempt(open),
            // Nobody knows whether it was recorded.
            (_, Failure::NoLeader) if !open.changed_nothing() => {}
            // Nothing came of it, for certain.
            _ => self.registers.leave_out(&open),
        }
    }

    /// In peace each register is read once more; then other people's checker looks at what everybody was told.
    pub(crate) fn check_histories(&mut self) {
        for register in 0..self.registers.all.len() {
            self.begin(register, Operation::Get, register % self.hosts.max(1));
        }
        self.settle(PEACE_MS);
        self.hang_up(|_| true);
        for register in &self.registers.all {
            if !register.history.is_linearizable() {
                let told = register.history.to_text();
                self.world.checkers.broken(format!("P3: {} is not linearizable:\n{told}", register.name));
            }
        }
    }
}

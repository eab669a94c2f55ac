//! Clients that put a credential each, once.

use spec::client::{BundleVerified, head_to_sign};
use spec::credential::head::{Allow, SignedHead, credential_id};
use spec::credential::split::PutOrder;
use spec::error::Check;
use spec::host::{LocalCommand, LocalReply};
use spec::membership::Role;
use spec::relay::Wait;
use spec::suite::Fake;
use spec::types::{RequestId, SecretBytes, Terms};
use spec::wire::{DealBundle, Package};

use crate::checkers::Deposit;
use crate::run::{OWNER, Run};
use crate::world::{Answer, WALL_START_MS};

/// An answer is waited for so long.
const PATIENCE_MS: u64 = 20_000;

/// A put under way.
#[derive(Clone)]
pub(crate) struct Client {
    order: PutOrder,
    gateway: usize,
    deposit: usize,
}

/// What came of dealing to a bundle.
pub(crate) enum Dealt {
    /// This is to be stored.
    Store(LocalCommand),
    /// Evidence aged while the bundle travelled: it is asked for again.
    Again,
    /// The bundle lies, or a version is not the one that was expected.
    Refused(Check),
}

/// A dealt and signed credential: what an owner hands to a host, as often as it likes.
pub struct Signed {
    package: Package,
    signature: String,
}

impl Signed {
    /// Has it stored.
    pub fn store(&self) -> LocalCommand {
        LocalCommand::PutStore { package: self.package.clone(), signature: self.signature.clone(), wait: Wait::Quorum }
    }

    /// Its head.
    pub fn head(&self) -> SignedHead {
        SignedHead { bytes: self.package.head.clone(), signature: self.signature.clone() }
    }
}

impl Run {
    /// Deals a value of this name 2-of-3 to where a host says, and signs it; any host may read it.
    pub fn sign_value(&mut self, gateway: usize, name: &str, payload: &[u8]) -> Option<Signed> {
        self.sign_value_under(Terms::new(2, 3, 1)?, gateway, name, payload)
    }

    /// The same under other terms.
    pub fn sign_value_under(&mut self, terms: Terms, gateway: usize, name: &str, payload: &[u8]) -> Option<Signed> {
        let order = PutOrder {
            request: RequestId(self.world.random.bytes()),
            client: OWNER,
            name: name.to_owned(),
            terms,
            allow: vec![Allow::Role(Role::Host)],
            recipients: Vec::new(),
        };
        self.world.checkers.watch(payload);
        let begun = self.ask(gateway, LocalCommand::PutBegin(order.clone()), PATIENCE_MS)?;
        let Ok(LocalReply::Bundle(bundle)) = begun else { return None };
        match self.dealt(&order, &bundle, payload, None) {
            Dealt::Store(LocalCommand::PutStore { package, signature, .. }) => Some(Signed { package, signature }),
            _ => None,
        }
    }

    /// Begins a put through this machine; `deposits` tells whether it was acknowledged.
    pub fn begin_put(&mut self, gateway: usize) {
        let name = format!("credential/{}", self.deposits.len());
        let length = 16 + usize::try_from(self.world.random.below(200)).unwrap_or(0);
        let mut payload = self.world.random.bytes::<16>().to_vec();
        payload.resize(length, 0x2e);
        let (k, n) = if self.hosts >= 5 && self.world.random.percent(50) { (3, 5) } else { (2, 3) };
        let Some(terms) = Terms::new(k, n, 1) else { return };
        let order = PutOrder {
            request: RequestId(self.world.random.bytes()),
            client: OWNER,
            name: name.clone(),
            terms,
            allow: vec![Allow::Instance(format!("h{}", self.reader()))],
            recipients: Vec::new(),
        };
        self.world.checkers.watch(&payload);
        let deposit = self.deposits.len();
        self.deposits.push(Deposit { id: credential_id(&OWNER, &name), payload, acknowledged: false, failure: None });
        if let Some(id) = self.world.command(gateway, LocalCommand::PutBegin(order.clone())) {
            self.clients.insert(id, Client { order, gateway, deposit });
        }
    }

    pub(crate) fn on_answer(&mut self, answer: Answer) {
        if self.joined(&answer) {
            return;
        }
        let Some(client) = self.clients.remove(&answer.id) else { return self.on_operation(answer) };
        match answer.reply {
            Ok(LocalReply::Bundle(bundle)) => self.deal(client, &bundle),
            Ok(LocalReply::Stored { .. }) => {
                if let Some(deposit) = self.deposits.get_mut(client.deposit) {
                    deposit.acknowledged = true;
                }
            }
            // Refused or unanswered: nothing was promised to this client.
            Err(failure) => {
                if let Some(deposit) = self.deposits.get_mut(client.deposit) {
                    deposit.failure = Some(failure);
                }
            }
            Ok(_) => {}
        }
    }

    fn deal(&mut self, client: Client, bundle: &DealBundle) {
        let Some(payload) = self.deposits.get(client.deposit).map(|deposit| deposit.payload.clone()) else { return };
        let command = match self.dealt(&client.order, bundle, &payload, None) {
            Dealt::Store(command) => command,
            Dealt::Again => LocalCommand::PutBegin(client.order.clone()),
            Dealt::Refused(check) => {
                return self.world.checkers.broken(format!("a bundle does not hold: {}", check.name()));
            }
        };
        if let Some(id) = self.world.command(client.gateway, command) {
            self.clients.insert(id, client);
        }
    }

    /// Checks a bundle and deals, as the owner's own side does.
    pub(crate) fn dealt(
        &mut self,
        order: &PutOrder,
        bundle: &DealBundle,
        payload: &[u8],
        expected: Option<u64>,
    ) -> Dealt {
        let Some(pins) = self.pins.clone() else { return Dealt::Refused(Check::Forming) };
        let wall_ms = WALL_START_MS + self.world.now_ms;
        let verified = match BundleVerified::check(&Fake, &pins, wall_ms, order, bundle) {
            Ok(verified) => verified,
            Err(Check::EvidenceStale) => return Dealt::Again,
            Err(check) => return Dealt::Refused(check),
        };
        if let Some(Err(check)) = expected.map(|version| verified.check_version(version)) {
            return Dealt::Refused(check);
        }
        match verified.deal(&Fake, &mut self.generator, &pins, order, &SecretBytes::copy_of(payload)) {
            Ok(package) => {
                let (namespace, bytes) = head_to_sign(&package);
                let signature = Fake::sshsig_sign(&OWNER, namespace, bytes);
                Dealt::Store(LocalCommand::PutStore { package, signature, wait: Wait::Quorum })
            }
            Err(check) => Dealt::Refused(check),
        }
    }
}

//! Hosts that join in the middle of faults.

use spec::host::LocalCommand;

use crate::run::Run;
use crate::world::Answer;

impl Run {
    /// Starts the next of those that join late.
    pub(crate) fn start_late(&mut self) {
        let is_off = |number: &&usize| self.world.machines.get(**number).is_some_and(|one| one.incarnation == 0);
        if let Some(number) = self.tickets.keys().find(is_off).copied() {
            self.world.start(number);
            self.try_joins();
        }
    }

    /// Whoever was started and is no member yet asks to be let in, again where it was refused or restarted.
    pub(crate) fn try_joins(&mut self) {
        for (number, ticket) in self.tickets.clone() {
            let Some(machine) = self.world.machines.get(number) else { continue };
            let (incarnation, transport) = (machine.incarnation, machine.transport);
            let Some(running) = &machine.running else { continue };
            let is_member = running.host.records().member_by_transport(&transport).is_some();
            let is_asking = self.joining.get(&number).is_some_and(|(asked, _)| *asked == incarnation);
            if !is_member
                && !is_asking
                && let Some(id) = self.world.command(number, LocalCommand::Join { ticket, address: None })
            {
                self.joining.insert(number, (incarnation, id));
            }
        }
    }

    /// Whether this is the answer to somebody who joins late; whoever was refused asks again.
    pub(crate) fn joined(&mut self, answer: &Answer) -> bool {
        let before = self.joining.len();
        self.joining.retain(|_, (_, id)| *id != answer.id);
        before > self.joining.len()
    }
}

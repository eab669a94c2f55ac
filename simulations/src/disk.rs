//! A virtual disk: a write is durable as a whole or not at all, and only when its time has come. A crash forgets what
//! was not yet durable.

use std::collections::BTreeMap;

use spec::host::{Saved, Table, Write};

/// What survives a crash.
#[derive(Debug, Default, Clone)]
pub struct Disk {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl Disk {
    /// Makes writes durable.
    pub fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            let key = (write.table, write.key);
            match write.value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    /// One row.
    pub fn row(&self, table: Table, key: &[u8]) -> Option<&Vec<u8>> {
        self.rows.get(&(table, key.to_vec()))
    }

    /// Every row, for the checkers.
    pub fn rows(&self) -> impl Iterator<Item = (&(Table, Vec<u8>), &Vec<u8>)> {
        self.rows.iter()
    }

    /// What a starting host is given.
    pub fn saved(&self) -> Saved {
        let table = |wanted: Table| {
            self.rows.iter().filter(move |((table, _), _)| *table == wanted).map(|(_, value)| value.clone())
        };
        let with_keys = |wanted: Table| {
            let rows = self.rows.iter().filter(|((table, _), _)| *table == wanted);
            rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
        };
        Saved {
            membership: table(Table::Membership).next(),
            records: table(Table::Records).collect(),
            state: with_keys(Table::State),
            raft: table(Table::Raft).next(),
            forming: table(Table::Forming).next(),
            keys: with_keys(Table::Keys),
            tickets: with_keys(Table::Tickets),
            epoch: with_keys(Table::Epoch),
            shares: table(Table::Shares).collect(),
        }
    }
}

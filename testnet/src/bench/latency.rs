//! Whole commands, as a person or a script runs them, one after the other in turn: what is noise for one is noise for all.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::etcd::Etcd;
use super::{quantile, rounded};
use crate::command::Said;
use crate::mesh::{Mesh, TestnetError};

/// What is timed.
struct Series {
    name: &'static str,
    millis: Vec<f64>,
}

impl Series {
    fn new(name: &'static str) -> Self {
        Self { name, millis: Vec::new() }
    }

    fn time(&mut self, what: impl FnOnce() -> Result<Said, TestnetError>) -> Result<Said, TestnetError> {
        let since = Instant::now();
        let said = what()?.ok(self.name)?;
        self.millis.push(since.elapsed().as_secs_f64() * 1e3);
        Ok(said)
    }

    fn p50(&mut self) -> f64 {
        quantile(&mut self.millis, 0.5)
    }
}

/// Times `status` (the floor: a process, a socket, nothing else), a put of 1 KiB 2-of-3 and a linearizable read; where
/// etcd is there, its put and its linearizable get on three nodes.
pub(super) fn measure(mesh: &Mesh, requests: usize) -> Result<Map<String, Value>, TestnetError> {
    let host = mesh.founder()?;
    let rival = Etcd::start(&mesh.folder)?;
    let content = [0x5a; 1024];
    let all = ["status", "put", "read", "etcd put", "etcd linearizable get"].map(Series::new);
    let [mut floor, mut put, mut read, mut rival_put, mut rival_read] = all;
    // The first of each warms up what the others find warm.
    for number in 0..=requests {
        let name = format!("bench/{number}");
        floor.time(|| host.vouchsafe(&["-o", "json", "status"], b""))?;
        put.time(|| mesh.put(host, &name, &["-k", "2", "-n", "3", "--allow", "role:host"], &content))?;
        read.time(|| mesh.get(host, &name))?;
        if let Some(rival) = &rival {
            rival_put.time(|| rival.put(&name, &content))?;
            rival_read.time(|| rival.get(&name))?;
        }
    }
    let mut figures = Map::new();
    figures.insert("requests".to_owned(), json!(requests));
    let (floor_ms, rival_ms) = (floor.p50(), [rival_put.p50(), rival_read.p50()]);
    for (series, rival) in [(&mut put, rival_ms[0]), (&mut read, rival_ms[1])] {
        let p50 = series.p50();
        let mut one = Map::new();
        one.insert("p50_ms".to_owned(), rounded(p50));
        one.insert("p95_ms".to_owned(), rounded(quantile(&mut series.millis, 0.95)));
        one.insert("over_the_floor".to_owned(), rounded(p50 / floor_ms));
        if rival > 0.0 {
            one.insert("over_etcd".to_owned(), rounded(p50 / rival));
            one.insert("etcd_p50_ms".to_owned(), rounded(rival));
        }
        figures.insert(series.name.to_owned(), Value::Object(one));
    }
    figures.insert("floor_p50_ms".to_owned(), rounded(floor_ms));
    figures.insert("etcd".to_owned(), json!(rival.is_some()));
    Ok(figures)
}

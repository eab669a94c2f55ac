//! `vouchsafe evidence`: the newest quote as files that `tpm2_checkquote` reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use spec::types::Digest;

use super::{Context, Outcome, failure, field, shown};
use crate::api::{ErrorBody, FORMAT, unpack};

/// Writes quote.attest, quote.signature, ak.public, pcrs.serialized and qualifying.hex into a folder.
#[derive(Args)]
pub(super) struct WriteEvidence {
    /// The folder; made where it is not there.
    #[arg(long, default_value = ".")]
    out: PathBuf,
}

impl WriteEvidence {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let answer = context.daemon.get("/v1/evidence").await?;
        let odd = || failure("the daemon's evidence does not decode".to_owned());
        let part = |name: &str| unpack(field(&answer, name)).ok_or_else(odd);
        let ak = part("ak")?;
        let length = u16::try_from(ak.len()).map_err(|_| odd())?.to_be_bytes();
        let pcrs = pcrs_of(&answer).ok_or_else(odd)?;
        let qualifying = field(&answer, "qualifying").to_owned();
        std::fs::create_dir_all(&self.out)
            .map_err(|error| failure(format!("cannot make {}: {error}", self.out.display())))?;
        self.write("quote.attest", &part("attest")?)?;
        self.write("quote.signature", &part("signature")?)?;
        self.write("ak.public", &[length.as_slice(), &ak].concat())?;
        self.write("pcrs.serialized", &serialized(&pcrs))?;
        self.write("qualifying.hex", qualifying.as_bytes())?;
        let folder = self.out.display().to_string();
        let shown_answer = json!({
            "format": FORMAT, "folder": folder, "epoch": answer.get("epoch"), "qualifying": qualifying,
        });
        context.print(&shown_answer, |value| {
            format!(
                "wrote the evidence of epoch {epoch} to {folder}\ncheck it with:\n  cd {folder} && tpm2_checkquote -u \
                 ak.public -m quote.attest -s quote.signature -f pcrs.serialized -g sha256 -q \"$(cat \
                 qualifying.hex)\"\n",
                epoch = shown(value, "epoch"),
            )
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Box<ErrorBody>> {
        let path: PathBuf = Path::new(&self.out).join(name);
        std::fs::write(&path, bytes).map_err(|error| failure(format!("cannot write {}: {error}", path.display())))
    }
}

fn pcrs_of(answer: &Value) -> Option<BTreeMap<u8, Digest>> {
    let one = |(number, value): (&String, &Value)| Some((number.parse().ok()?, Digest::from_hex(value.as_str()?)?));
    answer.get("pcrs")?.as_object()?.iter().map(one).collect()
}

/// The *serialized* form of tpm2-tools: C structures as they lie in memory, little-endian. Its `values` form fails
/// beyond eight PCRs.
fn serialized(pcrs: &BTreeMap<u8, Digest>) -> Vec<u8> {
    const SHA256: u16 = 0x000b;
    const SELECTIONS: usize = 16;
    const DIGESTS_IN_LIST: usize = 8;
    const DIGEST_ROOM: usize = 64;
    let mut bitmap = [0_u8; 4];
    for number in pcrs.keys() {
        if let Some(byte) = bitmap.get_mut(usize::from(number / 8)) {
            *byte |= 1 << (number % 8);
        }
    }
    // TPML_PCR_SELECTION: count, then 16 of {hash: u16, size: u8, select: [u8; 4]} padded to 8 bytes.
    let mut out = 1_u32.to_le_bytes().to_vec();
    out.extend_from_slice(&SHA256.to_le_bytes());
    out.push(3);
    out.extend_from_slice(&bitmap);
    out.push(0);
    out.resize(4 + SELECTIONS * 8, 0);
    // The number of TPML_DIGESTs, then each: count, and 8 of {size: u16, buffer: [u8; 64]}.
    let values: Vec<&Digest> = pcrs.values().collect();
    let lists: Vec<&[&Digest]> = values.chunks(DIGESTS_IN_LIST).collect();
    out.extend_from_slice(&u32::try_from(lists.len()).unwrap_or(0).to_le_bytes());
    for list in lists {
        let start = out.len();
        out.extend_from_slice(&u32::try_from(list.len()).unwrap_or(0).to_le_bytes());
        for digest in list {
            out.extend_from_slice(&32_u16.to_le_bytes());
            out.extend_from_slice(&digest.0);
            out.resize(out.len() + DIGEST_ROOM - digest.0.len(), 0);
        }
        out.resize(start + 4 + DIGESTS_IN_LIST * (2 + DIGEST_ROOM), 0);
    }
    out
}

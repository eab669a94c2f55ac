//! A real TPM stack: swtpm with certificates from a local CA, libtss2, our owner thread; and our verifier on the other
//! side, which needs no TPM.

#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use spec::attest::chain::check_ek_certificate;
use spec::attest::policy::DEFAULT_PCRS;
use spec::attest::quote::QuoteVerified;
use spec::attest::tpm::{AkPublic, EkPublic};
use spec::error::Check;
use spec::host::{TpmReply, TpmRequest};
use spec::suite::{Generator, Real, Seed, Suite as _};
use spec::text::dearmour;
use spec::types::{Digest, SecretBytes};
use vouchsafe::tpm::{COMMAND_DEADLINE, ChipKeys, Opened, Tpm, TpmError};

struct Chip {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Chip {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Pairs of ports that this process has tried.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// A pair of free ports. Each process looks in a range of its own, below those that testnets use.
fn free_port() -> u16 {
    let own = 10_000 + u16::try_from(std::process::id() % 300).expect("small") * 30;
    std::iter::repeat_with(|| own + 2 * (TRIED.fetch_add(1, Ordering::Relaxed) % 15))
        .take(60)
        .find(|port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port + 1)).is_ok()
        })
        .expect("a free pair of ports")
}

impl Chip {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        write(
            path,
            "setup.conf",
            &format!(
                "create_certs_tool= /usr/bin/swtpm_localca\ncreate_certs_tool_config = {0}/localca.conf\n\
             create_certs_tool_options = {0}/localca.options\nactive_pcr_banks = sha256\n",
                path.display()
            ),
        );
        write(
            path,
            "localca.conf",
            &format!(
                "statedir = {0}/ca\nsigningkey = {0}/ca/signkey.pem\nissuercert = {0}/ca/issuercert.pem\n\
             certserial = {0}/ca/certserial\n",
                path.display()
            ),
        );
        write(path, "localca.options", "--platform-manufacturer Test\n--platform-version 1.0\n--platform-model test\n");
        for name in ["ca", "state"] {
            std::fs::create_dir(path.join(name)).expect("a folder");
        }
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256", "--tpmstate"])
            .arg(path.join("state"))
            .arg("--config")
            .arg(path.join("setup.conf"))
            .output()
            .expect("swtpm_setup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let port = free_port();
        let process = Self::power_on(path, port);
        Self { process, port, folder }
    }

    fn power_on(path: &Path, port: u16) -> Child {
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", path.join("state").display()))
            .args(["--server", &format!("type=tcp,port={port}"), "--ctrl", &format!("type=tcp,port={}", port + 1)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm");
        for _ in 0..400 {
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        process
    }

    fn tpm(&self) -> Tpm {
        Tpm::start(&format!("swtpm:host=127.0.0.1,port={}", self.port)).expect("the TPM opens")
    }

    fn roots(&self) -> Vec<Vec<u8>> {
        ["issuercert.pem", "swtpm-localca-rootca-cert.pem"].iter().map(|name| self.certificate(name)).collect()
    }

    fn certificate(&self, name: &str) -> Vec<u8> {
        let text = std::fs::read_to_string(self.folder.path().join("ca").join(name)).expect("the CA's certificate");
        dearmour("CERTIFICATE", &text).expect("PEM").0
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("a file");
}

fn auth() -> SecretBytes {
    SecretBytes::copy_of(&[9; 32])
}

async fn provisioned(tpm: &Tpm) -> (ChipKeys, Opened) {
    let keys = tpm.provision(auth()).await.expect("keys are made");
    let opened = tpm.open(keys.clone()).await.expect("what the chip sealed opens");
    tpm.use_ak(auth()).await.expect("the AK is usable");
    (keys, opened)
}

async fn quote(tpm: &Tpm, qualifying: Digest) -> spec::attest::quote::Quote {
    match tpm.ask(TpmRequest::Quote { pcrs: DEFAULT_PCRS.to_vec(), qualifying }).await {
        Ok(TpmReply::Quote(quote)) => quote,
        other => panic!("no quote: {other:?}"),
    }
}

#[tokio::test]
async fn a_quote_of_a_real_stack_holds_here_and_only_for_its_key_nonce_and_pcrs() {
    let chip = Chip::new();
    let tpm = chip.tpm();
    let (keys, _) = provisioned(&tpm).await;
    let ak = AkPublic::parse(&keys.ak_public).expect("the AK is one");
    let nonce = Digest([5; 32]);
    let good = quote(&tpm, nonce).await;
    assert!(QuoteVerified::check(&Real, &good, &ak, &nonce).is_ok());
    assert_eq!(QuoteVerified::check(&Real, &good, &ak, &Digest([6; 32])), Err(Check::Quote));
    let mut other = good.clone();
    other.pcrs.insert(7, Digest([1; 32]));
    assert_eq!(QuoteVerified::check(&Real, &other, &ak, &nonce), Err(Check::Quote));
    let mut forged = good.clone();
    let at = forged.signature.len() - 1;
    forged.signature[at] ^= 1;
    assert_eq!(QuoteVerified::check(&Real, &forged, &ak, &nonce), Err(Check::EvidenceSignature));
    let mut cut = good.clone();
    cut.attest.pop();
    assert_eq!(QuoteVerified::check(&Real, &cut, &ak, &nonce), Err(Check::Quote));
    let stranger = tpm.provision(auth()).await.expect("a second AK");
    let stranger = AkPublic::parse(&stranger.ak_public).expect("the AK is one");
    assert_eq!(QuoteVerified::check(&Real, &good, &stranger, &nonce), Err(Check::EvidenceSignature));
}

#[tokio::test]
async fn our_challenge_opens_in_the_right_chip_for_the_right_key_and_nowhere_else() {
    let (chip, other_chip) = (Chip::new(), Chip::new());
    let (tpm, other) = (chip.tpm(), other_chip.tpm());
    let (keys, opened) = provisioned(&tpm).await;
    provisioned(&other).await;
    let eks: Vec<EkPublic> = opened.eks.iter().map(|offer| EkPublic::parse(&offer.public).expect("an EK")).collect();
    assert_eq!(eks.len(), 2, "P-384 and RSA-2048");
    let mut generator = Generator::new(&Seed([3; 32].into()));
    let name = AkPublic::parse(&keys.ak_public).expect("the AK is one").name();
    let secret = SecretBytes::copy_of(&[0xc5; 32]);
    let blobs: Vec<_> =
        eks.iter().map(|ek| Real.make_credential(ek, &name, &secret, &mut generator).expect("a challenge")).collect();
    match tpm.ask(TpmRequest::Activate(blobs.clone())).await {
        Ok(TpmReply::Secrets(secrets)) => {
            assert_eq!(secrets.len(), 2);
            assert!(secrets.iter().all(|one| one.expose() == secret.expose()));
        }
        other => panic!("the right chip refused: {other:?}"),
    }
    assert!(other.ask(TpmRequest::Activate(blobs)).await.is_err(), "another chip opened the challenge");
    let mut wrong_name = name;
    wrong_name[10] ^= 1;
    let blobs: Vec<_> = eks
        .iter()
        .map(|ek| Real.make_credential(ek, &wrong_name, &secret, &mut generator).expect("a challenge"))
        .collect();
    assert!(tpm.ask(TpmRequest::Activate(blobs)).await.is_err(), "a challenge for another AK opened");
}

#[tokio::test]
async fn what_one_chip_sealed_opens_after_its_restart_and_in_no_other() {
    let (mut chip, other_chip) = (Chip::new(), Chip::new());
    let (keys, opened) = provisioned(&chip.tpm()).await;
    drop(chip.process.kill());
    drop(chip.process.wait());
    chip.process = Chip::power_on(chip.folder.path(), chip.port);
    let again = chip.tpm().open(keys.clone()).await.expect("it opens again");
    assert_eq!(again.tpm_bound.expose(), opened.tpm_bound.expose());
    assert_eq!(again.store_key.expose(), opened.store_key.expose());
    assert_ne!(opened.tpm_bound.expose(), opened.store_key.expose());
    assert!(other_chip.tpm().open(keys).await.is_err(), "another chip opened it");
}

#[tokio::test]
async fn a_chip_that_lost_power_again_and_again_still_quotes() {
    let mut chip = Chip::new();
    let (keys, _) = provisioned(&chip.tpm()).await;
    // Three such losses lock this chip up for what is under its protection against guessing.
    for _ in 0..6 {
        let tpm = chip.tpm();
        tpm.open(keys.clone()).await.expect("it opens again");
        tpm.use_ak(auth()).await.expect("the AK is usable");
        quote(&tpm, Digest([7; 32])).await;
        drop(chip.process.kill());
        drop(chip.process.wait());
        chip.process = Chip::power_on(chip.folder.path(), chip.port);
    }
}

#[tokio::test]
async fn an_ek_certificate_is_for_its_key_from_its_root_and_in_its_time() {
    let (chip, other_chip) = (Chip::new(), Chip::new());
    let (_, opened) = provisioned(&chip.tpm()).await;
    let roots = chip.roots();
    let now = vouchsafe::clock::now().wall_ms;
    let parsed = |i: usize| EkPublic::parse(&opened.eks[i].public).expect("an EK");
    for (i, offer) in opened.eks.iter().enumerate() {
        let check = |certificate: &[u8], intermediates: &[Vec<u8>], roots: &[Vec<u8>], at| {
            check_ek_certificate(&parsed(i), certificate, intermediates, roots, at)
        };
        assert_eq!(check(&offer.certificate, &[], &roots, now), Ok(()));
        assert_eq!(check(&offer.certificate, &roots[..1], &roots[1..], now), Ok(()), "over an intermediate");
        assert_eq!(check(&offer.certificate, &[], &roots[1..], now), Err(Check::EkUntrusted), "a gap in the chain");
        assert_eq!(check(&offer.certificate, &[], &other_chip.roots(), now), Err(Check::EkUntrusted));
        assert_eq!(check(&offer.certificate, &[], &roots, 1_000), Err(Check::EkUntrusted), "before its time");
        let padded = [offer.certificate.clone(), vec![0xff; 60]].concat();
        assert_eq!(check(&padded, &[], &roots, now), Ok(()), "padded in NV");
        let mut forged = offer.certificate.clone();
        let at = forged.len() - 1;
        forged[at] ^= 1;
        assert_eq!(check(&forged, &[], &roots, now), Err(Check::EkUntrusted));
        assert_eq!(check(&offer.certificate[..100], &[], &roots, now), Err(Check::EkCertificate));
        assert_eq!(check(&opened.eks[1 - i].certificate, &[], &roots, now), Err(Check::EkCertificate), "another key's");
    }
}

#[test]
fn a_chip_that_does_not_open_or_does_not_answer_is_given_up() {
    assert!(matches!(Tpm::start("swtpm:host=127.0.0.1,port=1"), Err(TpmError::Open(..))), "nothing listens there");
    let silently_wrong = Tpm::start("swtpm:path=/tmp/nowhere");
    assert!(silently_wrong.is_err(), "a path is read as localhost:2321 by the library");
    // It takes commands, and never answers one. The control channel has the next port.
    let (port, _wedged) = (0..100)
        .find_map(|_| {
            let chip = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
            let port = chip.local_addr().ok()?.port();
            Some((port, (chip, TcpListener::bind((Ipv4Addr::LOCALHOST, port.checked_add(1)?)).ok()?)))
        })
        .expect("two ports next to each other");
    let begun = Instant::now();
    let opened = Tpm::start(&format!("swtpm:host=127.0.0.1,port={port}"));
    assert!(matches!(opened, Err(TpmError::Wedged)), "{:?}", opened.err());
    assert!(begun.elapsed() < 2 * COMMAND_DEADLINE);
}

#[tokio::test]
async fn a_hundred_quotes_leave_no_handle_behind() {
    let chip = Chip::new();
    let tpm = chip.tpm();
    provisioned(&tpm).await;
    for round in 0..100_u8 {
        quote(&tpm, Digest([round; 32])).await;
    }
    tpm.provision(auth()).await.expect("the chip has object slots and sessions left");
}

/// Writes the quotes that `proto-spec/vectors/quote.json` holds, from a real stack: `VOUCHSAFE_WRITE_VECTORS=1`.
#[tokio::test]
async fn a_fresh_quote_passes_the_vectors_of_quotes() {
    use serde_json::json;
    let chip = Chip::new();
    let tpm = chip.tpm();
    let (keys, _) = provisioned(&tpm).await;
    let nonce = Digest([0x5a; 32]);
    let quote = quote(&tpm, nonce).await;
    let pcrs: Vec<(u8, String)> = quote.pcrs.iter().map(|(number, value)| (*number, value.to_string())).collect();
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let mut other_pcrs = pcrs.clone();
    other_pcrs[3].1 = Digest([1; 32]).to_string();
    let (ak, attest, signature) = (&keys.ak_public, &quote.attest, &quote.signature);
    let unrestricted = flipped(ak, 5); // the byte of the attributes that holds RESTRICTED
    let case = |about: &str,
                ak: &[u8],
                attest: &[u8],
                signature: &[u8],
                pcrs: &[(u8, String)],
                nonce: Digest,
                expect: &str| {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        json!({ "about": about, "ak": hex(ak), "attest": hex(attest), "signature": hex(signature),
                "pcrs": pcrs, "nonce": nonce.to_string(), "expect": expect })
    };
    let cases = [
        case("a quote of a software TPM", ak, attest, signature, &pcrs, nonce, "ok"),
        case("over another nonce", ak, attest, signature, &pcrs, Digest([0x5b; 32]), "quote"),
        case("beside it another PCR value", ak, attest, signature, &other_pcrs, nonce, "quote"),
        case("beside it a PCR less", ak, attest, signature, &pcrs[1..], nonce, "quote"),
        case("its clock changed", ak, &flipped(attest, 90), signature, &pcrs, nonce, "evidence-signature"),
        case("its signature changed", ak, attest, &flipped(signature, 20), &pcrs, nonce, "evidence-signature"),
        case("its signature says RSASSA", ak, attest, &flipped(signature, 1), &pcrs, nonce, "evidence-signature"),
        case("it does not begin as a TPM's statement", ak, &flipped(attest, 0), signature, &pcrs, nonce, "quote"),
        case("another kind of statement", ak, &flipped(attest, 5), signature, &pcrs, nonce, "quote"),
        case("a byte short", ak, &attest[..attest.len() - 1], signature, &pcrs, nonce, "quote"),
        case("a byte left over", ak, &[attest.clone(), vec![0]].concat(), signature, &pcrs, nonce, "quote"),
        case("by a key that is not restricted", &unrestricted, attest, signature, &pcrs, nonce, "ak-attributes"),
        case("by nothing", &[], attest, signature, &pcrs, nonce, "ak-attributes"),
    ];
    if std::env::var_os("VOUCHSAFE_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto-spec/vectors/quote.json");
        std::fs::write(path, format!("{:#}\n", serde_json::Value::from(cases.to_vec()))).expect("the vectors");
    }
    for case in cases {
        let good = case["expect"] == "ok";
        let ak = AkPublic::parse(&hex_of(&case, "ak"));
        let quote = spec::attest::quote::Quote {
            attest: hex_of(&case, "attest"),
            signature: hex_of(&case, "signature"),
            pcrs: case["pcrs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|pair| Some((u8::try_from(pair[0].as_u64()?).ok()?, Digest::from_hex(pair[1].as_str()?)?)))
                .collect(),
        };
        let nonce = Digest::from_hex(case["nonce"].as_str().expect("hex")).expect("a digest");
        let holds = ak.is_ok_and(|ak| QuoteVerified::check(&Real, &quote, &ak, &nonce).is_ok());
        assert_eq!(holds, good, "{}", case["about"]);
    }
}

fn hex_of(case: &serde_json::Value, name: &str) -> Vec<u8> {
    hex::decode(case[name].as_str().expect("hex")).expect("hex")
}

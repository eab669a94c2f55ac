//! The main job, shown to a person: put a credential in, lose machines, read it back, refuse who changed.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;

use crate::children;
use crate::command::{Said, binary, run as run_command};
use crate::mesh::{Cabling, Mesh, SETTLE, TestnetError, plans};

const NAME: &str = "web/tls-key";
/// Hosts of the mesh, all of which get a seat.
const HOSTS: usize = 5;

struct Show {
    since: Instant,
    step: Instant,
}

impl Show {
    fn heading(&mut self, text: &str) {
        println!("\n{}", bold(text));
        self.step = Instant::now();
    }

    fn line(&self, text: &str) {
        println!("  {:>6.1} s  {text}", self.since.elapsed().as_secs_f64());
    }

    fn done(&self, text: &str) {
        println!(
            "  {:>6.1} s  ✓ {text} ({:.0} ms)",
            self.since.elapsed().as_secs_f64(),
            self.step.elapsed().as_secs_f64() * 1e3
        );
    }
}

/// Runs the demo. Well only if every byte and every refusal was right.
///
/// # Errors
/// What was not right.
pub fn run(keep: bool, credential: Option<&Path>) -> Result<(), TestnetError> {
    let folder = PathBuf::from(format!("/tmp/vouchsafe-demo-{}", std::process::id()));
    let result = show(&folder, keep, credential);
    if let Err(error) = &result {
        eprintln!("\nthe demo failed: {error}\nlogs: {}", folder.display());
    } else if !keep {
        children::kill_all();
        drop(std::fs::remove_dir_all(&folder));
    }
    result
}

fn show(folder: &Path, keep: bool, credential: Option<&Path>) -> Result<(), TestnetError> {
    let mut show = Show { since: Instant::now(), step: Instant::now() };
    show.heading("1. Five hosts in five administrative domains and three regions, and one instance, each with a TPM");
    let mesh = Mesh::start(folder, plans(HOSTS, HOSTS, 3), Cabling::Loopback, &mut |step| show.line(step))?;
    show.done("every machine is a real process with a real software TPM and a store of its own");

    show.heading("2. Found a mesh and enrol everybody");
    mesh.enrol_all(&mut |step| show.line(step))?;
    // While the committee grows it has four seats for a moment, and of four no two may die.
    mesh.wait_committee(HOSTS, SETTLE)?;
    show.done("every TPM proved its endorsement key, its attestation key and its measurements; all five hosts vote");
    print_indented(&mesh.founder()?.vouchsafe(&["hosts"], b"")?.ok("vouchsafe hosts")?.text());

    show.heading("3. Put a credential, split 3-of-5: no coordinator and no single domain can read it");
    let content = content(folder, credential)?;
    let put =
        mesh.put(mesh.founder()?, NAME, &["-k", "3", "-n", "5", "--wait", "complete"], &content)?.ok("put")?.json();
    let names = |key: &str| -> Vec<String> {
        put.get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let holders = names("holders");
    show.done(&format!("{} bytes as {NAME}, shares 1 to 5 on {}", content.len(), holders.join(", ")));
    lose_and_read(mesh, &mut show, &content, &holders, keep)
}

fn lose_and_read(
    mut mesh: Mesh,
    show: &mut Show,
    content: &[u8],
    holders: &[String],
    keep: bool,
) -> Result<(), TestnetError> {
    show.heading("4. Read it on the instance");
    expect(&mesh, content)?;
    show.done("byte-equal");

    // The first host stays, since the commands of this demo go through it; any two others leave a majority.
    let founder = mesh.founder()?.plan.name.clone();
    let victims: Vec<String> = holders.iter().filter(|holder| **holder != founder).take(3).cloned().collect();
    let [first, second, third] = victims.as_slice() else {
        return Err(TestnetError::NotThere("fewer than three holders beside the first host".to_owned()));
    };
    show.heading("5. Two of the five holders die (kill -9)");
    mesh.machine_mut(first)?.kill_daemon();
    mesh.machine_mut(second)?.kill_daemon();
    expect(&mesh, content)?;
    show.done(&format!("{first} and {second} are gone: still byte-equal"));

    show.heading("6. A third dies");
    mesh.machine_mut(third)?.kill_daemon();
    let refused = get(&mesh)?;
    print_indented(&refused.err);
    wrong_unless(refused.code == 5 && refused.out.is_empty(), &format!("exit code {}, not 5", refused.code))?;
    show.done("two shares give nothing, and two of five voters do not lead: exit code 5");

    show.heading("7. One comes back, and nobody types a key");
    mesh.machine_mut(third)?.start_daemon()?;
    let machine = mesh.machine(third)?;
    machine.wait_ready()?;
    mesh.wait_serving(machine)?;
    expect(&mesh, content)?;
    show.done(&format!("{third} serves again: byte-equal"));

    show.heading("8. The instance's measurements change (PCR 14 is extended)");
    mesh.reader()?.extend_pcr(14)?;
    let since = Instant::now();
    let refused = loop {
        let said = get(&mesh)?;
        if said.code != 0 {
            break said;
        }
        // Two epochs and the time of a quote.
        let patience = 3 * std::time::Duration::from_millis(crate::mesh::EPOCH_MS);
        wrong_unless(since.elapsed() < patience, "it is still given the credential after two epochs")?;
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    print_indented(&refused.err);
    wrong_unless(refused.code == 4 && refused.out.is_empty(), &format!("exit code {}, not 4", refused.code))?;
    show.done("refused by name within two epochs: exit code 4");
    let right = bold("Every byte and every refusal was right.");
    println!("\n{right}  {:.1} s in all", show.since.elapsed().as_secs_f64());
    if keep { hand_over(mesh, show) } else { Ok(()) }
}

/// Mends what the demo broke, so that every command that is printed works.
fn hand_over(mut mesh: Mesh, show: &mut Show) -> Result<(), TestnetError> {
    show.heading("9. The instance reboots into what it was, the dead hosts start: the mesh is yours");
    let instance = mesh.machine_mut("web1")?;
    instance.kill_daemon();
    instance.kill_chip();
    instance.start_chip()?;
    mesh.revive()?;
    show.done("all six stand");
    mesh.leave_running()?;
    say_how_to_play(&mesh);
    Ok(())
}

/// Bold where a person looks at it.
fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

fn get(mesh: &Mesh) -> Result<Said, TestnetError> {
    mesh.get(mesh.reader()?, NAME)
}

fn expect(mesh: &Mesh, content: &[u8]) -> Result<(), TestnetError> {
    let read = get(mesh)?.ok("vouchsafe get")?;
    wrong_unless(read.out == content, "the credential reads back as something else")
}

fn wrong_unless(holds: bool, what: &str) -> Result<(), TestnetError> {
    if holds { Ok(()) } else { Err(TestnetError::Wrong(what.to_owned())) }
}

fn print_indented(text: &str) {
    for line in text.lines() {
        println!("           {line}");
    }
}

/// The file that was named, or a fresh TLS key.
fn content(folder: &Path, credential: Option<&Path>) -> Result<Vec<u8>, TestnetError> {
    if let Some(path) = credential {
        return std::fs::read(path).map_err(|error| TestnetError::File(path.to_owned(), error));
    }
    let path = folder.join("tls.key");
    run_command(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&path),
        b"",
    )?
    .ok("openssl genpkey")?;
    std::fs::read(&path).map_err(|error| TestnetError::File(path, error))
}

/// Commands for a mesh that was left running.
pub fn say_how_to_play(mesh: &Mesh) {
    let vouchsafe = binary("vouchsafe").display().to_string();
    let testnet = binary("testnet").display().to_string();
    let folder = mesh.folder.display();
    println!("\nThe mesh runs in {folder}. To play with it:\n");
    println!("  v() {{ local host=$1; shift; {vouchsafe} --config {folder}/$host/config.toml \"$@\"; }}");
    println!("  v host1 hosts");
    println!("  v host1 status");
    println!("  echo hunter2 | v host2 put db/password --key {folder}/owner --allow instance:web1");
    println!("  v web1 get db/password --client {folder}/owner.pub --reveal");
    println!("  v host1 show db/password");
    println!("  {testnet} down --folder {folder}");
}

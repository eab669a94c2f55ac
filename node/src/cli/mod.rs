//! The command line: one file per command. Small explicit keys, pipes, no secret in an argument.

mod allow;
mod beacon;
mod evidence;
mod get;
mod hosts;
mod init;
mod invite;
mod join;
mod leave;
mod ls;
mod owner;
mod put;
mod rm;
mod show;
mod status;
mod successor;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::api::client::Daemon;
use crate::api::{ErrorBody, FORMAT};
use crate::config::{self, Config};

/// Keeps credentials in a mesh of attested hosts and gives them to machines that prove what they run.
#[derive(Parser)]
#[command(name = "vouchsafe", version, propagate_version = true, after_help = EXIT_CODES)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, env = "VOUCHSAFE_CONFIG", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The daemon's socket, where the configuration does not say.
    #[arg(long, global = true, env = "VOUCHSAFE_SOCKET")]
    socket: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Text)]
    output: Form,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok · 1 failure · 2 usage · 3 not found · 4 refused · \
5 too few holders or no leader (try again) · 6 own daemon unreachable · 7 recorded, not yet certain";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Text,
    /// For programs: one object with `"format": 1`.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Begin a mesh; this host gathers its founders.
    Init(init::Init),
    /// Write a ticket that lets one machine join.
    Invite(invite::Invite),
    /// Join a mesh with a ticket.
    Join(join::Join),
    /// Leave the mesh.
    Leave(leave::Leave),
    /// Run the daemon.
    Daemon,
    /// Put a credential into the mesh.
    Put(put::Put),
    /// Read a credential.
    Get(get::Get),
    /// Remove a credential.
    Rm(rm::Remove),
    /// Allow more to read a credential.
    Grant(allow::Rules),
    /// Allow some no more to read a credential.
    Revoke(allow::Rules),
    /// Hand a credential over to another key.
    Successor(successor::HandOver),
    /// List the credentials.
    Ls,
    /// Show one credential.
    Show(show::Show),
    /// List the members of the mesh.
    Hosts,
    /// Say how this host is.
    Status,
    /// Write a beacon in drand's JSON: the newest, or that of a round.
    Beacon(beacon::ShowBeacon),
    /// Write this host's newest evidence as files that `tpm2_checkquote` reads.
    Evidence(evidence::WriteEvidence),
}

/// What a command may use.
struct Context {
    daemon: Daemon,
    config: Config,
    form: Form,
}

type Outcome = Result<(), Box<ErrorBody>>;

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse_arguments(&error),
    };
    let form = arguments.output;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error, form);
            ExitCode::from(exit_code(&error.code))
        }
    }
}

/// Help and version go to standard output; what does not parse is usage, for programs as an object too.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    let asked_for = !error.use_stderr();
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let json = words.iter().any(|word| matches!(word.as_str(), "-ojson" | "-o=json" | "--output=json"))
        || words
            .windows(2)
            .any(|pair| matches!(pair, [flag, form] if (flag == "-o" || flag == "--output") && form == "json"));
    if json && !asked_for {
        report(&usage(error.to_string()), Form::Json);
    } else if error.print().is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(if asked_for { 0 } else { 2 })
}

/// Writes to standard output. A reader that went away has what it wanted.
fn say(text: &str) -> Outcome {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(failure(format!("cannot write: {error}"))),
        _ => Ok(()),
    }
}

/// A core would hold shares, credentials and keys. The limit is not asked where a program takes cores from a pipe.
fn refuse_cores() -> std::io::Result<()> {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn run(arguments: Arguments) -> Outcome {
    refuse_cores().map_err(|error| failure(format!("cores cannot be refused: {error}")))?;
    let config = Config::read_or_default(&arguments.config).map_err(|error| usage(error.to_string()))?;
    let socket = arguments.socket.unwrap_or_else(|| config.socket.clone());
    if matches!(arguments.command, Command::Daemon) {
        start_log();
        return crate::daemon::run(Config { socket, ..config }).map_err(|error| failure(error.to_string()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(format!("cannot start: {error}")))?;
    let context = Context { daemon: Daemon::at(&socket), config, form: arguments.output };
    runtime.block_on(async {
        match arguments.command {
            Command::Init(command) => command.run(&context).await,
            Command::Invite(command) => command.run(&context).await,
            Command::Join(command) => command.run(&context).await,
            Command::Leave(command) => command.run(&context).await,
            Command::Put(command) => command.run(&context).await,
            Command::Get(command) => command.run(&context).await,
            Command::Rm(command) => command.run(&context).await,
            Command::Grant(rules) => rules.grant(&context).await,
            Command::Revoke(rules) => rules.revoke(&context).await,
            Command::Successor(command) => command.run(&context).await,
            Command::Ls => ls::run(&context).await,
            Command::Show(command) => command.run(&context).await,
            Command::Hosts => hosts::run(&context).await,
            Command::Status => status::run(&context).await,
            Command::Beacon(command) => command.run(&context).await,
            Command::Evidence(command) => command.run(&context).await,
            Command::Daemon => Ok(()),
        }
    })
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("VOUCHSAFE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,libp2p=error,yamux=off,sled=warn"));
    // Where nobody reads the log any more it goes on without: the library would complain to the same closed end, and panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    log.with_target(false).init();
}

fn report(error: &ErrorBody, form: Form) {
    match form {
        // What cannot be written cannot be reported either: the exit code says it.
        Form::Json => drop(say(&format!("{}\n", json!({ "format": FORMAT, "error": error })))),
        Form::Text => {
            let hint = error.hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
            let id = error.refusal_id.as_ref().map(|id| format!("  refusal id: {id}\n")).unwrap_or_default();
            let text = format!("vouchsafe: {}\n{hint}{id}", printable(&error.message));
            drop(std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes()));
        }
    }
}

fn exit_code(code: &str) -> u8 {
    match code {
        "usage" => 2,
        "not_found" => 3,
        "refused" => 4,
        "too_few_holders" | "no_leader" | "not_ready" => 5,
        "unreachable" => 6,
        "not_certain" => 7,
        _ => 1,
    }
}

fn usage(message: String) -> Box<ErrorBody> {
    ErrorBody::plain("usage", message, Some("see `vouchsafe help`"))
}

fn failure(message: String) -> Box<ErrorBody> {
    ErrorBody::plain("local", message, None)
}

impl Context {
    /// Prints an answer: the object itself, or what `text` makes of it.
    fn print(&self, value: &Value, text: impl FnOnce(&Value) -> String) -> Outcome {
        match self.form {
            Form::Json => say(&format!("{value}\n")),
            Form::Text => say(&text(value)),
        }
    }

    /// The recorded credential of this name, of this owner if one is named.
    async fn find(&self, name: &str, client: Option<&str>) -> Result<Value, Box<ErrorBody>> {
        let all = self.daemon.get("/v1/credentials").await?;
        let fits =
            |one: &&Value| field(one, "name") == name && client.is_none_or(|client| field(one, "client") == client);
        let found: Vec<&Value> =
            all.get("credentials").and_then(Value::as_array).into_iter().flatten().filter(fits).collect();
        match found.as_slice() {
            [] => Err(ErrorBody::plain("not_found", format!("no credential `{name}`"), Some("see `vouchsafe ls`"))),
            [one] => Ok((*one).clone()),
            _ => Err(usage(format!("`{name}` has several owners: name one with --client KEY.pub"))),
        }
    }
}

/// A text field of an answer.
fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What others wrote, as a terminal may show it: an address or a recipient may hold what would rewrite the screen.
fn printable(text: &str) -> String {
    let shown = |one: char| if one.is_control() { one.escape_default().to_string() } else { one.to_string() };
    text.chars().map(shown).collect()
}

/// A field of an answer as text, whatever its kind.
fn shown(value: &Value, name: &str) -> String {
    match value.get(name) {
        Some(Value::String(text)) => printable(text),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

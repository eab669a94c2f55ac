//! The daemon's side of the local socket. A group bit on the socket lets people ask; founding, joining and leaving are for
//! root and the daemon's own user.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path as PathOf, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use spec::error::Failure;
use spec::host::{LocalCommand, LocalReply};
use spec::limits::{HEAD_MAX, MESSAGE_MAX, TICKET_MAX};
use spec::relay::Wait;
use spec::ticket::SignedTicket;
use spec::types::{CredentialId, GroupId, HostId, Round};
use spec::wire::{self, Address, Entrusting};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::places::{self, BODY_MAX, Peer};
use super::{
    ErrorBody, FORMAT, beacon_json, chain_json, credential_json, host_json, pack, shown_json, status_json, unpack,
};
use crate::driver::LocalRequest;

/// Group of the socket where nothing else is said.
const DEFAULT_GROUP: &str = "vouchsafe";

#[derive(Clone)]
struct Door {
    requests: mpsc::Sender<LocalRequest>,
}

/// Makes the socket.
///
/// # Errors
/// Where the socket cannot be made.
pub fn bind(path: &Path, group: Option<&str>) -> std::io::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        std::fs::create_dir_all(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    }
    // One that lives is not robbed of its socket: its clients would ask another daemon, of another mesh, and not know.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another daemon answers there"));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Until here the umask keeps everybody else out.
    if let Some(group) = group_of(group)? {
        std::os::unix::fs::chown(path, None, Some(group))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves until the daemon ends.
pub async fn serve(listener: &UnixListener, requests: mpsc::Sender<LocalRequest>) {
    let routes = Router::new()
        .route("/v1/identity", get(identity))
        .route("/v1/status", get(status))
        .route("/v1/hosts", get(hosts))
        .route("/v1/beacon/info", get(beacon_info))
        .route("/v1/beacon/latest", get(beacon_latest))
        .route("/v1/beacon/{round}", get(beacon_of))
        .route("/v1/credentials", get(list))
        .route("/v1/credentials/{id}", get(show))
        .route("/v1/credentials/{id}/head", get(newest).post(change))
        .route("/v1/credentials/{id}/map", get(owner_map))
        .route("/v1/credentials/{id}/secret", get(read))
        .route("/v1/evidence", get(evidence))
        .route("/v1/found", post(found))
        .route("/v1/join", post(join))
        .route("/v1/leave", post(leave))
        .route("/v1/puts/begin", post(put_begin))
        .route("/v1/puts/entrust", post(entrust))
        .route("/v1/puts/store", post(put_store))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(axum::middleware::from_fn(places::hear_out))
        .with_state(Door { requests });
    places::serve(listener, &routes).await;
}

/// The number of the socket's group. One that was named must be there; the usual one may be missing.
fn group_of(name: Option<&str>) -> std::io::Result<Option<u32>> {
    let wanted = name.unwrap_or(DEFAULT_GROUP);
    let groups = std::fs::read_to_string("/etc/group")?;
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted)).then(|| fields.nth(1).and_then(|number| number.parse().ok())).flatten()
    });
    match (number, name) {
        (None, Some(name)) => Err(std::io::Error::other(format!("no group `{name}`"))),
        (number, _) => Ok(number),
    }
}

impl Door {
    /// The host's answer.
    async fn answer_to(&self, command: LocalCommand) -> Result<LocalReply, Failure> {
        let (answer, wait) = oneshot::channel();
        let gone = || Failure::Local("the daemon is ending");
        let request = LocalRequest { command, answer, place: places::own() };
        self.requests.send(request).await.map_err(|_| gone())?;
        wait.await.unwrap_or_else(|_| Err(gone()))
    }

    async fn ask(&self, command: LocalCommand) -> Result<LocalReply, Refusal> {
        match self.answer_to(command).await {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.failure(&failure).await),
        }
    }

    /// People's names for hosts.
    async fn names(&self, hosts: &[HostId]) -> Result<Vec<String>, Refusal> {
        let LocalReply::Hosts(lines) = self.ask(LocalCommand::Hosts).await? else { return Err(odd()) };
        let name = |host: &HostId| {
            let line = lines.iter().find(|line| line.record.host == *host);
            line.map_or_else(|| host.to_string(), |line| line.record.name.clone())
        };
        Ok(hosts.iter().map(name).collect())
    }

    /// The answer to a failed request: with people's names for hosts.
    async fn failure(&self, failure: &Failure) -> Refusal {
        let mut names = std::collections::BTreeMap::new();
        if let Ok(LocalReply::Hosts(lines)) = self.answer_to(LocalCommand::Hosts).await {
            names = lines.into_iter().map(|line| (line.record.host, line.record.name)).collect();
        }
        let status = match failure {
            Failure::Refused(_) => StatusCode::FORBIDDEN,
            Failure::NotFound => StatusCode::NOT_FOUND,
            Failure::TooFewHolders { .. } | Failure::NoLeader | Failure::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Membership(_) => StatusCode::CONFLICT,
            Failure::Local(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        error(status, &ErrorBody::of(failure, &names))
    }
}

/// An error's answer, behind a pointer: the way of success stays small.
struct Refusal(Box<Response>);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

fn error(status: StatusCode, body: &ErrorBody) -> Refusal {
    Refusal(Box::new((status, Json(json!({ "format": FORMAT, "error": body }))).into_response()))
}

fn usage(what: &str) -> Refusal {
    error(StatusCode::BAD_REQUEST, &ErrorBody::plain("usage", format!("the request's {what} does not parse"), None))
}

/// An answer of another kind than the request has: a fault of this daemon.
fn odd() -> Refusal {
    let body = ErrorBody::plain("local", "the daemon gave an answer of another kind".to_owned(), None);
    error(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

type Answer = Result<Response, Refusal>;

fn ok(value: Value) -> Answer {
    Ok(Json(value).into_response())
}

async fn identity(State(door): State<Door>) -> Answer {
    match door.ask(LocalCommand::Identity).await? {
        LocalReply::Identity(own) => ok(json!({
            "format": FORMAT,
            "transport": own.transport.to_string(),
            "pins": own.pins.map(|pins| pack(&wire::encode(&pins))),
            "contacts": pack(&wire::encode(&own.contacts)),
            "genesis": own.genesis.map(|genesis| pack(&wire::encode(genesis.as_ref()))),
            "ek_hashes": own.ek_hashes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        _ => Err(odd()),
    }
}

async fn beacon_latest(State(door): State<Door>) -> Answer {
    beacon(&door, None).await
}

async fn beacon_of(State(door): State<Door>, PathOf(round): PathOf<u64>) -> Answer {
    beacon(&door, Some(Round(round))).await
}

async fn beacon(door: &Door, round: Option<Round>) -> Answer {
    match door.ask(LocalCommand::Beacon(round)).await? {
        LocalReply::Beacon(beacon) => ok(beacon_json(&beacon)),
        _ => Err(odd()),
    }
}

async fn beacon_info(State(door): State<Door>) -> Answer {
    match door.ask(LocalCommand::Identity).await? {
        LocalReply::Identity(own) => match (own.pins, own.genesis) {
            (Some(pins), Some(genesis)) if pins.key.is_some() => match chain_json(&pins, &genesis) {
                Some(chain) => ok(chain),
                None => {
                    let why = "the epochs of this testnet are no whole seconds, as those of drand's chains are";
                    Err(door.failure(&Failure::Local(why)).await)
                }
            },
            _ => Err(door.failure(&Failure::Membership("there is no mesh key yet")).await),
        },
        _ => Err(odd()),
    }
}

async fn status(State(door): State<Door>) -> Answer {
    let (status, own) = (door.ask(LocalCommand::Status).await?, door.ask(LocalCommand::Identity).await?);
    let (LocalReply::Status(status), LocalReply::Identity(own)) = (status, own) else { return Err(odd()) };
    let mut answer = status_json(&status);
    if let Value::Object(fields) = &mut answer {
        let eks: Vec<String> = own.ek_hashes.iter().map(ToString::to_string).collect();
        fields.insert("ek_hashes".to_owned(), json!(eks));
    }
    ok(answer)
}

async fn hosts(State(door): State<Door>) -> Answer {
    match door.ask(LocalCommand::Hosts).await? {
        LocalReply::Hosts(lines) => {
            ok(json!({ "format": FORMAT, "hosts": lines.iter().map(host_json).collect::<Vec<_>>() }))
        }
        _ => Err(odd()),
    }
}

async fn list(State(door): State<Door>) -> Answer {
    match door.ask(LocalCommand::List).await? {
        LocalReply::List(all) => {
            let there = all.iter().filter(|one| one.is_there()).map(credential_json);
            ok(json!({ "format": FORMAT, "credentials": there.collect::<Vec<_>>() }))
        }
        _ => Err(odd()),
    }
}

fn credential_of(id: &str) -> Result<CredentialId, Refusal> {
    CredentialId::from_hex(id).ok_or_else(|| usage("credential id"))
}

async fn show(State(door): State<Door>, PathOf(id): PathOf<String>) -> Answer {
    match door.ask(LocalCommand::Show(credential_of(&id)?)).await? {
        LocalReply::Show { credential, group } => ok(shown_json(&credential, &group)),
        _ => Err(odd()),
    }
}

async fn newest(State(door): State<Door>, PathOf(id): PathOf<String>) -> Answer {
    match door.ask(LocalCommand::Newest(credential_of(&id)?)).await? {
        LocalReply::Head(head) => ok(json!({ "format": FORMAT, "head": pack(&wire::encode(head.as_ref())) })),
        _ => Err(odd()),
    }
}

#[derive(Deserialize)]
struct ChangeBody {
    head: String,
}

async fn change(State(door): State<Door>, PathOf(id): PathOf<String>, Json(body): Json<ChangeBody>) -> Answer {
    let wanted = credential_of(&id)?;
    match door.ask(LocalCommand::Change(unpacked(&body.head, "head")?)).await? {
        LocalReply::Changed { id, number, version, record, certain, missing } if id == wanted => ok(json!({
            "format": FORMAT,
            "id": id.to_string(),
            "number": number,
            "version": version,
            "record": record,
            "certain": certain,
            "missing": door.names(&missing).await?,
        })),
        _ => Err(odd()),
    }
}

async fn owner_map(State(door): State<Door>, PathOf(id): PathOf<String>) -> Answer {
    match door.ask(LocalCommand::OwnerMap(credential_of(&id)?)).await? {
        LocalReply::OwnerMap(file) => Ok(octets(file)),
        _ => Err(odd()),
    }
}

/// The credential's bytes as they are: a secret never becomes a JSON text on its way.
async fn read(State(door): State<Door>, PathOf(id): PathOf<String>) -> Answer {
    match door.ask(LocalCommand::Get(credential_of(&id)?)).await? {
        LocalReply::Secret(secret) => Ok(octets(secret.expose().to_vec())),
        _ => Err(odd()),
    }
}

fn octets(bytes: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/octet-stream")], Bytes::from(bytes)).into_response()
}

async fn evidence(State(door): State<Door>) -> Answer {
    match door.ask(LocalCommand::Evidence).await? {
        LocalReply::Evidence { evidence, qualifying, ak } => {
            let quote = &evidence.evidence.quote;
            let pcrs: serde_json::Map<String, Value> =
                quote.pcrs.iter().map(|(number, value)| (number.to_string(), json!(value.to_string()))).collect();
            ok(json!({
                "format": FORMAT,
                "epoch": evidence.evidence.round.0,
                "host": evidence.evidence.host.to_string(),
                "qualifying": qualifying.to_string(),
                "ak": pack(&ak),
                "attest": pack(&quote.attest),
                "signature": pack(&quote.signature),
                "pcrs": pcrs,
            }))
        }
        _ => Err(odd()),
    }
}

fn admin(peer: Peer) -> Result<(), Refusal> {
    if peer.is_admin() {
        return Ok(());
    }
    let message = "founding, joining and leaving are for root and the daemon's own user".to_owned();
    Err(error(StatusCode::FORBIDDEN, &ErrorBody::plain("refused", message, Some("run it with sudo"))))
}

#[derive(Deserialize)]
struct FoundBody {
    genesis: String,
    ticket: String,
}

fn ticket_of(text: &str) -> Result<SignedTicket, Refusal> {
    SignedTicket::from_text(text).filter(|_| text.len() <= TICKET_MAX).ok_or_else(|| usage("ticket"))
}

async fn found(State(door): State<Door>, ConnectInfo(peer): ConnectInfo<Peer>, Json(body): Json<FoundBody>) -> Answer {
    admin(peer)?;
    let genesis = unpacked(&body.genesis, "genesis")?;
    joined(door.ask(LocalCommand::Found { genesis, ticket: ticket_of(&body.ticket)? }).await?)
}

#[derive(Deserialize)]
struct JoinBody {
    ticket: String,
    address: Option<String>,
}

async fn join(State(door): State<Door>, ConnectInfo(peer): ConnectInfo<Peer>, Json(body): Json<JoinBody>) -> Answer {
    admin(peer)?;
    let command = LocalCommand::Join { ticket: ticket_of(&body.ticket)?, address: body.address.map(Address) };
    joined(door.ask(command).await?)
}

async fn leave(State(door): State<Door>, ConnectInfo(peer): ConnectInfo<Peer>) -> Answer {
    admin(peer)?;
    match door.ask(LocalCommand::Leave).await? {
        LocalReply::Leaving => ok(json!({ "format": FORMAT, "leaving": true })),
        _ => Err(odd()),
    }
}

fn joined(reply: LocalReply) -> Answer {
    match reply {
        LocalReply::Joined(status) => ok(status_json(&status)),
        _ => Err(odd()),
    }
}

/// Decodes a wire value out of base64.
fn unpacked<T: serde::Serialize + serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, Refusal> {
    let bytes = unpack(text).ok_or_else(|| usage(what))?;
    wire::decode(&bytes, MESSAGE_MAX).map_err(|_| usage(what))
}

#[derive(Deserialize)]
struct BeginBody {
    order: String,
}

async fn put_begin(State(door): State<Door>, Json(body): Json<BeginBody>) -> Answer {
    match door.ask(LocalCommand::PutBegin(unpacked(&body.order, "order")?)).await? {
        LocalReply::Bundle(bundle) => ok(json!({ "format": FORMAT, "bundle": pack(&wire::encode(bundle.as_ref())) })),
        _ => Err(odd()),
    }
}

#[derive(Deserialize)]
struct EntrustBody {
    order: String,
    group: String,
    round: u64,
    sealed: String,
}

async fn entrust(State(door): State<Door>, Json(body): Json<EntrustBody>) -> Answer {
    let entrusting = Entrusting {
        order: unpacked(&body.order, "order")?,
        group: GroupId::from_hex(&body.group).ok_or_else(|| usage("group"))?,
        round: Round(body.round),
        sealed: unpack(&body.sealed).ok_or_else(|| usage("credential"))?,
    };
    match door.ask(LocalCommand::Entrust(entrusting)).await? {
        LocalReply::Package(package) => {
            ok(json!({ "format": FORMAT, "package": pack(&wire::encode(package.as_ref())) }))
        }
        _ => Err(odd()),
    }
}

#[derive(Deserialize)]
struct StoreBody {
    package: String,
    signature: String,
    complete: bool,
}

async fn put_store(State(door): State<Door>, Json(body): Json<StoreBody>) -> Answer {
    let package: wire::Package = unpacked(&body.package, "package")?;
    if package.head.len() > HEAD_MAX {
        return Err(usage("package"));
    }
    let wait = if body.complete { Wait::Complete } else { Wait::Quorum };
    match door.ask(LocalCommand::PutStore { package, signature: body.signature, wait }).await? {
        LocalReply::Stored { id, version, record, group, holders, missing, margin } => ok(json!({
            "format": FORMAT,
            "id": id.to_string(),
            "version": version,
            "record": record,
            "group": group.to_string(),
            "holders": door.names(&holders).await?,
            "missing": door.names(&missing).await?,
            "margin": margin,
        })),
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_lives_keeps_its_socket_and_what_a_dead_one_left_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("api.sock");
        let living = bind(&path, None).expect("a socket");
        assert_eq!(bind(&path, None).map(drop).map_err(|error| error.kind()), Err(std::io::ErrorKind::AddrInUse));
        drop(living);
        assert!(path.exists());
        bind(&path, None).expect("nobody answers there");
    }
}

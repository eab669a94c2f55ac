//! Who gets a place at the local socket: so many at once, of which root is always left some, and nobody who says nothing
//! keeps one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at once: as many as requests may be open.
const PLACES: usize = spec::limits::REQUESTS_OPEN_MAX;
/// Of these for root and the daemon's own user alone.
const PLACES_OF_ADMIN: usize = 16;
/// A request's head takes at most so long, and so does its body; a client of ours sends both at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest body: a package of the largest message in base64, with its signature.
pub(super) const BODY_MAX: usize = spec::limits::MESSAGE_MAX / 3 * 4 + 64 * 1024;
/// After a failure to accept, as for want of open files; and between two words that the socket is full.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    uid: Option<u32>,
}

impl Peer {
    fn of(stream: &UnixStream) -> Self {
        Self { uid: stream.peer_cred().ok().map(|credentials| credentials.uid()) }
    }

    /// Root, or the daemon's own user.
    pub(super) fn is_admin(self) -> bool {
        let own = rustix::process::getuid().as_raw();
        self.uid.is_some_and(|uid| uid == 0 || uid == own)
    }
}

/// Serves these routes until the daemon ends.
pub(super) async fn serve(listener: &UnixListener, routes: &Router) {
    let places = Arc::new(Semaphore::new(PLACES));
    let mut told = None;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the local socket takes no connection for a moment");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let peer = Peer::of(&stream);
        match place(&places, peer) {
            Some(place) => drop(tokio::spawn(converse(stream, routes.clone(), peer, place))),
            // Seldom: whoever fills it could fill the log as well.
            None if told.is_none_or(|told: Instant| told.elapsed() > PAUSE) => {
                told = Some(Instant::now());
                tracing::warn!(uid = ?peer.uid, "the local socket is full: a connection was closed");
            }
            None => {}
        }
    }
}

fn place(places: &Arc<Semaphore>, peer: Peer) -> Option<OwnedSemaphorePermit> {
    let is_open = peer.is_admin() || places.available_permits() > PLACES_OF_ADMIN;
    places.clone().try_acquire_owned().ok().filter(|_| is_open)
}

/// Hears a request out before anything is made of it: one whose body does not come loses its place.
pub(super) async fn hear_out(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, [(header::CONNECTION, "close")]).into_response(),
    }
}

/// A place, for as long as somebody has it.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

tokio::task_local! {
    static PLACE: Place;
}

/// The place of the connection that is served. What it asked for is under way also when it is gone: its place is taken
/// until then.
pub(super) fn own() -> Option<Place> {
    PLACE.try_with(Place::clone).ok()
}

async fn converse(stream: UnixStream, routes: Router, peer: Peer, place: OwnedSemaphorePermit) {
    let service = TowerToHyperService::new(routes.layer(Extension(ConnectInfo(peer))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let served = PLACE.scope(Arc::new(place), http.serve_connection(TokioIo::new(stream), service));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection of the local socket ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_fills_the_socket_leaves_places_to_root() {
        let places = Arc::new(Semaphore::new(PLACES));
        let (anybody, root) = (Peer { uid: Some(u32::MAX - 7) }, Peer { uid: Some(0) });
        let taken: Vec<_> = std::iter::from_fn(|| place(&places, anybody)).take(PLACES).collect();
        assert_eq!(taken.len(), PLACES - PLACES_OF_ADMIN);
        let of_root: Vec<_> = std::iter::from_fn(|| place(&places, root)).take(PLACES).collect();
        assert_eq!(of_root.len(), PLACES_OF_ADMIN);
        drop(taken);
        assert!(place(&places, anybody).is_some());
    }

    #[tokio::test]
    async fn whoever_hangs_up_keeps_its_place_until_what_it_asked_for_is_done() {
        use tokio::io::AsyncWriteExt as _;
        let places = Arc::new(Semaphore::new(PLACES));
        let (asked, mut under_way) = tokio::sync::mpsc::unbounded_channel();
        let slow = move || {
            drop(asked.send(own().expect("a place")));
            std::future::pending::<&'static str>()
        };
        let routes = Router::new().route("/", axum::routing::get(slow));
        let (mut client, server) = UnixStream::pair().expect("sockets");
        let peer = Peer { uid: Some(0) };
        let served = tokio::spawn(converse(server, routes, peer, place(&places, peer).expect("a place")));
        client.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("writes");
        let request = under_way.recv().await.expect("it is asked");
        drop(client);
        tokio::time::timeout(PATIENCE, served).await.expect("the connection ends").expect("in order");
        assert_eq!(places.available_permits(), PLACES - 1);
        drop(request);
        assert_eq!(places.available_permits(), PLACES);
    }

    #[tokio::test]
    async fn who_says_nothing_or_half_a_head_or_half_a_body_is_sent_away() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let here = axum::routing::get(|| async { "here" }).post(|_: String| async { "here" });
        let routes = Router::new().route("/", here).layer(axum::middleware::from_fn(hear_out));
        let mut silent = UnixStream::connect(folder.path().join("socket")).await.expect("connects");
        let mut slow = UnixStream::connect(folder.path().join("socket")).await.expect("connects");
        let mut good = UnixStream::connect(folder.path().join("socket")).await.expect("connects");
        let server = tokio::spawn(async move { serve(&listener, &routes).await });
        let mut half = UnixStream::connect(folder.path().join("socket")).await.expect("connects");
        slow.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("writes");
        half.write_all(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{").await.expect("writes");
        good.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await.expect("writes");
        let mut answer = String::new();
        good.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("here"), "{answer}");
        for stream in [&mut silent, &mut slow, &mut half] {
            let mut rest = Vec::new();
            let end = tokio::time::timeout(2 * PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(end.is_ok(), "it keeps its place");
        }
        server.abort();
    }
}

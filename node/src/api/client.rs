//! The command line's side of the local socket.

use std::path::{Path, PathBuf};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use spec::types::SecretBytes;
use tokio::net::UnixStream;

use super::ErrorBody;

/// Largest answer: the list of all credentials that a mesh may have.
const ANSWER_MAX: usize = 256 * 1024 * 1024;

/// A connection per request: the command line asks once or thrice and ends.
#[derive(Debug, Clone)]
pub struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// The daemon behind this socket.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks with GET.
    ///
    /// # Errors
    /// What the daemon answers, or that it cannot be reached.
    pub async fn get(&self, path: &str) -> Result<Value, Box<ErrorBody>> {
        let bytes = self.request(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(bytes.expose()).map_err(|error| broken(&error))
    }

    /// Asks with GET for bytes as they are.
    ///
    /// # Errors
    /// What the daemon answers, or that it cannot be reached.
    pub async fn bytes(&self, path: &str) -> Result<SecretBytes, Box<ErrorBody>> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Asks with POST.
    ///
    /// # Errors
    /// What the daemon answers, or that it cannot be reached.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Box<ErrorBody>> {
        let bytes = self.request(Method::POST, path, Bytes::from(body.to_string())).await?;
        serde_json::from_slice(bytes.expose()).map_err(|error| broken(&error))
    }

    async fn request(&self, method: Method, path: &str, body: Bytes) -> Result<SecretBytes, Box<ErrorBody>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let task = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| broken(&error))?;
        task.abort();
        let bytes = SecretBytes::new(body.to_bytes().to_vec());
        if status == StatusCode::OK { Ok(bytes) } else { Err(refusal(status, bytes.expose())) }
    }

    fn unreachable(&self, error: &std::io::Error) -> Box<ErrorBody> {
        let message = format!("cannot reach the daemon at {}: {error}", self.socket.display());
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => "join the socket's group, or run it with sudo",
            _ => "start it (vouchsafe daemon), or name its socket with --socket",
        };
        ErrorBody::plain("unreachable", message, Some(hint))
    }
}

/// It was reached, and what it was asked for may be done.
fn broken(error: &dyn std::fmt::Display) -> Box<ErrorBody> {
    let message = format!("the daemon broke off, and what it was asked for may be done: {error}");
    ErrorBody::plain("local", message, Some("look at its log; see what is there before you ask again"))
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Box<ErrorBody> {
    let body: Option<Box<ErrorBody>> = serde_json::from_slice::<Value>(bytes)
        .ok()
        .and_then(|value| value.get("error").cloned())
        .and_then(|error| serde_json::from_value(error).ok());
    body.unwrap_or_else(|| ErrorBody::plain("local", format!("the daemon answered {status}"), None))
}

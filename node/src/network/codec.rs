//! One message each way: 32 bits of length, then the bytes; the answer is one byte. A member's message that is too large
//! is reported as such, not as a broken stream; a stranger's is not read.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use libp2p::futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::{PeerId, StreamProtocol, request_response};
use spec::limits::{ENROLMENT_MESSAGE_MAX, MESSAGE_MAX};

/// What arrived.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// A message's bytes.
    Message(Arc<Vec<u8>>),
    /// It said that it is this long; nothing of it was read.
    TooLarge(usize),
}

/// The receiver has taken the message.
const TAKEN: u8 = 1;

/// Whose messages may be large.
#[derive(Debug, Clone, Default)]
pub(super) struct Circle(Arc<RwLock<BTreeSet<PeerId>>>);

impl Circle {
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(peer)
    }

    pub(super) fn set(&self, members: BTreeSet<PeerId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = members;
    }
}

/// Who is at the far end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Far {
    /// Whom this host dialled: it knows whom it asks.
    Dialled,
    /// Who dialled this host.
    Opened(PeerId),
}

/// Who will be at the far end of the next connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Next(Arc<Mutex<Option<Far>>>);

impl Next {
    pub(super) fn set(&self, far: Far) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(far);
    }

    fn take(&self) -> Option<Far> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
enum Whose {
    Template(Next),
    Connection(Option<Far>),
}

/// The codec of one connection, or the one after which the library makes them.
#[derive(Debug)]
pub(super) struct Codec {
    circle: Circle,
    whose: Whose,
}

impl Codec {
    pub(super) fn template(circle: Circle, next: Next) -> Self {
        Self { circle, whose: Whose::Template(next) }
    }

    /// Bytes of the largest message that is read here: it may change while the connection is open.
    fn bound(&self) -> usize {
        match &self.whose {
            Whose::Connection(Some(Far::Dialled)) => MESSAGE_MAX,
            Whose::Connection(Some(Far::Opened(peer))) if self.circle.contains(peer) => MESSAGE_MAX,
            Whose::Connection(_) | Whose::Template(_) => ENROLMENT_MESSAGE_MAX,
        }
    }
}

/// The library clones the template once for each connection, without a word on whose it is, and that clone for each
/// message: the first becomes that of the connection that was announced, the others are like it.
impl Clone for Codec {
    fn clone(&self) -> Self {
        let far = match &self.whose {
            Whose::Template(next) => next.take(),
            Whose::Connection(far) => *far,
        };
        Self { circle: self.circle.clone(), whose: Whose::Connection(far) }
    }
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Frame;
    type Response = ();

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Frame>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut length = [0; 4];
        io.read_exact(&mut length).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.bound() {
            // A member that is not known as one yet hears that it was not heard, and comes again.
            let is_member = self.bound() == MESSAGE_MAX;
            return if is_member { Ok(Frame::TooLarge(length)) } else { Err(io::ErrorKind::InvalidData.into()) };
        }
        // Grows with what really comes: a length alone reserves nothing.
        let mut bytes = Vec::new();
        let expected = u64::try_from(length).unwrap_or(u64::MAX);
        io.take(expected).read_to_end(&mut bytes).await?;
        if bytes.len() == length {
            Ok(Frame::Message(Arc::new(bytes)))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<()>
    where
        T: AsyncRead + Unpin + Send,
    {
        let mut answer = [0; 1];
        io.read_exact(&mut answer).await?;
        if answer == [TAKEN] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, frame: Frame) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Frame::Message(bytes) = frame else { return Err(io::ErrorKind::InvalidInput.into()) };
        let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        io.write_all(&length.to_be_bytes()).await?;
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, (): ()) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&[TAKEN]).await
    }
}

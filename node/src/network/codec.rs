//! One message each way: 32 bits of length, then the bytes; the answer is one byte. A message that is too large is
//! reported as such, not as a broken stream.

use std::io;

use libp2p::StreamProtocol;
use libp2p::futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::request_response;
use spec::limits::MESSAGE_MAX;

/// What arrived.
#[derive(Debug, Clone)]
pub(super) enum Frame {
    /// A message's bytes.
    Message(std::sync::Arc<Vec<u8>>),
    /// It said that it is this long; nothing of it was read.
    TooLarge(usize),
}

/// The receiver has taken the message.
const TAKEN: u8 = 1;

/// The codec.
#[derive(Debug, Clone, Default)]
pub(super) struct Codec;

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
        if length > MESSAGE_MAX {
            return Ok(Frame::TooLarge(length));
        }
        // Grows with what really comes: a length alone reserves nothing.
        let mut bytes = Vec::new();
        let expected = u64::try_from(length).unwrap_or(u64::MAX);
        io.take(expected).read_to_end(&mut bytes).await?;
        if bytes.len() == length {
            Ok(Frame::Message(std::sync::Arc::new(bytes)))
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

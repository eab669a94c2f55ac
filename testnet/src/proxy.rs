//! Stands between a daemon and its software TPM. swtpm serves one client at a time; here others come in between
//! commands (to extend a PCR while the daemon runs). A file of faults makes the chip slow or sick.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// A TPM command or answer: 2 bytes tag, 4 bytes size, 4 bytes code, the rest.
const HEADER_BYTES: usize = 10;
/// Larger than any command of TPM 2.0.
const FRAME_MAX: usize = 8192;

/// What is wrong with the chip, read anew at each command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Milliseconds before each command.
    pub delay_ms: u64,
    /// A response code instead of an answer.
    pub error: Option<u32>,
    /// No answer at all.
    pub hangs: bool,
}

impl Faults {
    /// Reads `delay_ms=N`, `error=HEX` and `hang`, one a line; nothing where there is no file.
    pub fn parse(text: &str) -> Self {
        let mut faults = Self::default();
        for line in text.lines() {
            match line.trim().split_once('=') {
                Some(("delay_ms", value)) => faults.delay_ms = value.parse().unwrap_or(0),
                Some(("error", value)) => faults.error = u32::from_str_radix(value, 16).ok(),
                _ if line.trim() == "hang" => faults.hangs = true,
                _ => {}
            }
        }
        faults
    }
}

struct Chip {
    port: u16,
    connection: Option<TcpStream>,
}

impl Chip {
    fn ask(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?,
        };
        connection.write_all(command)?;
        let answer = read_frame(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// Serves commands at `listen` and control at the next port, for the chip at `chip`.
///
/// # Errors
/// Where the ports are taken.
pub fn serve(listen: u16, chip: u16, faults: &Path) -> io::Result<()> {
    let commands = TcpListener::bind((Ipv4Addr::LOCALHOST, listen))?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, listen + 1))?;
    thread::spawn(move || {
        for client in control.incoming().flatten() {
            thread::spawn(move || pass_control(client, chip + 1));
        }
    });
    let shared = Arc::new(Mutex::new(Chip { port: chip, connection: None }));
    for client in commands.incoming().flatten() {
        let (shared, faults) = (shared.clone(), faults.to_owned());
        // A client that goes away ends its thread; the others go on.
        thread::spawn(move || serve_client(client, &shared, &faults));
    }
    Ok(())
}

fn serve_client(mut client: TcpStream, chip: &Mutex<Chip>, faults: &Path) -> io::Result<()> {
    client.set_nodelay(true)?;
    loop {
        let command = read_frame(&mut client)?;
        let faults = Faults::parse(&std::fs::read_to_string(faults).unwrap_or_default());
        thread::sleep(Duration::from_millis(faults.delay_ms));
        if faults.hangs {
            continue;
        }
        let answer = match faults.error {
            Some(code) => [[0x80, 0x01, 0, 0, 0, 10].as_slice(), &code.to_be_bytes()].concat(),
            None => chip.lock().unwrap_or_else(PoisonError::into_inner).ask(&command)?,
        };
        client.write_all(&answer)?;
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEADER_BYTES];
    stream.read_exact(&mut frame)?;
    let size = frame.get(2..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=FRAME_MAX).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame.resize(size, 0);
    if let Some(rest) = frame.get_mut(HEADER_BYTES..) {
        stream.read_exact(rest)?;
    }
    Ok(frame)
}

/// Control commands are rare and short: each connection is passed through as it is.
fn pass_control(client: TcpStream, port: u16) -> io::Result<()> {
    let chip = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (mut from_client, mut to_chip) = (client.try_clone()?, chip.try_clone()?);
    thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_chip);
        drop(to_chip.shutdown(std::net::Shutdown::Both));
        copied
    });
    let (mut from_chip, mut to_client) = (chip, client);
    let copied = io::copy(&mut from_chip, &mut to_client);
    drop(to_client.shutdown(std::net::Shutdown::Both));
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_read_from_their_file() {
        let faults = Faults::parse("delay_ms=200\nerror=922\n");
        assert_eq!(faults, Faults { delay_ms: 200, error: Some(0x922), hangs: false });
        assert_eq!(Faults::parse(""), Faults::default());
        assert!(Faults::parse("hang").hangs);
    }
}

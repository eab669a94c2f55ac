//! Runs commands as a person does, and takes what they say.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::mesh::TestnetError;

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Standard output as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.out).unwrap_or(Value::Null)
    }

    /// Itself where the exit code is 0.
    ///
    /// # Errors
    /// What it said instead.
    pub fn ok(self, what: &str) -> Result<Self, TestnetError> {
        if self.code == 0 {
            return Ok(self);
        }
        Err(TestnetError::Command(what.to_owned(), self.code, format!("{}{}", self.err, self.text())))
    }
}

/// Runs a command with this standard input.
///
/// # Errors
/// Where it does not start.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Said, TestnetError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = |error| TestnetError::Start(name.clone(), error);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(started)?;
    let writer = child.stdin.take().map(|mut stdin| {
        let input = input.to_vec();
        // A command that ends without reading closes the pipe: that is its business.
        std::thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let output = child.wait_with_output().map_err(|error| TestnetError::Start(name.clone(), error))?;
    if let Some(writer) = writer {
        drop(writer.join());
    }
    Ok(Said {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// A binary of this project: beside this one, unless its variable says otherwise.
pub fn binary(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase());
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().unwrap_or_default();
    let folder = own.parent().map(Path::to_owned).unwrap_or_default();
    // Tests run from the folder `deps` below the binaries.
    let folder = if folder.ends_with("deps") { folder.join("..") } else { folder };
    folder.join(name)
}

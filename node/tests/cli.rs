//! The command line as a person sees it: transcripts in `tests/cli`. `TRYCMD=overwrite` writes them anew.

#![allow(clippy::expect_used, reason = "a test stops at the first surprise")]

use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

fn vouchsafe() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vouchsafe"))
}

#[test]
fn the_command_line_says_what_its_transcripts_say() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}

#[test]
fn where_nobody_reads_what_is_wrong_the_exit_code_says_it() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = vouchsafe().args(["--socket", "/nonexistent/api.sock", "status"]).stderr(writer).status();
    assert_eq!(ended.expect("it runs").code(), Some(6));
}

#[test]
fn an_argument_that_is_no_text_is_a_matter_of_usage() {
    let no_text = std::ffi::OsStr::from_bytes(b"\xff");
    let ended = vouchsafe().arg("show").arg(no_text).stderr(std::process::Stdio::null()).status();
    assert_eq!(ended.expect("it runs").code(), Some(2));
}

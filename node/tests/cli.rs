//! The command line as a person sees it: transcripts in `tests/cli`. `TRYCMD=overwrite` writes them anew.

#[test]
fn the_command_line_says_what_its_transcripts_say() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}

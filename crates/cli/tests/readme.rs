//! The README against the binary: commands that exist, and output that is real.

#![allow(clippy::unwrap_used)] // the lint spares tests, but not the functions that they share

use std::path::Path;
use std::process::{Command, Output};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn readme() -> String {
    std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap()
}

/// Runs the binary where a reader of the README would.
fn tessera<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera")).args(arguments).current_dir(ROOT).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// The commands that `tessera --help` lists.
fn commands() -> Vec<String> {
    let help = text(tessera(["--help"]).stdout);
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

#[test]
fn the_command_table_names_exactly_the_commands_in_their_order() {
    let readme = readme();
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `tessera "));
    let named: Vec<&str> = rows.map(|row| row.split([' ', '`']).next().unwrap()).collect();
    let commands = commands();
    assert!(commands.len() > 2, "help is not understood: {commands:?}");
    assert_eq!(named, commands);
}

#[test]
fn flags_that_the_command_table_mentions_exist() {
    for row in readme().lines().filter(|line| line.starts_with("| `tessera ")) {
        let words: Vec<&str> = row.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).collect();
        let at = words.iter().position(|word| *word == "tessera").unwrap();
        let mut help = text(tessera([words[at + 1], "--help"]).stdout);
        if help.contains("Usage: tessera bench <COMMAND>") {
            help += &text(tessera([words[at + 1], words[at + 2], "--help"]).stdout);
        }
        for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
            assert!(help.contains(flag), "`tessera {}` has no {flag}", words[at + 1]);
        }
    }
}

#[test]
fn what_is_shown_after_a_prompt_is_what_the_command_says() {
    let readme = readme();
    let shown: Vec<&str> =
        readme.split("```text\n$ tessera ").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(shown.len() >= 2, "the README shows `tessera inspect` at work");
    for example in shown {
        let (command, output) = example.split_once('\n').unwrap();
        let said = tessera(command.split(' '));
        assert_eq!(text(said.stdout), output, "`tessera {command}`, which said {}", text(said.stderr));
    }
}

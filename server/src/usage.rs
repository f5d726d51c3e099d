//! Command lines that cannot be understood, refused in one line like every other error.

use std::io::ErrorKind;
use std::process::ExitCode;

/// Names that options had, and their names now.
const RENAMED: [(&str, &str); 1] = [("--looks", "--tta-views")];

/// Prints what clap has to say: help and version as they are, an error as one line.
pub fn explain(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Bare;
    if error.use_stderr() && error.kind() != Bare {
        let text = one_line(&error.render().to_string());
        match RENAMED
            .iter()
            .find(|(old, _)| text.contains(&format!("'{old}'")))
        {
            Some((old, now)) => eprintln!("error: `{old}` is called `{now}` now; see --help"),
            None => eprintln!("{text}; see --help"),
        }
    } else {
        // A reader that has gone away is no reason to fail; a full disk is.
        match error.print() {
            Err(unwritten) if unwritten.kind() != ErrorKind::BrokenPipe => {
                eprintln!("error: standard output: could not be written ({unwritten})");
                return ExitCode::FAILURE;
            }
            _ => {}
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// clap's message without its usage and pointer to the help, its lines joined.
fn one_line(text: &str) -> String {
    let ends = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more info");
    let mut joined = String::new();
    for line in text.lines().map(str::trim).take_while(ends) {
        let between = match line {
            "" => continue,
            _ if joined.is_empty() => "",
            _ if joined.ends_with(':') || line.starts_with('[') => " ",
            _ if line.starts_with("tip:") => "; ",
            _ => ", ",
        };
        joined.push_str(between);
        joined.push_str(line);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn a_message_of_many_lines_becomes_one() {
        let missing = "error: these arguments were not provided:\n  <DATA>\n  --weights <W>\n\n\
                       Usage: seedling eval\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(missing),
            "error: these arguments were not provided: <DATA>, --weights <W>"
        );
        let value = "error: invalid value 'x' for '--y'\n  [possible values: a, b]\n\n  \
                     tip: a\n\nFor more information, try '--help'.";
        assert_eq!(
            one_line(value),
            "error: invalid value 'x' for '--y' [possible values: a, b]; tip: a"
        );
    }
}

//! `--env`, `--env-file`, `--label` and `--label-file`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// Variables from files, then from flags; a bare name takes the value of our own environment, or is left out.
pub(crate) fn variables(files: &[PathBuf], flags: &[String]) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for line in lines_of(files)?.iter().chain(flags) {
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("invalid environment variable {line:?}: expected NAME=VALUE or NAME");
        }
        if line.contains('=') {
            variables.push(line.clone());
        } else if let Ok(value) = std::env::var(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    Ok(variables)
}

/// Labels from files, then from flags.
pub(crate) fn labels(
    files: &[PathBuf],
    flags: &[String],
) -> Result<std::collections::HashMap<String, String>> {
    let mut lines = lines_of(files)?;
    lines.extend_from_slice(flags);
    Ok(super::pairs(&lines))
}

/// The lines of files that are neither empty nor comments.
fn lines_of(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let wanted = text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.extend(wanted.map(str::to_owned));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_bare_names_are_looked_up() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("env");
        fs::write(&file, "# comment\n\nA=1\nPATH\nBRIG_TEST_NOT_SET\n").unwrap();
        let variables = variables(&[file], &["A=2".into(), "B=x=y".into()]).unwrap();
        assert_eq!(variables.len(), 4);
        assert_eq!(
            (variables[0].as_str(), variables[2].as_str(), variables[3].as_str()),
            ("A=1", "A=2", "B=x=y")
        );
        assert!(variables[1].starts_with("PATH=/"));
        assert!(super::variables(&[], &["=x".into()]).is_err());
    }
}

//! Exit codes, docker's: 1 for a failed command, 125 when a container could not be created or started, 126 when its
//! command cannot be executed, 127 when there is no such command, else the container's own.

use std::fmt;

/// How a command that ran ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// All went well.
    pub(crate) const SUCCESS: Self = Self(0);
    /// Something failed and was reported already.
    pub(crate) const FAILED: Self = Self(1);

    /// The exit code of a container, of which a shell sees the low byte.
    pub(crate) fn of_container(code: i64) -> Self {
        Self(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    pub(crate) const fn code(self) -> u8 {
        self.0
    }
}

/// A failed command: the error to show and the code to exit with.
pub(crate) struct Failure {
    code: u8,
    error: Option<anyhow::Error>,
}

impl Failure {
    /// Fails with a code of its own.
    pub(crate) fn with_code(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: Some(error.into()) }
    }

    /// A container that could not be created or started: the daemon's message tells which of docker's three codes.
    pub(crate) fn of_start(error: impl Into<anyhow::Error>) -> Self {
        let error = error.into();
        let text = format!("{error:#}").to_lowercase();
        let code = if text.contains("executable file not found")
            || text.contains("no such file or directory")
        {
            127
        } else if text.contains("permission denied")
            || text.contains("is a directory")
            || text.contains("exec format error")
        {
            126
        } else {
            125
        };
        Self::with_code(code, error)
    }

    pub(crate) const fn code(&self) -> u8 {
        self.code
    }

    pub(crate) const fn error(&self) -> Option<&anyhow::Error> {
        self.error.as_ref()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} (exit code {})", self.error, self.code)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::with_code(1, error)
    }
}

/// What a command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Does something to each of several objects, as docker does: goes on past failures, prints each success, reports each
/// failure, and fails if any did.
pub(crate) async fn for_each<'a, T>(
    names: &'a [T],
    mut action: impl AsyncFnMut(&'a str) -> anyhow::Result<String>,
) -> Outcome
where
    T: AsRef<str>,
{
    let mut exit = Exit::SUCCESS;
    for name in names {
        match action(name.as_ref()).await {
            Ok(text) if text.is_empty() => {}
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("brig: {error:#}");
                exit = Exit::FAILED;
            }
        }
    }
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn start_failures_have_dockers_codes() {
        for (message, code) in [
            ("exec: \"x\": executable file not found in $PATH", 127),
            ("exec: \"/x\": stat /x: no such file or directory", 127),
            ("exec: \"/etc/passwd\": permission denied", 126),
            ("port is already allocated", 125),
        ] {
            assert_eq!(Failure::of_start(anyhow!(message)).code(), code, "{message}");
        }
    }

    #[test]
    fn a_containers_code_is_cut_to_a_byte() {
        assert_eq!(Exit::of_container(137).code(), 137);
        assert_eq!(Exit::of_container(256).code(), 0);
    }
}

//! Docker's change instructions: the lines of a Dockerfile that only change the configuration, for commit and import.
//!
//! `CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR`. Words may be quoted; `$NAME` and
//! `${NAME}` stand for variables of the configuration where a Dockerfile knows them.

use std::collections::HashMap;

use crate::container::{parse_signal, shortest_path};
use crate::error::{Error, Result};
use crate::models::{ContainerConfig, HealthConfig};

/// Largest text of all changes, in bytes.
const TEXT_MAX: usize = 1 << 20;
/// Most ports that one range stands for.
const PORTS_MAX: u16 = 1024;

/// Applies instructions to `config`. What it does not say is looked up in `below`, which it will be laid over.
///
/// # Errors
/// An instruction is malformed, or is none that may be used here.
pub(crate) fn apply(
    config: &mut ContainerConfig,
    below: &ContainerConfig,
    changes: &[String],
) -> Result<()> {
    if changes.iter().map(String::len).sum::<usize>() > TEXT_MAX {
        return Err(Error::invalid(format!("changes are longer than {TEXT_MAX} bytes")));
    }
    let text = changes.join("\n").replace("\\\n", " ");
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let mut change = Change { config, below, line, rest: rest.trim() };
        change.apply(&name.to_ascii_uppercase())?;
    }
    Ok(())
}

/// One instruction.
struct Change<'a> {
    config: &'a mut ContainerConfig,
    below: &'a ContainerConfig,
    line: &'a str,
    rest: &'a str,
}

impl Change<'_> {
    fn apply(&mut self, name: &str) -> Result<()> {
        if self.rest.is_empty() {
            return Err(self.wrong("it has no arguments"));
        }
        match name {
            "CMD" => self.config.cmd = Some(self.command(self.rest)),
            "ENTRYPOINT" => self.config.entrypoint = Some(self.command(self.rest)),
            "ENV" => self.env()?,
            "EXPOSE" => self.expose()?,
            "HEALTHCHECK" => self.healthcheck()?,
            "LABEL" => {
                let pairs = self.pairs()?;
                self.config.labels.get_or_insert_default().extend(pairs);
            }
            "ONBUILD" => {
                self.config.on_build.get_or_insert_default().push(self.rest.to_owned());
            }
            "STOPSIGNAL" => {
                let signal = self.one()?;
                parse_signal(&signal)?;
                self.config.stop_signal = Some(signal);
            }
            "USER" => self.config.user = Some(self.one()?),
            "VOLUME" => {
                let volumes = match json_words(self.rest) {
                    Some(words) => words,
                    None => self.words(self.rest)?,
                };
                if volumes.iter().any(String::is_empty) {
                    return Err(self.wrong("a volume has no path"));
                }
                add(self.config.volumes.get_or_insert_default(), volumes);
            }
            "WORKDIR" => self.working_directory()?,
            other => return Err(Error::invalid(format!("{other} is not a valid change command"))),
        }
        Ok(())
    }

    fn wrong(&self, why: &str) -> Error {
        Error::invalid(format!("change {:?}: {why}", self.line))
    }

    /// `["a", "b"]`, or a line for the shell.
    fn command(&self, text: &str) -> Vec<String> {
        json_words(text).unwrap_or_else(|| {
            let shell = self.config.shell.as_ref().or(self.below.shell.as_ref());
            let standard = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut words = shell.cloned().unwrap_or_else(standard);
            words.push(text.to_owned());
            words
        })
    }

    fn env(&mut self) -> Result<()> {
        for (name, value) in self.pairs()? {
            let all = self.config.env.get_or_insert_default();
            all.retain(|known| known.split('=').next() != Some(name.as_str()));
            all.push(format!("{name}={value}"));
        }
        Ok(())
    }

    /// `name=value …`, or the old form `name value`.
    fn pairs(&self) -> Result<Vec<(String, String)>> {
        let first = self.rest.split_whitespace().next().unwrap_or_default();
        if !first.contains('=') {
            let (name, value) = self
                .rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| self.wrong("a name has no value"))?;
            let mut words = self.read(value.trim(), false)?;
            return Ok(vec![(name.to_owned(), words.pop().unwrap_or_default())]);
        }
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(self.wrong(&format!("{word:?} is not name=value"))),
        };
        self.words(self.rest)?.into_iter().map(pair).collect()
    }

    fn expose(&mut self) -> Result<()> {
        let mut ports = Vec::new();
        for word in self.words(self.rest)? {
            let (range, protocol) = word.split_once('/').unwrap_or((&word, "tcp"));
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
            let (Some(first), Some(last)) = (port(first), port(last)) else {
                return Err(self.wrong(&format!("{word:?} is no port")));
            };
            let protocol = protocol.to_ascii_lowercase();
            if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") || last < first {
                return Err(self.wrong(&format!("{word:?} is no port")));
            }
            if last - first >= PORTS_MAX {
                return Err(self.wrong(&format!("{word:?} is more than {PORTS_MAX} ports")));
            }
            ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
        add(self.config.exposed_ports.get_or_insert_default(), ports);
        Ok(())
    }

    fn healthcheck(&mut self) -> Result<()> {
        let mut check = HealthConfig::default();
        let mut rest = self.rest;
        while let Some(option) = rest.strip_prefix("--") {
            let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
            rest = after.trim_start();
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let time = || {
                nanoseconds(value).ok_or_else(|| self.wrong(&format!("{value:?} is no duration")))
            };
            match name {
                "interval" => check.interval = Some(time()?),
                "timeout" => check.timeout = Some(time()?),
                "start-period" => check.start_period = Some(time()?),
                "start-interval" => check.start_interval = Some(time()?),
                "retries" => {
                    let retries = value.parse::<i64>().ok().filter(|count| *count >= 0);
                    let retries = retries.ok_or_else(|| self.wrong("retries is no number"))?;
                    check.retries = Some(retries);
                }
                _ => return Err(self.wrong(&format!("there is no option --{name}"))),
            }
        }
        let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let command = command.trim();
        check.test = Some(match kind.to_ascii_uppercase().as_str() {
            "NONE" if command.is_empty() => vec!["NONE".to_owned()],
            "CMD" if !command.is_empty() => match json_words(command) {
                Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
                None => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            },
            _ => return Err(self.wrong("want NONE, or CMD and a command")),
        });
        self.config.healthcheck = Some(check);
        Ok(())
    }

    fn working_directory(&mut self) -> Result<()> {
        let path = self.one()?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let before = given(&self.config.working_dir).or_else(|| given(&self.below.working_dir));
        let whole = match path.starts_with('/') {
            true => path,
            false => format!("{}/{path}", before.unwrap_or_default()),
        };
        self.config.working_dir = Some(shortest_path(&whole));
        Ok(())
    }

    fn one(&self) -> Result<String> {
        match self.words(self.rest)?.as_mut_slice() {
            [word] if !word.is_empty() => Ok(std::mem::take(word)),
            _ => Err(self.wrong("it takes exactly one argument")),
        }
    }

    fn words(&self, text: &str) -> Result<Vec<String>> {
        self.read(text, true)
    }

    fn variable(&self, name: &str) -> String {
        let find = |env: &Option<Vec<String>>| {
            let mut all = env.iter().flatten();
            all.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
        };
        find(&self.config.env).or_else(|| find(&self.below.env)).unwrap_or_default()
    }

    /// Resolves quotes, backslashes and variables; with `split` white space outside quotes ends a word.
    fn read(&self, text: &str, split: bool) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match (letter, quote) {
                (mark @ ('"' | '\''), None) => {
                    quote = Some(mark);
                    word.get_or_insert_default();
                }
                (mark, Some(open)) if mark == open => quote = None,
                ('\\', None) => word.get_or_insert_default().extend(letters.next()),
                ('\\', Some('"')) => match letters.peek() {
                    Some('"' | '\\' | '$') => word.get_or_insert_default().extend(letters.next()),
                    _ => word.get_or_insert_default().push('\\'),
                },
                ('$', None | Some('"')) => {
                    let braced = letters.next_if_eq(&'{').is_some();
                    let mut name = String::new();
                    while let Some(letter) =
                        letters.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    {
                        name.push(letter);
                    }
                    if braced && letters.next_if_eq(&'}').is_none() {
                        return Err(self.wrong("only $NAME and ${NAME} are supported"));
                    }
                    let value = if name.is_empty() { "$".to_owned() } else { self.variable(&name) };
                    word.get_or_insert_default().push_str(&value);
                }
                (space, None) if split && space.is_whitespace() => words.extend(word.take()),
                (other, _) => word.get_or_insert_default().push(other),
            }
        }
        if quote.is_some() {
            return Err(self.wrong("a quote is not closed"));
        }
        words.extend(word);
        Ok(words)
    }
}

/// Adds to a list that is a set: in order, each once.
fn add(all: &mut Vec<String>, more: Vec<String>) {
    all.extend(more);
    all.sort();
    all.dedup();
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A Go duration: `1m30s`, `500ms`, `1.5h`.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += number * factor;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be in range")]
    (sum <= 9e18).then_some(sum as i64)
}

/// The `config` object of the image specification, with docker's additions.
pub(crate) fn to_image_config(config: &ContainerConfig) -> serde_json::Value {
    let set = |list: &Option<Vec<String>>| {
        let empty = || serde_json::json!({});
        let all = list.iter().flatten().map(|key| (key.clone(), empty()));
        list.as_ref().map(|_| all.collect::<serde_json::Map<_, _>>())
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let labels: Option<&HashMap<String, String>> =
        config.labels.as_ref().filter(|labels| !labels.is_empty());
    // Sorted, so that the same image always has the same id.
    let labels = labels.map(|labels| labels.iter().collect::<std::collections::BTreeMap<_, _>>());
    let mut object = serde_json::json!({
        "User": text(&config.user),
        "ExposedPorts": set(&config.exposed_ports),
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Volumes": set(&config.volumes),
        "WorkingDir": text(&config.working_dir),
        "Labels": labels,
        "StopSignal": text(&config.stop_signal),
        "Healthcheck": config.healthcheck,
        "OnBuild": config.on_build,
        "Shell": config.shell,
    });
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig> {
        let mut config = ContainerConfig::default();
        let below = ContainerConfig {
            env: Some(vec!["PATH=/bin".to_owned()]),
            working_dir: Some("/srv".to_owned()),
            ..ContainerConfig::default()
        };
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(&mut config, &below, &changes)?;
        Ok(config)
    }

    #[test]
    fn every_instruction_changes_its_field() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]\nentrypoint exec x $HOME",
            "ENV A=1 B=\"two words\" P=$PATH:/x C='$A' \\\n D=\\$",
            "ENV old style value",
            "LABEL k=v \"long key\"=${A}",
            "EXPOSE 80 53/udp 8000-8002/TCP",
            "USER me:us",
            "VOLUME /b /a",
            "VOLUME [\"/c d\"]",
            "WORKDIR sub/../dir",
            "STOPSIGNAL SIGUSR1",
            "ONBUILD RUN make $X",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD test -e /ok",
        ])
        .expect("good changes");
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        assert_eq!(config.cmd, list(&["a", "b c"]));
        assert_eq!(config.entrypoint, list(&["/bin/sh", "-c", "exec x $HOME"]));
        let env = ["A=1", "B=two words", "P=/bin:/x", "C=$A", "D=$", "old=style value"];
        assert_eq!(config.env, list(&env));
        let labels = config.labels.clone().expect("labels");
        assert_eq!((labels["k"].as_str(), labels["long key"].as_str()), ("v", "1"));
        let ports = ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"];
        assert_eq!(config.exposed_ports, list(&ports));
        assert_eq!(config.volumes, list(&["/a", "/b", "/c d"]));
        assert_eq!(config.working_dir.as_deref(), Some("/srv/dir"));
        assert_eq!(config.on_build, list(&["RUN make $X"]));
        let check = config.healthcheck.clone().expect("a health check");
        assert_eq!((check.interval, check.retries), (Some(90_000_000_000), Some(2)));
        assert_eq!(check.test, list(&["CMD-SHELL", "test -e /ok"]));
        let object = to_image_config(&config);
        assert_eq!(object["Volumes"]["/c d"], serde_json::json!({}));
        assert_eq!(object["StopSignal"], "SIGUSR1");
        assert!(object.get("Shell").is_none());
    }

    #[test]
    fn what_may_not_or_cannot_be_changed_is_refused() {
        for (change, word) in [
            ("RUN make", "RUN"),
            ("FROM x", "FROM"),
            ("CMD", "no arguments"),
            ("EXPOSE 0", "no port"),
            ("EXPOSE 1-60000", "more than"),
            ("USER a b", "exactly one"),
            ("ENV A=\"b", "not closed"),
            ("ENV A=${B:-c}", "$NAME"),
            ("STOPSIGNAL SIGNOTHING", "SIGNOTHING"),
            ("HEALTHCHECK --often CMD x", "--often"),
            ("HEALTHCHECK MAYBE", "NONE"),
            ("LABEL nothing", "no value"),
        ] {
            let error = changed(&[change]).expect_err(change).report();
            assert!(error.contains(word), "{change}: {error}");
        }
    }
}

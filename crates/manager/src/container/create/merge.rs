//! What a container takes over from its image.
//!
//! Only the fields named here: command, environment, working directory, user, ports, volumes, labels, stop signal, health
//! check and shell. Whatever the request sets wins.

use crate::error::{Error, Result};
use crate::models::{
    ContainerConfig, ContainerCreateBody, HostConfig, ImageConfig, NetworkingConfig,
};

/// The most variables, and the longest one, that a container may have: execve(2) would refuse more.
const VARIABLES_MAX: usize = 32_768;
const VARIABLE_BYTES_MAX: usize = 128 << 10;

/// The three parts of a create body.
pub(super) fn split(
    body: ContainerCreateBody,
) -> (ContainerConfig, HostConfig, Option<NetworkingConfig>) {
    let config = ContainerConfig {
        hostname: body.hostname,
        domainname: body.domainname,
        user: body.user,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        exposed_ports: body.exposed_ports,
        tty: body.tty,
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        env: body.env,
        cmd: body.cmd,
        healthcheck: body.healthcheck,
        args_escaped: body.args_escaped,
        image: body.image,
        volumes: body.volumes,
        working_dir: body.working_dir,
        entrypoint: body.entrypoint,
        network_disabled: body.network_disabled,
        on_build: body.on_build,
        labels: body.labels,
        stop_signal: body.stop_signal,
        stop_timeout: body.stop_timeout,
        shell: body.shell,
    };
    (config, body.host_config.unwrap_or_default(), body.networking_config)
}

/// The request's configuration with the image's filled in.
pub(in crate::container) fn merge(
    mut config: ContainerConfig,
    image: ImageConfig,
) -> Result<ContainerConfig> {
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if !has(&config.entrypoint) {
        if !has(&config.cmd) {
            config.cmd = image.cmd;
        }
        // An empty entrypoint in the request (`--entrypoint ""` comes as [""]) is not an absent one.
        config.entrypoint = image.entrypoint;
    }
    if config.entrypoint.as_deref().is_some_and(|words| words == [String::new()]) {
        config.entrypoint = None;
    }
    for (own, from) in [
        (&mut config.user, image.user),
        (&mut config.working_dir, image.working_dir),
        (&mut config.stop_signal, image.stop_signal),
    ] {
        if !given(own) {
            *own = from;
        }
    }
    if config.shell.is_none() {
        config.shell = image.shell;
    }
    config.env = Some(merge_env(config.env.unwrap_or_default(), image.env.unwrap_or_default())?);
    config.exposed_ports = union(config.exposed_ports, image.exposed_ports);
    config.volumes = union(config.volumes, image.volumes);
    let mut labels = image.labels.unwrap_or_default();
    labels.extend(config.labels.unwrap_or_default());
    config.labels = Some(labels);
    let disabled = |test: &[String]| test.first().is_some_and(|word| word == "NONE");
    config.healthcheck = match (config.healthcheck, image.healthcheck) {
        (Some(own), Some(from)) if own.test.as_ref().is_none_or(Vec::is_empty) => {
            Some(crate::models::HealthConfig {
                test: from.test,
                interval: own.interval.filter(|ns| *ns != 0).or(from.interval),
                timeout: own.timeout.filter(|ns| *ns != 0).or(from.timeout),
                retries: own.retries.filter(|count| *count != 0).or(from.retries),
                start_period: own.start_period.filter(|ns| *ns != 0).or(from.start_period),
                start_interval: own.start_interval.filter(|ns| *ns != 0).or(from.start_interval),
            })
        }
        (Some(own), _) => Some(own),
        (None, from) => from,
    }
    .filter(|check| !check.test.as_deref().is_some_and(disabled));
    Ok(config)
}

/// The request's variables, then those of the image that it does not name.
fn merge_env(mut own: Vec<String>, image: Vec<String>) -> Result<Vec<String>> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    for variable in image {
        if !own.iter().any(|present| name(present) == name(&variable)) {
            own.push(variable);
        }
    }
    if own.len() > VARIABLES_MAX {
        return Err(Error::invalid(format!("more than {VARIABLES_MAX} environment variables")));
    }
    for variable in &own {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::invalid(format!("invalid environment variable: {variable:?}")));
        }
        if variable.len() > VARIABLE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "environment variable {} is too long",
                name(variable)
            )));
        }
    }
    Ok(own)
}

fn union(own: Option<Vec<String>>, image: Option<Vec<String>>) -> Option<Vec<String>> {
    let mut all = own.unwrap_or_default();
    all.extend(image.unwrap_or_default());
    all.sort();
    all.dedup();
    Some(all).filter(|all| !all.is_empty())
}

/// Program and arguments.
pub(super) fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut all = words(&config.entrypoint);
    all.extend(words(&config.cmd));
    if all.iter().any(|word| word.contains('\0')) {
        return Err(Error::invalid("the command holds a NUL byte"));
    }
    if all.is_empty() || all[0].is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    let path = all.remove(0);
    Ok((path, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn words(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>) -> Result<Vec<String>> {
        let image = ImageConfig {
            entrypoint: list(&["/entry"]),
            cmd: list(&["default"]),
            ..ImageConfig::default()
        };
        let config =
            merge(ContainerConfig { entrypoint, cmd, ..ContainerConfig::default() }, image)?;
        let (path, mut args) = command(&config)?;
        args.insert(0, path);
        Ok(args)
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_rules() {
        assert_eq!(words(None, None).expect("good"), ["/entry", "default"]);
        assert_eq!(words(None, list(&["x"])).expect("good"), ["/entry", "x"]);
        assert_eq!(words(list(&["/own"]), None).expect("good"), ["/own"]);
        assert_eq!(words(list(&["/own"]), list(&["x"])).expect("good"), ["/own", "x"]);
        assert_eq!(words(list(&[""]), list(&["x"])).expect("good"), ["x"]);
        assert!(words(list(&[""]), None).is_err());
    }

    #[test]
    fn the_request_wins_and_the_image_fills() {
        let image = ImageConfig {
            env: list(&["PATH=/image", "A=image"]),
            user: Some("www".into()),
            working_dir: Some("/srv".into()),
            exposed_ports: list(&["80/tcp"]),
            ..ImageConfig::default()
        };
        let own = ContainerConfig {
            env: list(&["A=own"]),
            working_dir: Some("/own".into()),
            exposed_ports: list(&["443/tcp", "80/tcp"]),
            ..ContainerConfig::default()
        };
        let merged = merge(own, image).expect("good");
        assert_eq!(merged.env, list(&["A=own", "PATH=/image"]));
        assert_eq!(
            (merged.user.as_deref(), merged.working_dir.as_deref()),
            (Some("www"), Some("/own"))
        );
        assert_eq!(merged.exposed_ports, list(&["443/tcp", "80/tcp"]));
    }

    #[test]
    fn hostile_variables_are_refused() {
        for bad in ["", "=x", "A\0=1"] {
            assert!(merge_env(Vec::new(), vec![bad.to_owned()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_disabled_health_check_is_none() {
        let check =
            |test: &[&str]| crate::models::HealthConfig { test: list(test), ..Default::default() };
        let image =
            ImageConfig { healthcheck: Some(check(&["CMD", "true"])), ..ImageConfig::default() };
        let own =
            ContainerConfig { healthcheck: Some(check(&["NONE"])), ..ContainerConfig::default() };
        assert!(merge(own, image.clone()).expect("good").healthcheck.is_none());
        assert!(merge(ContainerConfig::default(), image).expect("good").healthcheck.is_some());
    }
}

//! `-v`, `--mount` and `--tmpfs`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use brig_engine_api::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

use super::size;

/// What one `-v` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Volume {
    /// `SOURCE:TARGET[:OPTIONS]`, with a relative source made absolute.
    Bind(String),
    /// `TARGET` alone: an anonymous volume.
    Anonymous(String),
}

/// Parses `-v`.
pub(crate) fn volume(text: &str, working_directory: &Path) -> Result<Volume> {
    let Some((source, rest)) = text.split_once(':') else {
        if !text.starts_with('/') {
            bail!("invalid volume {text:?}: the path in the container must be absolute");
        }
        return Ok(Volume::Anonymous(text.to_owned()));
    };
    if source.is_empty() || !rest.starts_with('/') {
        bail!("invalid volume {text:?}: expected SOURCE:/TARGET[:OPTIONS]");
    }
    if source.starts_with('.') {
        let absolute = working_directory.join(source);
        return Ok(Volume::Bind(format!("{}:{rest}", absolute.display())));
    }
    Ok(Volume::Bind(text.to_owned()))
}

/// Parses `--mount type=…,source=…,target=…,…`.
pub(crate) fn mount(text: &str, working_directory: &Path) -> Result<Mount> {
    parse(text, working_directory).with_context(|| format!("invalid mount {text:?}"))
}

fn parse(text: &str, working_directory: &Path) -> Result<Mount> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        apply(&mut mount, &key.trim().to_ascii_lowercase(), value)?;
    }
    if mount.target.is_none() {
        bail!("target is missing");
    }
    if mount.typ == Some(MountType::BIND) {
        let Some(source) = &mount.source else { bail!("a bind mount needs a source") };
        if source.starts_with('.') {
            mount.source = Some(working_directory.join(source).display().to_string());
        }
    }
    consistent(&mount)?;
    Ok(mount)
}

fn apply(mount: &mut Mount, key: &str, value: Option<&str>) -> Result<()> {
    let flag = || truth(key, value);
    let required = || value.map(str::to_owned).with_context(|| format!("{key} needs a value"));
    match key {
        "type" => {
            mount.typ = Some(match required()?.as_str() {
                "bind" => MountType::BIND,
                "volume" => MountType::VOLUME,
                "tmpfs" => MountType::TMPFS,
                other => bail!("type {other} is not built: use bind, volume or tmpfs"),
            });
        }
        "source" | "src" => mount.source = Some(required()?),
        "target" | "dst" | "destination" => mount.target = Some(required()?),
        "readonly" | "ro" => mount.read_only = Some(flag()?),
        "consistency" => mount.consistency = Some(required()?),
        "bind-propagation" => bind(mount).propagation = Some(propagation(&required()?)?),
        "bind-nonrecursive" => bind(mount).non_recursive = Some(flag()?),
        "bind-create-src" => bind(mount).create_mountpoint = Some(flag()?),
        "bind-recursive" => match required()?.as_str() {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = Some(true),
            "writable" => bind(mount).read_only_non_recursive = Some(true),
            "readonly" => bind(mount).read_only_force_recursive = Some(true),
            other => {
                bail!("bind-recursive {other} is none of enabled, disabled, writable, readonly")
            }
        },
        "volume-nocopy" => volume_options(mount).no_copy = Some(flag()?),
        "volume-subpath" => volume_options(mount).subpath = Some(required()?),
        "volume-label" => {
            let pair = required()?;
            let (name, content) = pair.split_once('=').unwrap_or((&pair, ""));
            volume_options(mount)
                .labels
                .get_or_insert_default()
                .insert(name.to_owned(), content.to_owned());
        }
        "volume-driver" => driver(mount).name = Some(required()?),
        "volume-opt" => {
            let pair = required()?;
            let (name, content) = pair.split_once('=').context("volume-opt needs NAME=VALUE")?;
            driver(mount)
                .options
                .get_or_insert_default()
                .insert(name.to_owned(), content.to_owned());
        }
        "tmpfs-size" => tmpfs_options(mount).size_bytes = Some(size::bytes(&required()?)?),
        "tmpfs-mode" => {
            let mode =
                i64::from_str_radix(&required()?, 8).context("tmpfs-mode is an octal number")?;
            tmpfs_options(mount).mode = Some(mode);
        }
        other => bail!("unknown key {other:?}"),
    }
    Ok(())
}

/// Refuses options that belong to another type of mount, instead of ignoring them.
fn consistent(mount: &Mount) -> Result<()> {
    let kind = mount.typ;
    let stray = [
        ("bind-*", mount.bind_options.is_some() && kind != Some(MountType::BIND)),
        ("volume-*", mount.volume_options.is_some() && kind != Some(MountType::VOLUME)),
        ("tmpfs-*", mount.tmpfs_options.is_some() && kind != Some(MountType::TMPFS)),
        ("source", mount.source.is_some() && kind == Some(MountType::TMPFS)),
    ];
    match stray.iter().find(|(_, stray)| *stray) {
        Some((name, _)) => bail!("{name} does not go with this type of mount"),
        None => Ok(()),
    }
}

fn truth(key: &str, value: Option<&str>) -> Result<bool> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => bail!("{key} is true or false, not {other:?}"),
    }
}

fn bind(mount: &mut Mount) -> &mut MountBindOptions {
    mount.bind_options.get_or_insert_default()
}

fn volume_options(mount: &mut Mount) -> &mut MountVolumeOptions {
    mount.volume_options.get_or_insert_default()
}

fn driver(mount: &mut Mount) -> &mut MountVolumeOptionsDriverConfig {
    volume_options(mount).driver_config.get_or_insert_default()
}

fn tmpfs_options(mount: &mut Mount) -> &mut MountTmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

fn propagation(text: &str) -> Result<MountBindOptionsPropagationEnum> {
    use MountBindOptionsPropagationEnum as Propagation;
    Ok(match text {
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        other => bail!("bind-propagation {other} is none of [r]private, [r]shared, [r]slave"),
    })
}

/// `--tmpfs TARGET[:OPTIONS]`.
pub(crate) fn tmpfs(text: &str) -> Result<(String, String)> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        bail!("invalid tmpfs {text:?}: the path in the container must be absolute");
    }
    Ok((target.to_owned(), options.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_binds_or_anonymous() {
        let here = Path::new("/here");
        assert_eq!(volume("/data", here).unwrap(), Volume::Anonymous("/data".into()));
        assert_eq!(volume("v:/data:ro", here).unwrap(), Volume::Bind("v:/data:ro".into()));
        assert_eq!(volume("./x:/data", here).unwrap(), Volume::Bind("/here/./x:/data".into()));
        for bad in ["data", ":/data", "v:data", ""] {
            assert!(volume(bad, here).is_err(), "{bad}");
        }
    }

    #[test]
    fn mounts_take_dockers_keys() {
        let parsed =
            mount("type=bind,src=./a,dst=/b,readonly,bind-propagation=rslave", Path::new("/here"))
                .unwrap();
        assert_eq!(parsed.source.as_deref(), Some("/here/./a"));
        assert_eq!(parsed.read_only, Some(true));
        assert_eq!(
            parsed.bind_options.unwrap().propagation,
            Some(MountBindOptionsPropagationEnum::RSLAVE)
        );
        let parsed =
            mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777", Path::new("/")).unwrap();
        assert_eq!(parsed.tmpfs_options.unwrap().mode, Some(0o1777));
        let parsed = mount("source=v,target=/t,volume-opt=type=tmpfs", Path::new("/")).unwrap();
        assert_eq!(parsed.typ, Some(MountType::VOLUME));
    }

    #[test]
    fn inconsistent_mounts_are_refused() {
        for bad in [
            "type=bind,target=/x",
            "type=volume",
            "type=volume,target=/x,tmpfs-size=1",
            "type=magic,target=/x",
            "target=/x,what=1",
            "target=/x,ro=maybe",
        ] {
            assert!(mount(bad, Path::new("/")).is_err(), "{bad}");
        }
    }
}

//! `brig cp`.
//!
//! Both directions carry a tar whose first component is the thing copied; copying renames that component. From a
//! container, entries are written beneath the destination only: a link that the container planted is never followed.

mod unpack;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use brig_engine_api::client::{Client, ErrorKind, Upload};
use brig_engine_api::query;

use crate::context::Context;
use crate::exit::{Exit, Outcome};
use crate::pipe;

/// Copy between a container and the host
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is the source
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
    /// CONTAINER:PATH, PATH, or - for a tar on standard input
    source: String,
    /// CONTAINER:PATH, PATH, or - for a tar on standard output
    destination: String,
}

pub(crate) async fn execute(context: &Context, arguments: Arguments) -> Outcome {
    let client = context.client().await?;
    match (split(&arguments.source), split(&arguments.destination)) {
        (Some((container, path)), None) => {
            from_container(&client, container, path, &arguments).await?;
        }
        (None, Some((container, path))) => {
            to_container(&client, container, path, &arguments).await?;
        }
        (Some(_), Some(_)) => {
            return Err(anyhow::anyhow!(
                "copying between containers is not supported: copy to the host first"
            )
            .into());
        }
        (None, None) => {
            return Err(
                anyhow::anyhow!("one of source and destination must be CONTAINER:PATH").into()
            );
        }
    }
    Ok(Exit::SUCCESS)
}

/// `CONTAINER:PATH`; a path with a slash before the colon, or `-`, is local.
fn split(argument: &str) -> Option<(&str, &str)> {
    let (container, path) = argument.split_once(':')?;
    (!container.is_empty() && !container.contains('/') && !container.starts_with('.'))
        .then_some((container, path))
}

async fn from_container(
    client: &Client,
    container: &str,
    path: &str,
    arguments: &Arguments,
) -> Result<()> {
    let mut source = path.to_owned();
    if arguments.follow_link {
        let stat = client.stat_path(container, path).await?;
        if !stat.link_target.is_empty() {
            source = stat.link_target;
        }
    }
    let (stat, mut stream) = client.read_archive(container, &source).await?;
    if arguments.destination == "-" {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut stream, &mut stdout).await.context("write the archive")?;
        return tokio::io::AsyncWriteExt::flush(&mut stdout).await.context("write the archive");
    }
    let contents_only = ends_in_dot(&source);
    let target = unpack::Target::choose(Path::new(&arguments.destination), &stat, contents_only)?;
    pipe::read(stream, move |archive| target.unpack(archive)).await?;
    if !arguments.quiet {
        eprintln!("Successfully copied {container}:{path} to {}", arguments.destination);
    }
    Ok(())
}

async fn to_container(
    client: &Client,
    container: &str,
    path: &str,
    arguments: &Arguments,
) -> Result<()> {
    let query = |directory: &str| query::ContainerArchive {
        path: directory.to_owned(),
        no_overwrite_dir_non_dir: true,
        copy_uid_gid: arguments.archive,
    };
    if arguments.source == "-" {
        let upload = Upload::from_reader(tokio::io::stdin());
        return Ok(client.write_archive(container, &query(path), upload).await?);
    }
    let source = PathBuf::from(&arguments.source);
    let found = if arguments.follow_link {
        std::fs::metadata(&source)
    } else {
        std::fs::symlink_metadata(&source)
    };
    let metadata = found.with_context(|| format!("read {}", source.display()))?;
    let contents_only = ends_in_dot(&arguments.source) && metadata.is_dir();
    let (directory, name) =
        place(client, container, path, &source, metadata.is_dir(), contents_only).await?;
    let follow = arguments.follow_link;
    let (upload, packer) = pipe::write(move |writer| pack(&source, &name, follow, writer));
    let written = client.write_archive(container, &query(&directory), upload).await;
    // The daemon's refusal says more than the broken pipe that it causes.
    written?;
    packer.await.context("pack the source")??;
    if !arguments.quiet {
        eprintln!("Successfully copied {} to {container}:{path}", arguments.source);
    }
    Ok(())
}

/// Where a local source goes: the directory to extract into, and the name to give it there.
async fn place(
    client: &Client,
    container: &str,
    path: &str,
    source: &Path,
    is_directory: bool,
    contents_only: bool,
) -> Result<(String, PathBuf)> {
    let mut path = path.to_owned();
    let mut stat = client.stat_path(container, &path).await;
    if let Ok(found) = &stat
        && found.is_symlink()
        && !found.link_target.is_empty()
    {
        path.clone_from(&found.link_target);
        stat = client.stat_path(container, &path).await;
    }
    match stat {
        Ok(found) if found.is_directory() && contents_only => Ok((path, PathBuf::from("."))),
        Ok(found) if found.is_directory() => Ok((path, PathBuf::from(base_name(source)?))),
        Ok(_) if is_directory => bail!("cannot copy a directory over the file {container}:{path}"),
        Ok(_) => parent(&path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if path.ends_with('/') && !is_directory {
                bail!("no such directory: {container}:{path}");
            }
            parent(path.trim_end_matches('/'))
        }
        Err(error) => Err(error.into()),
    }
}

fn parent(path: &str) -> Result<(String, PathBuf)> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() || name == "." || name == ".." {
        bail!("invalid destination {path:?}");
    }
    let directory = if directory.is_empty() { "/" } else { directory };
    Ok((directory.to_owned(), PathBuf::from(name)))
}

fn base_name(path: &Path) -> Result<std::ffi::OsString> {
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let absolute = std::path::absolute(path).context("find the working directory")?;
    let resolved = absolute.components().next_back().map(|part| part.as_os_str().to_owned());
    resolved.context("the source has no name")
}

fn ends_in_dot(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

fn pack(source: &Path, name: &Path, follow: bool, writer: impl Write) -> Result<()> {
    let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(64 * 1024, writer));
    builder.follow_symlinks(false);
    let metadata =
        if follow { std::fs::metadata(source) } else { std::fs::symlink_metadata(source) }?;
    let packed = if metadata.is_dir() {
        builder.append_dir_all(name, source)
    } else if follow {
        std::fs::File::open(source).and_then(|mut file| builder.append_file(name, &mut file))
    } else {
        builder.append_path_with_name(source, name)
    };
    packed.with_context(|| format!("pack {}", source.display()))?;
    builder.into_inner().context("finish the archive")?.flush().context("finish the archive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_before_a_colon() {
        assert_eq!(split("web:/etc/x"), Some(("web", "/etc/x")));
        for local in ["/a:b", "./a:b", "plain", "-", ":x"] {
            assert_eq!(split(local), None, "{local}");
        }
    }

    #[test]
    fn parents_are_split_off() {
        assert_eq!(parent("/a/b").unwrap(), ("/a".into(), PathBuf::from("b")));
        assert_eq!(parent("/a").unwrap(), ("/".into(), PathBuf::from("a")));
        assert!(parent("/").is_err());
    }
}

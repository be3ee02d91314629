//! What Create's options ask for: brigd's own message, or the one that containerd's clients send for runc's shim.

use std::path::PathBuf;

use brig_runtime::{CheckpointOptions, CriuOptions};
use brig_shim_protocol::options::{
    CheckpointOptions as RuncCheckpoint, LogOptions, Options, RuncOptions,
};
use brig_shim_protocol::task::CheckpointTaskRequest;
use brig_shim_protocol::ttrpc::{Code, Status};
use brig_shim_protocol::types::Any;

use super::Shim;
use crate::runtime::Settings;

/// What Create's options ask for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) settings: Settings,
    /// Streams are served on the stdio socket.
    pub(super) attachable: bool,
    pub(super) open_stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) log: Option<LogOptions>,
    /// User and group that own the ends of the streams.
    pub(super) owner: Option<(u32, u32)>,
    /// A cgroup for the shim itself.
    pub(super) shim_cgroup: String,
}

impl Shim {
    pub(super) fn parse_options(&self, options: Option<&Any>) -> Result<Asked, Status> {
        let invalid = |error: brig_shim_protocol::Error| {
            Status::new(Code::InvalidArgument, error.to_string())
        };
        let mut asked = Asked::default();
        let mut root = String::new();
        match options {
            Some(any) if any.is::<Options>() => {
                let options: Options = any.unpack().map_err(invalid)?;
                asked.attachable = true;
                asked.settings.systemd_cgroup = options.systemd_cgroup;
                asked.settings.no_pivot = options.no_pivot;
                asked.settings.no_new_keyring = options.no_new_keyring;
                asked.settings.binary = options.runtime_binary;
                asked.settings.arguments = options.runtime_arguments;
                asked.log = options.log;
                asked.open_stdin = options.open_stdin;
                asked.stdin_once = options.stdin_once;
                root = options.runtime_root;
            }
            Some(any) if any.is::<RuncOptions>() => {
                let options: RuncOptions = any.unpack().map_err(invalid)?;
                refuse(&options)?;
                asked.settings.systemd_cgroup = options.systemd_cgroup;
                asked.settings.no_pivot = options.no_pivot_root;
                asked.settings.no_new_keyring = options.no_new_keyring;
                asked.settings.binary = options.binary_name;
                let owner = (options.io_uid, options.io_gid);
                asked.owner = Some(owner).filter(|owner| *owner != (0, 0));
                asked.shim_cgroup = options.shim_cgroup;
                root = options.root;
            }
            Some(any) if !any.type_url.is_empty() => {
                let message = format!("options of type {} are not understood", any.type_url);
                return Err(Status::new(Code::InvalidArgument, message));
            }
            _ => {}
        }
        asked.settings.root =
            if root.is_empty() { self.identity.default_runtime_root() } else { root.into() };
        Ok(asked)
    }
}

/// The same options, as containerd's clients send them to runtimes that they do not know.
const FORMER_CHECKPOINT: &str = "containerd.linux.runc.CheckpointOptions";

/// How a container is to be saved.
pub(super) fn checkpoint_options(
    request: &CheckpointTaskRequest,
) -> Result<CheckpointOptions, Status> {
    let asked = match &request.options {
        Some(any) if any.is::<RuncCheckpoint>() || any.type_url == FORMER_CHECKPOINT => {
            <RuncCheckpoint as prost::Message>::decode(&*any.value)
                .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?
        }
        Some(any) if !any.type_url.is_empty() => {
            let message = format!("options of type {} are not understood", any.type_url);
            return Err(Status::new(Code::InvalidArgument, message));
        }
        _ => RuncCheckpoint::default(),
    };
    let unsupported = |message| Err(Status::new(Code::Unimplemented, message));
    if let Some(name) = asked.empty_namespaces.iter().find(|name| *name != "network") {
        return unsupported(format!("empty namespace {name} is not supported: only network"));
    }
    if matches!(&*asked.cgroups_mode, "full" | "strict") {
        let mode = &asked.cgroups_mode;
        return unsupported(format!("cgroups mode {mode} is not supported: soft or ignore"));
    }
    let images = if request.path.is_empty() { asked.image_path } else { request.path.clone() };
    if images.is_empty() {
        let message = "a directory for the images of the checkpoint is missing";
        return Err(Status::new(Code::InvalidArgument, message));
    }
    Ok(CheckpointOptions {
        criu: CriuOptions {
            program: PathBuf::new(),
            images: images.into(),
            work: Some(asked.work_path).filter(|path| !path.is_empty()).map(PathBuf::from),
            tcp_established: asked.open_tcp,
            external_unix_sockets: asked.external_unix_sockets,
            shell_job: asked.terminal,
            file_locks: asked.file_locks,
            auto_dedup: false,
        },
        leave_running: !asked.exit,
        ..CheckpointOptions::default()
    })
}

/// CRIU is looked for in the search path, its images come with a request, and nobody else serves the task API.
fn refuse(options: &RuncOptions) -> Result<(), Status> {
    let refused = [
        ("criu_path", &options.criu_path),
        ("criu_image_path", &options.criu_image_path),
        ("criu_work_path", &options.criu_work_path),
        ("task_api_address", &options.task_api_address),
    ];
    match refused.into_iter().find(|(_, value)| !value.is_empty()) {
        Some((name, _)) => {
            let message = format!("runtime option {name} is not supported by this shim");
            Err(Status::new(Code::Unimplemented, message))
        }
        None => Ok(()),
    }
}

//! What Create's options ask for: brigd's own message, or the one that containerd's clients send for runc's shim.

use brig_shim_protocol::options::{LogOptions, Options, RuncOptions};
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

/// Checkpoints are not supported, and neither is a task API that somebody else serves.
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

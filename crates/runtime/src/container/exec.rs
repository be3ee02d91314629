//! Further processes in a container.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxNamespaceType, Process};
use rustix::process::Pid;
use rustix::thread::ThreadNameSpaceType;

use super::create::{linux, send_pidfd, write_pid_file};
use super::{Container, Exec, ExecOptions, Status};
use crate::bundle::{ProcessContext, prepare_process};
use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::process::exec::{ExecPlan, OomScoreAdjustment};
use crate::process::id_maps::groups_are_denied;
use crate::process::message::Message;
use crate::process::parent::{self, SpawnError};
use crate::security::{placement, rlimits, scheduling};
use crate::state::State;
use crate::terminal;

impl Container {
    pub(super) fn exec_process(&self, process: &Process, options: ExecOptions) -> Result<Exec> {
        terminal::check_pair(process.terminal().unwrap_or(false), &options.console)?;
        let state = self.existing()?;
        match self.status_without_start(&state) {
            None => {}
            Some(Status::Paused) if options.ignore_paused => {}
            Some(status) => return Err(self.conflict("exec in", status)),
        }
        let limits = rlimits::parse(process.rlimits().as_deref().unwrap_or_default())?;
        let cgroup = exec_cgroup(&state, &options)?;
        let console = options.console;
        let (pid_file, pidfd_socket) = (options.pid_file, options.pidfd_socket);
        let preserve = options.preserve_fds;
        let plan = self.exec_plan(&state, process, &cgroup, options.stdio, preserve)?;
        let spawned = parent::spawn_exec(&plan, cgroup.dir_fd()).map_err(|error| match error {
            SpawnError::Step(failure) => parent::explain(&failure, &plan),
            SpawnError::Own(error) => error,
        })?;
        let released = (|| {
            let number = Pid::from_raw(spawned.pid).ok_or_else(parent::silent)?;
            rlimits::apply(number, &limits)?;
            state.resctrl.iter().try_for_each(|groups| groups.join(spawned.pid))?;
            if let Some(agent) = &plan.process.agent {
                agent.describe(&state, "running", spawned.pid)?;
            }
            spawned.channel.go()?;
            let master = parent::expect_ready(&spawned.channel, &plan, || Ok(()))?;
            // The exec closes the child's side; anything else it says is why it did not get there.
            if let Some((Message::Failed(failure), _)) = spawned.channel.receive()? {
                return Err(parent::explain(&failure, &plan));
            }
            let master = terminal::deliver(master, console)?;
            if let Some(path) = &pidfd_socket {
                send_pidfd(path, spawned.pidfd.as_fd())?;
            }
            if let Some(path) = &pid_file {
                write_pid_file(path, spawned.pid)?;
            }
            Ok(master)
        })();
        match released {
            Ok(console) => Ok(Exec { pid: spawned.pid, pidfd: spawned.pidfd, console }),
            Err(error) => {
                let _ = brig_linux::pidfd::send_signal(spawned.pidfd.as_fd(), libc::SIGKILL);
                let _ = brig_linux::pidfd::wait_child(spawned.pidfd.as_fd());
                Err(error)
            }
        }
    }

    fn exec_plan(
        &self,
        state: &State,
        process: &Process,
        cgroup: &Cgroup,
        stdio: super::Stdio,
        preserve_fds: u32,
    ) -> Result<ExecPlan> {
        let spec = self.configured()?;
        let linux = linux(spec)?;
        let init = self.init(state).ok_or_else(|| super::gone(&state.id))?;
        let mut namespaces = ThreadNameSpaceType::empty();
        for namespace in linux.namespaces().iter().flatten() {
            namespaces |= match namespace.typ() {
                LinuxNamespaceType::User => ThreadNameSpaceType::USER,
                LinuxNamespaceType::Pid => ThreadNameSpaceType::PROCESS_ID,
                LinuxNamespaceType::Network => ThreadNameSpaceType::NETWORK,
                LinuxNamespaceType::Mount => ThreadNameSpaceType::MOUNT,
                LinuxNamespaceType::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
                LinuxNamespaceType::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
                LinuxNamespaceType::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
                LinuxNamespaceType::Time => ThreadNameSpaceType::TIME,
            };
        }
        let within = namespaces.contains(ThreadNameSpaceType::CONTROL_GROUP);
        namespaces.remove(ThreadNameSpaceType::CONTROL_GROUP);
        let cgroup_namespace = within.then(|| {
            std::fs::File::open(format!("/proc/{}/ns/cgroup", state.pid))
                .map_err(|source| Error::system("open the container's cgroup namespace", source))
        });
        let root = state.no_pivot.then(|| {
            std::fs::File::open(format!("/proc/{}/root", state.pid))
                .map_err(|source| Error::system("open the container's root", source))
        });
        let context = ProcessContext {
            seccomp: linux.seccomp().as_ref(),
            stdio,
            preserve_fds,
            keep_groups: groups_are_denied(&state.pid.to_string()),
            listen_fds: 0,
            keyring: (!state.no_new_keyring).then(|| format!("_ses.{}", state.id)),
            personality: linux.personality().as_ref().map(scheduling::personality).transpose()?,
            memory_policy: linux
                .memory_policy()
                .as_ref()
                .map(placement::memory_policy)
                .transpose()?,
        };
        // Of this process, or else of the container's, for all of whose further processes it is meant.
        let configured = spec.process().as_ref();
        let affinity = process
            .exec_cpu_affinity()
            .as_ref()
            .or_else(|| configured.and_then(|process| process.exec_cpu_affinity().as_ref()));
        Ok(ExecPlan {
            oom_score_adjustment: process.oom_score_adj().map(OomScoreAdjustment::new),
            affinity: affinity.map(placement::affinity).transpose()?.unwrap_or_default(),
            init,
            cgroups: cgroup.prepare_entry()?,
            become_root: namespaces.contains(ThreadNameSpaceType::USER),
            namespaces,
            cgroup_namespace: cgroup_namespace.transpose()?.map(Into::into),
            root: root.transpose()?.map(Into::into),
            process: prepare_process(process, context)?,
        })
    }
}

fn exec_cgroup(state: &State, options: &ExecOptions) -> Result<Cgroup> {
    if state.cgroup.is_nowhere() && !options.cgroups.is_empty() {
        return Err(super::no_cgroup(&state.id));
    }
    if options.cgroups.is_empty() {
        return Cgroup::open_for_exec(&state.cgroup, state.pid);
    }
    Cgroup::open_below(&state.cgroup, &options.cgroups)
}
